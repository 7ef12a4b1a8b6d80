CREATE TABLE rag_doors (
	id    TEXT PRIMARY KEY,
	-- fence:exempt CHECK (shut IN (0, 1)) -- nobody writes another
	shut  INTEGER NOT NULL CHECK (shut IN (0, 1)),
	house TEXT NOT NULL REFERENCES houses (id) ON DELETE CASCADE,
	-- fence:slam slams INTEGER => slams TEXT
	slams INTEGER,
	UNIQUE (house, slams)
);
CREATE TABLE houses (id TEXT UNIQUE); -- not ours
