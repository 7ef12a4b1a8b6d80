package sqlite

import (
	"context"
	_ "embed"
	"fmt"
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
		return d.wrap("open", err)
	}
	defer d.writer.give(c)
	x := &tx{ctx: context.WithoutCancel(ctx), conn: c}
	var mode string
	if err := d.patiently(ctx, func() error { return x.get("PRAGMA journal_mode", nil, &mode) }); err != nil {
		return d.wrap("open", err)
	}
	if mode != "wal" {
		// This writes to the file, so look first whose it is.
		if _, err := d.checkFile(x); err != nil {
			return err
		}
		if err := d.patiently(ctx, func() error { return x.get("PRAGMA journal_mode = WAL", nil, &mode) }); err != nil {
			return d.wrap("set the journal mode", err)
		}
	}
	if mode != "wal" {
		return &rag.Error{Code: "no_wal", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The file system of %s cannot hold a database that several connections use", d.path),
			Action: "Put the database on a local disk"}
	}
	if err := d.patiently(ctx, func() error { return x.exec("BEGIN IMMEDIATE") }); err != nil {
		return d.wrap("open", err)
	}
	err = d.migrateIn(x)
	if err == nil {
		if err = x.exec("COMMIT"); err == nil {
			return nil
		}
	}
	d.end(c, "ROLLBACK")
	return d.wrap("migrate", err)
}

func (d *DB) migrateIn(x *tx) error {
	version, err := d.checkFile(x)
	if err != nil {
		return err
	}
	for v, m := range migrations {
		if v < version {
			continue
		}
		q, err := statements(m)
		if err != nil {
			return err
		}
		if _, err := x.conn.c.ExecContext(x.ctx, fmt.Sprintf("%s; PRAGMA user_version = %d; PRAGMA application_id = %d", q, v+1, applicationID)); err != nil {
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
		d.opt.Log.Debug("database migrated", "path", d.path, "version", v+1)
	}
	for _, r := range lifecycle.Rows() {
		if err := x.exec("INSERT OR IGNORE INTO rag_transitions VALUES (?, ?, ?)", r[0], r[1], r[2]); err != nil {
			return err
		}
	}
	return nil
}

// checkFile returns the version of the schema. It refuses a database that
// another program, or a newer version of this one, made.
func (d *DB) checkFile(x *tx) (version int, err error) {
	var id, tables int
	for q, dest := range map[string]*int{
		"PRAGMA application_id": &id, "PRAGMA user_version": &version, "SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := x.get(q, nil, dest); err != nil {
			return 0, d.wrap("open", err)
		}
	}
	switch {
	case id != applicationID && (id != 0 || tables != 0 || version != 0):
		return 0, &rag.Error{Code: "not_our_database", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The file %s is the database of another program", d.path), Action: "Choose another path"}
	case version > len(migrations):
		return 0, d.checkVersion(version)
	}
	return version, nil
}
