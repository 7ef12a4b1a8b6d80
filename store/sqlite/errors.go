package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"ragprocessor/rag"
)

// wrap says what was being done when err happened, and gives the errors of
// SQLite that a person can mend their three parts.
func (d *DB) wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", what, rag.ErrNotFound)
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	bad := func(code, reason, action string, permanent bool) error {
		return fmt.Errorf("%s: %w", what, &rag.Error{Code: code, Fault: rag.FaultSystem, Permanent: permanent, Err: err,
			Reason: fmt.Sprintf(reason, d.path), Action: action})
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return fmt.Errorf("%s: %w", what, rag.Permanent(err))
	case sqlite3.SQLITE_NOTADB:
		return bad("not_a_database", "The file %s is not a SQLite database", "Choose another path, or restore the file from a backup", true)
	case sqlite3.SQLITE_CORRUPT:
		return bad("database_damaged", "The database %s is damaged", "Stop every process that uses it and restore it from a backup, or save what can be read with the command sqlite3 and .recover", true)
	case sqlite3.SQLITE_FULL:
		return bad("disk_full", "There is no space left for the database %s", "Free some space on its disk; the work goes on by itself", false)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return bad("database_not_writable", "The database %s cannot be written", "Let the program's user write the file and its directory", false)
	case sqlite3.SQLITE_CANTOPEN:
		return bad("database_not_writable", "The database %s cannot be opened", "Let the program's user read and write the file and its directory", false)
	case sqlite3.SQLITE_IOERR:
		return bad("disk_error", "The disk of the database %s reports an error", "Look at the system's log; the file must be on a local disk", false)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return bad("database_busy", "Another process has been writing the database %s for too long", "Look for a process that holds it open, such as a backup", false)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// fileError says what kept the file at path from being opened.
func fileError(path string, err error) error {
	e := &rag.Error{Code: "database_not_writable", Fault: rag.FaultSystem, Err: err,
		Reason: fmt.Sprintf("The database %s cannot be opened for writing", path),
		Action: "Let the program's user write the file and its directory, or choose another path"}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		e.Code, e.Reason, e.Action = "disk_full", fmt.Sprintf("There is no space left for the database %s", path), "Free some space on its disk"
	} else if errors.Is(err, fs.ErrNotExist) {
		e.Action = "Choose a path whose directory exists"
	}
	return fmt.Errorf("open database: %w", e)
}

// checkVersion returns an error if v is not the version of the schema that this
// program needs.
func (d *DB) checkVersion(v int) error {
	switch {
	case v == len(migrations):
		return nil
	case v > len(migrations):
		return &rag.Error{Code: "schema_too_new", Fault: rag.FaultSystem, Permanent: true,
			Reason: fmt.Sprintf("The database %s has schema version %d; this program knows versions up to %d", d.path, v, len(migrations)),
			Action: "Use the newer version of the program that last opened it"}
	}
	return &rag.Error{Code: "schema_too_old", Fault: rag.FaultSystem, Permanent: true,
		Reason: fmt.Sprintf("The database %s has schema version %d; this program needs %d", d.path, v, len(migrations)),
		Action: "Start the program again: it brings the schema up to date when it opens the file"}
}
