package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/store"
)

const (
	maxFiles  = 1000        // in one request
	maxName   = 255         // bytes of a file's name
	bodyQuiet = time.Minute // how long an upload may send nothing
)

// refused is the outcome of a file that was not taken.
const refused store.Outcome = "refused"

// An uploadView is what became of one file that was sent. Outcome is "added",
// "superseded", "duplicate" (a file of this name with these bytes is there
// already, as the document and job given) or "refused" (see error).
type uploadView struct {
	Filename   string        `json:"filename"`
	Outcome    store.Outcome `json:"outcome"`
	DocumentID string        `json:"document_id,omitempty"`
	JobID      string        `json:"job_id,omitempty"`
	Job        *jobView      `json:"job,omitempty"`
	Note       string        `json:"note,omitempty"`
	Error      *errorView    `json:"error,omitempty"`

	err error
}

// postDocuments takes files: POST /api/v1/documents, as multipart/form-data
// with any number of parts named "file", or as the bytes themselves with
// ?filename=. It answers 202 with {"files": [uploadView, …]}, in order, once
// every byte is on disk and every job is queued; if no file was taken, the
// status is that of the first one's error.
func (s *Server) postDocuments(w http.ResponseWriter, r *http.Request) error {
	files, err := s.receive(w, r)
	if err != nil {
		return err
	}
	status := http.StatusAccepted
	if failed := firstIfAll(files); failed != nil {
		status, _ = statusOf(failed)
		if len(files) == 1 {
			return failed
		}
	}
	writeJSON(w, status, map[string][]uploadView{"files": files})
	return nil
}

// firstIfAll returns the error of the first file if none was taken.
func firstIfAll(files []uploadView) error {
	for _, f := range files {
		if f.err == nil {
			return nil
		}
	}
	return files[0].err
}

// receive takes the files of a request, one after the other. It returns an
// error if there is none, or if the request broke off.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) ([]uploadView, error) {
	user, err := s.user(r)
	if err != nil {
		return nil, err
	}
	r.Body = http.MaxBytesReader(w, &watched{r.Body, http.NewResponseController(w)}, max(10*s.MaxUpload, 1<<30))
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		name := r.URL.Query().Get("filename")
		switch {
		case name == "" && kind == "application/x-www-form-urlencoded":
			return nil, &rag.Error{Code: "unsupported_request", Fault: rag.FaultFile, Permanent: true, Err: err,
				Reason: "The request holds a form without files", Action: "Send multipart/form-data with parts named file"}
		case name == "":
			return nil, badRequest("filename_required", "The request does not say how the file is named", "Add ?filename= to the address, or send multipart/form-data")
		case r.ContentLength > s.MaxUpload:
			return nil, source.TooLarge(s.MaxUpload)
		}
		f := s.take(r.Context(), user, name, r.Body)
		if err := brokenOff(f.err); err != nil {
			return nil, err
		}
		return []uploadView{f}, nil
	}
	badForm := func(err error) error {
		return &rag.Error{Code: "bad_request", Fault: rag.FaultFile, Permanent: true, Err: err,
			Reason: "The form cannot be read", Action: "Send well-formed multipart/form-data"}
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, badForm(err)
	}
	var files []uploadView
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, cmp.Or(brokenOff(err), badForm(err))
		}
		name := rawFilename(part)
		if part.FormName() != "file" || name == "" {
			continue
		}
		if len(files) == maxFiles {
			return nil, badRequest("too_many_files", fmt.Sprintf("There are more than %d files in one request", maxFiles), "Send the rest in another request; those before it were taken")
		}
		f := s.take(r.Context(), user, name, part)
		if err := brokenOff(f.err); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, badRequest("no_file", "No file was sent", "Choose one or more files; in a form, their parts are named file")
	}
	return files, nil
}

// brokenOff returns what to say of err if it means that the request itself
// ended early, and nil if it is about one file of it.
func brokenOff(err error) error {
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded):
		return &rag.Error{Code: "broken_off", Fault: rag.FaultFile, Err: err,
			Reason: "The request broke off before its end", Action: "Send it again; the files before the break were taken"}
	}
	return nil
}

// rawFilename returns the name of a file as the person's program sent it.
// [multipart.Part.FileName] would cut at slashes only of this system's kind.
func rawFilename(part *multipart.Part) string {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return part.FileName()
	}
	return params["filename"]
}

// take keeps the bytes of one file and makes its job.
func (s *Server) take(ctx context.Context, user, filename string, body io.Reader) uploadView {
	v := uploadView{Filename: cleanName(filename)}
	job, outcome, err := s.ingest(ctx, user, v.Filename, body)
	if err != nil {
		_, e := statusOf(err)
		v.Outcome, v.Error, v.err = refused, &e, err
		return v
	}
	view := viewJob(job)
	v.Outcome, v.DocumentID, v.JobID, v.Job = outcome, job.DocumentID, job.ID, &view
	if outcome == store.Duplicate {
		v.Note = "A file of this name with exactly these bytes is here already"
		if job.Stage == rag.Failed || job.Stage == rag.Cancelled {
			v.Note += "; its job is " + string(job.Stage) + " and can be retried"
		}
	}
	return v
}

func (s *Server) ingest(ctx context.Context, user, filename string, body io.Reader) (_ *rag.Job, _ store.Outcome, err error) {
	up, err := s.Uploads.Save(ctx, user, filename, body, s.MaxUpload)
	if err != nil {
		return nil, "", err
	}
	queued := false
	defer func() {
		if !queued {
			// The request may have been given up; its leftovers must go all the same.
			err = errors.Join(err, s.Uploads.Remove(context.WithoutCancel(ctx), up.Object))
		}
	}()
	known, err := s.known(ctx, user, filename, up)
	if err != nil {
		return nil, "", err
	}
	if known != nil {
		return known, store.Duplicate, nil
	}
	mime, err := s.sniff(up, filename)
	if err != nil {
		return nil, "", err
	}
	j := &rag.Job{
		UserID: user, Object: up.Object, Generation: up.SavedAt.UnixMicro(), Fingerprint: up.Fingerprint,
		Filename: filename, ContentType: mime, Category: parse.CategoryOf(mime, filename), Size: up.Size,
	}
	outcomes, err := s.Store.Enqueue(ctx, j)
	// If the database could not be asked, or its answer was lost, the job may be
	// there all the same, and then it needs its bytes.
	queued = !rag.IsPermanent(err)
	if err != nil {
		return nil, "", err
	}
	return j, outcomes[0], nil
}

func (s *Server) sniff(up source.Upload, filename string) (string, error) {
	f, err := os.OpenInRoot(s.Uploads.Dir, filepath.FromSlash(up.Object.Name))
	if err != nil {
		return "", fmt.Errorf("sniff upload: %w", err)
	}
	defer f.Close()
	return parse.Sniff(f, up.Size, filename), nil
}

// known returns the job of the user's document that has the name and the
// bytes of an upload, or nil. Each upload is an object of its own, so the
// store cannot see it.
func (s *Server) known(ctx context.Context, user, filename string, up source.Upload) (*rag.Job, error) {
	jobs, err := s.Store.Jobs(ctx, store.JobFilter{UserID: user, Name: filename, Limit: 200})
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if j.Filename != filename || j.Size != up.Size {
			continue
		}
		hash := j.ContentHash
		if hash == "" { // not read by a worker yet
			if hash, err = s.hashOf(ctx, j); err != nil {
				if errors.Is(err, rag.ErrNotFound) || rag.IsPermanent(err) {
					continue
				}
				return nil, err
			}
		}
		if hash == up.SHA256 {
			return j, nil
		}
	}
	return nil, nil
}

// hashOf returns the SHA-256, in hex, of the bytes of an upload.
func (s *Server) hashOf(ctx context.Context, j *rag.Job) (string, error) {
	b, err := s.Uploads.Open(ctx, j.Object, j.Generation)
	if err != nil {
		return "", err
	}
	defer b.Close()
	h := sha256.New()
	if _, err := io.Copy(h, b); err != nil {
		return "", fmt.Errorf("hash %s: %w", j.Object.URI(), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cleanName returns a file's name as it is shown and cited: its last part,
// without the control and direction characters that could make it look like
// another name, and not too long.
func cleanName(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == '\uFEFF' {
			return -1
		}
		return r
	}, name))
	if strings.Trim(name, "./ ") == "" {
		return "unnamed"
	}
	if len(name) > maxName {
		ext := path.Ext(name)
		if len(ext) > 16 {
			ext = ""
		}
		cut := maxName - len(ext)
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut] + ext
	}
	return name
}

// A watched body ends when nothing arrives for too long.
type watched struct {
	io.ReadCloser
	conn *http.ResponseController
}

func (b *watched) Read(p []byte) (int, error) {
	if err := b.conn.SetReadDeadline(time.Now().Add(bodyQuiet)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// The connection outlives the body, and so must not inherit its deadline.
		if e := b.conn.SetReadDeadline(time.Time{}); e != nil && !errors.Is(e, http.ErrNotSupported) {
			return n, errors.Join(err, e)
		}
	}
	return n, err
}
