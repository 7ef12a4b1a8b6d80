package sqlite

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

//go:embed schema.sql
var schema1 string

// migrations bring the schema from version i to i+1. What was released is never
// changed; the version of a file is its PRAGMA user_version.
var migrations = []string{schema1}

// applicationID marks the files of this program, in PRAGMA application_id.
const applicationID = 0x52414750 // "RAGP"

// statements returns a migration with what is generated from the table of
// package lifecycle filled in.
func statements(migration string) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"now":        func() string { return clock },
		"check":      lifecycle.Check,
		"active":     lifecycle.IsActive,
		"checkEvent": lifecycle.CheckEvent,
	}).Parse(migration)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, nil)
	return b.String(), err
}

// migrate brings the schema up to date. Of several processes that open a file
// at once, one does it and the others wait.
func (d *DB) migrate(ctx context.Context) error {
	c, err := d.writer.take(ctx)
	if err != nil {
		return d.wrap("open database", err)
	}
	defer d.writer.give(c)
	x := &tx{ctx: context.WithoutCancel(ctx), conn: c}
	// What follows writes to the file, so look first whose it is.
	version, err := d.checkFile(x)
	if err != nil {
		return d.wrap("open database", err)
	}
	if version == len(migrations) {
		if missing, err := x.missingMoves(); err != nil || len(missing) == 0 {
			return d.wrap("open database", err)
		}
	}
	var mode string
	if err := x.get("PRAGMA journal_mode = WAL", nil, &mode); err != nil {
		return d.wrap("open database", err)
	}
	if mode != "wal" {
		return &rag.Error{Code: "no_wal", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The file system of %s cannot hold a database that several connections use", d.path),
			Action: "Put the database on a local disk"}
	}
	if err := d.begin(ctx, c); err != nil {
		return d.wrap("open database", err)
	}
	if err = d.migrateIn(x); err == nil {
		if err = x.exec("COMMIT"); err == nil {
			return nil
		}
	}
	d.end(x.ctx, c, "ROLLBACK")
	return d.wrap("bring the schema up to date", err)
}

func (d *DB) migrateIn(x *tx) error {
	version, err := d.checkFile(x)
	if err != nil {
		return err
	}
	for v := version; v < len(migrations); v++ {
		q, err := statements(migrations[v])
		if err != nil {
			return err
		}
		// A script, so it is not prepared.
		if _, err := x.conn.c.ExecContext(x.ctx, fmt.Sprintf("%s; PRAGMA user_version = %d; PRAGMA application_id = %d", q, v+1, applicationID)); err != nil {
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
		d.opt.Log.Info("database schema brought up to date", "path", d.path, "version", v+1)
	}
	missing, err := x.missingMoves()
	for _, m := range missing {
		err = errors.Join(err, x.exec("INSERT INTO rag_transitions VALUES (?, ?, ?)", m[0], m[1], m[2]))
	}
	return err
}

// missingMoves returns the rows of package lifecycle's table that the database
// does not have yet.
func (x *tx) missingMoves() ([][3]string, error) {
	has := map[[3]string]bool{}
	err := x.each("SELECT from_stage, to_stage, signal FROM rag_transitions", nil, func(scan func(...any) error) error {
		var m [3]string
		err := scan(&m[0], &m[1], &m[2])
		has[m] = true
		return err
	})
	return slices.DeleteFunc(lifecycle.Rows(), func(m [3]string) bool { return has[m] }), err
}

// checkFile returns the version of the schema. It refuses a database that
// another program, or a newer version of this one, made.
func (d *DB) checkFile(x *tx) (version int, err error) {
	var id, tables int
	err = x.get(`SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`,
		nil, &id, &version, &tables)
	switch {
	case err != nil:
		return 0, err
	case id != applicationID && (id != 0 || tables != 0 || version != 0):
		return 0, &rag.Error{Code: "not_our_database", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The file %s is the database of another program", d.path), Action: "Choose another path"}
	case version > len(migrations):
		return 0, d.checkVersion(version)
	}
	return version, nil
}
