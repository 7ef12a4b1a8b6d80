// Package ragprocessor holds the tests that look at the whole repository. It
// has no code: the program is cmd/rag-processor. This page is the tour.
//
// A file becomes searchable, citable chunks on this walk:
//
//	upload / event → job → source → parse → chunk → embed → store → search
//
// Everything on it speaks in the nouns of package rag: a Job is one file on its
// way, a Document what was read in it, a Chunk the unit of embedding and
// search, a Locator the place in the file that a citation names, an Error what
// went wrong, whose fault it is and what to do.
//
// # One place moves a job
//
// Package lifecycle is a table of the moves that a job may make. Next makes a
// Transition from a job and a signal, or refuses; only it can. Package store
// has the rules (what to enqueue, whom to serve next, when a lease is lost) and
// hands transitions to a driver, whose Apply is the only code that writes a
// stage. The drivers store/sqlite, store/postgres and store/memory pass one
// suite, store/storetest. In the database, too, the table is law: an event that
// is not in it, or does not follow the one before it, cannot be written.
//
// Package event passes hints that something moved, between goroutines of one
// process. Nobody believes a hint: whoever gets one looks at the store.
//
// # The walk
//
// Package source opens the bytes, from a folder or an upload, and refuses paths
// that lead elsewhere. Package parse reads seven formats, each file in a child
// process that can be killed and may touch nothing. Package chunk is one pure
// function from a document to chunks. Package embed has the Embedder, and
// model/local the models that run in this process. Package search fuses words
// and vectors and marks the passage.
//
// # Who drives
//
// Package pipeline is what a worker does with one job, a paragraph a stage.
// Package runner claims jobs, keeps their leases, retries, and drains. Package
// server is the API, the live stream and the page. cmd/rag-processor alone
// knows every package: it reads the settings and wires the rest.
//
// docs/architecture.md says more, docs/decisions.md why it is so, and
// docs/lifecycle.md, which is generated, has the table and its diagram.
package ragprocessor
