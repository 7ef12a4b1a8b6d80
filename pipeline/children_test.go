package pipeline_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"ragprocessor/parse"
	"ragprocessor/rag"
	"ragprocessor/source"
	"ragprocessor/store"
	"ragprocessor/store/storetest"
)

// zipped returns an archive of files, each name before its content.
func zipped(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// newArchiveWorld returns a world that reads files within files.
func newArchiveWorld(t *testing.T) *world {
	w := newWorld(t)
	sources := w.p.Source.(source.Mux)
	sources[rag.PartScheme] = &source.Parts{
		Holder: func(ctx context.Context, id string) (*rag.Job, error) {
			js, err := w.store.Jobs(ctx, store.JobFilter{DocumentID: id})
			if err == nil && len(js) == 0 {
				err = rag.ErrNotFound
			}
			if err != nil {
				return nil, err
			}
			return js[0], nil
		},
		Source: sources, Dir: w.p.Dir, MaxSize: 1 << 20,
		Extract: func(ctx context.Context, f *os.File, name, path string, limit int64, out io.Writer) error {
			fi, err := f.Stat()
			if err != nil {
				return err
			}
			in := &parse.Input{ReaderAt: f, Name: name, Size: fi.Size()}
			in.MIME = parse.Sniff(in, in.Size, name)
			format, _ := parse.Find(in.MIME)
			return format.Parser.(parse.Extractor).Extract(ctx, in, path, out)
		},
	}
	w.p.Jobs = w.store
	return w
}

// work runs all jobs that are due.
func (w *world) work() {
	w.Helper()
	for {
		as, err := w.store.Claim(w.Context(), "w", 1)
		if err != nil {
			w.Fatal(err)
		}
		if len(as) == 0 {
			return
		}
		if err := w.p.Run(w.Context(), as[0]); err != nil {
			j := as[0].Job()
			if err := as[0].Fail(w.Context(), rag.FailureOf(err, j.Stage, true)); err != nil {
				w.Fatal(err)
			}
		}
	}
}

// texts returns the searchable text of each file, by name.
func (w *world) all() []string {
	w.Helper()
	js, err := w.store.Jobs(w.Context(), store.JobFilter{Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, j := range js {
		rows, err := w.store.DocumentChunks(w.Context(), j.DocumentID, 0, 100)
		if err != nil {
			w.Fatal(err)
		}
		text := ""
		for _, r := range rows {
			text += r.Text
		}
		if f := j.Failure; f != nil {
			text = f.Code
		}
		out = append(out, fmt.Sprintf("%s: %s %s", j.Filename, j.Stage, text))
	}
	slices.Sort(out)
	return out
}

func (w *world) want(files ...string) {
	w.Helper()
	if got := w.all(); !slices.Equal(got, files) {
		w.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(files, "\n\t"))
	}
	w.nothingLeft()
}

// TestFilesWithinFiles reads an archive, a newer form of it, and removes it.
func TestFilesWithinFiles(t *testing.T) {
	w := newArchiveWorld(t)
	inner := zipped(t, "deep.txt", "Deep down.")
	j := w.put("a.zip", zipped(t, "one.txt", "The first.", "two.txt", "The second.", "in/more.zip", inner, "bad.png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"))
	w.work()
	w.want("a.zip/bad.png: failed unsupported_format", "a.zip/in/more.zip/deep.txt: completed Deep down.", "a.zip/in/more.zip: completed ",
		"a.zip/one.txt: completed The first.", "a.zip/two.txt: completed The second.", "a.zip: completed ")

	// The same archive again changes nothing.
	if _, err := w.store.Requeue(t.Context(), j.ID, "ada"); err != nil {
		t.Fatal(err)
	}
	w.work()
	if got := w.all(); len(got) != 6 {
		t.Errorf("after the same archive again: %v", got)
	}

	// A newer one: a file has changed, one is new, one and an archive are gone.
	if err := os.WriteFile(w.dir+"/a.zip", []byte(zipped(t, "one.txt", "The first, better.", "three.txt", "The third.")), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := *j
	newer.Generation = 2
	if _, err := w.store.Enqueue(t.Context(), &newer); err != nil {
		t.Fatal(err)
	}
	w.work()
	w.want("a.zip/one.txt: completed The first, better.", "a.zip/three.txt: completed The third.", "a.zip: completed ")

	if err := w.store.Delete(t.Context(), j.DocumentID); err != nil {
		t.Fatal(err)
	}
	w.want()
}

// TestTooDeep puts archives into archives.
func TestTooDeep(t *testing.T) {
	w := newArchiveWorld(t)
	data := zipped(t, "bottom.txt", "The bottom.")
	for i := range 5 {
		data = zipped(t, fmt.Sprint(5-i, ".zip"), data)
	}
	w.put("0.zip", data)
	w.work()
	w.want("0.zip/1.zip/2.zip/3.zip: completed ", "0.zip/1.zip/2.zip: completed ", "0.zip/1.zip: completed ", "0.zip: completed ")
	js, err := w.store.Jobs(t.Context(), store.JobFilter{Name: "3.zip"})
	if err != nil || len(js) != 1 || len(js[0].Warnings) != 1 || js[0].Status != rag.StatusPartial {
		t.Errorf("the last archive: %+v, %v; want a warning", js, err)
	}
}

// TestLateWorker lets a worker of an older generation come to the files within
// its file after a newer one has.
func TestLateWorker(t *testing.T) {
	w := newArchiveWorld(t)
	j := w.put("a.zip", zipped(t, "one.txt", "The first."))
	late := w.claim()
	newer := *j
	newer.Generation = 2
	if _, err := w.store.Enqueue(t.Context(), &newer); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.dir+"/a.zip", []byte(zipped(t, "two.txt", "The second.")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.work()
	if err := w.p.Run(t.Context(), late); err == nil {
		t.Error("the late worker was not refused")
	}
	w.work()
	if got := w.all(); !slices.Contains(got, "a.zip/two.txt: completed The second.") || !slices.Contains(got, "a.zip: completed ") {
		t.Errorf("after the late worker: %v", got)
	}
}

// TestPartsRefuse opens files within files that are not there.
func TestPartsRefuse(t *testing.T) {
	w := newArchiveWorld(t)
	j := w.put("a.zip", zipped(t, "one.txt", "The first."))
	o := rag.PartOf(j, rag.Child{Path: "one.txt"})
	for name, tt := range map[string]struct {
		change     func(*rag.Object)
		generation int64
		code       string
	}{
		"as it is":         {func(*rag.Object) {}, 1, ""},
		"any generation":   {func(*rag.Object) {}, 0, ""},
		"older generation": {func(*rag.Object) {}, 7, "holder_changed"},
		"no such file":     {func(o *rag.Object) { o.Name = storetest.Alice + "/two.txt" }, 1, "not_in_archive"},
		"no such holder":   {func(o *rag.Object) { o.Bucket = storetest.Alice }, 1, "holder_gone"},
		"another user":     {func(o *rag.Object) { o.Name = storetest.Bob + "/one.txt" }, 1, "holder_gone"},
	} {
		o := o
		tt.change(&o)
		b, err := w.p.Source.Open(t.Context(), o, tt.generation)
		code := ""
		if err != nil {
			code = rag.FailureOf(err, rag.Downloading, true).Code
		} else {
			data, rerr := io.ReadAll(b)
			if rerr != nil || string(data) != "The first." || b.Size != int64(len(data)) {
				t.Errorf("%s: %q, %v", name, data, rerr)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if code != tt.code {
			t.Errorf("%s: %v, want %q", name, err, tt.code)
		}
		w.nothingLeft()
	}
}
