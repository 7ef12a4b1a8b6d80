-- Größe der Kunden
SELECT name,

       groesse
FROM kunden;
GO

DELETE FROM alt;
