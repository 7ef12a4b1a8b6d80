// Package sourcetest is the suite that every source passes.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"ragprocessor/rag"
	"ragprocessor/source"
)

// Run tests the source that open returns for each subtest. put stores data so
// that the source can open it, under a name like the given one, and returns
// the object. Putting a name again either replaces the object's bytes or makes
// another object.
func Run(t *testing.T, open func(t *testing.T) (s source.Source, put func(name string, data []byte) rag.Object)) {
	t.Run("Bytes", func(t *testing.T) {
		s, put := open(t)
		for _, tt := range []struct {
			name string
			data []byte
		}{
			{"plain.txt", []byte("hello")},
			{"empty.txt", nil},
			{"no extension", []byte("a b")},
			{"Übersicht – 报告 🎉.md", []byte("# Übersicht")},
			{"a%20b+c&d=e#f?.txt", []byte("not escaped")},
			{"binary.bin", []byte{0, 255, 13, 10, 26}},
			{"large.bin", bytes.Repeat([]byte("0123456789abcdef"), 200_000)},
		} {
			object := put(tt.name, tt.data)
			if got := read(t, s, object); !bytes.Equal(got, tt.data) {
				t.Errorf("%s: got %d bytes, want the %d that were put", tt.name, len(got), len(tt.data))
			}
		}
	})

	t.Run("Fingerprint", func(t *testing.T) {
		s, put := open(t)
		object := put("a.txt", []byte("first"))
		first := fingerprint(t, s, object)
		if again := fingerprint(t, s, object); again != first {
			t.Errorf("fingerprint %q, and of the same bytes %q", first, again)
		}
		if first == "" {
			t.Skip("this source has no fingerprints")
		}
		replaced := put("a.txt", []byte("second version"))
		if got := fingerprint(t, s, replaced); got == first {
			t.Errorf("fingerprint %q of other bytes is the same", got)
		}
		if got, want := string(read(t, s, replaced)), "second version"; got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	})

	t.Run("CloseEarly", func(t *testing.T) {
		s, put := open(t)
		object := put("a.bin", make([]byte, 1<<20))
		blob, err := s.Open(t.Context(), object, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(blob, make([]byte, 10)); err != nil {
			t.Errorf("read: %v", err)
		}
		if err := blob.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if n := len(read(t, s, object)); n != 1<<20 {
			t.Errorf("after that read %d bytes, want %d", n, 1<<20)
		}
	})

	t.Run("Missing", func(t *testing.T) {
		s, put := open(t)
		object := put("a.txt", []byte("x"))
		object.Name += ".missing"
		_, err := s.Open(t.Context(), object, 0)
		if !errors.Is(err, rag.ErrNotFound) {
			t.Errorf("got %v, want an error that is rag.ErrNotFound", err)
		}
		wantParts(t, err)
	})

	t.Run("Foreign", func(t *testing.T) {
		s, put := open(t)
		good := put("a.txt", []byte("x"))
		for _, object := range []rag.Object{
			{},
			{Scheme: "gopher", Bucket: good.Bucket, Name: good.Name},
			{Scheme: good.Scheme, Bucket: good.Bucket, Name: ""},
		} {
			blob, err := s.Open(t.Context(), object, 0)
			if err == nil {
				blob.Close()
				t.Errorf("opened %q", object.URI())
				continue
			}
			if !rag.IsPermanent(err) {
				t.Errorf("%q: %v is not permanent", object.URI(), err)
			}
		}
	})

	t.Run("Cancelled", func(t *testing.T) {
		s, put := open(t)
		object := put("a.txt", []byte("x"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		blob, err := s.Open(ctx, object, 0)
		if err == nil {
			blob.Close()
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if rag.IsPermanent(err) {
			t.Errorf("%v is permanent", err)
		}
	})

	t.Run("Concurrent", func(t *testing.T) {
		s, put := open(t)
		object := put("a.txt", []byte(strings.Repeat("x", 100_000)))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				blob, err := s.Open(t.Context(), object, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer blob.Close()
				if n, err := io.Copy(io.Discard, blob); n != 100_000 || err != nil {
					t.Errorf("read %d bytes, %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}

// read returns the bytes of object and checks what the blob says of them.
func read(t *testing.T, s source.Source, object rag.Object) []byte {
	t.Helper()
	blob, err := s.Open(t.Context(), object, 0)
	if err != nil {
		t.Fatalf("open %s: %v", object.URI(), err)
	}
	defer blob.Close()
	data, err := io.ReadAll(blob)
	if err != nil {
		t.Fatalf("read %s: %v", object.URI(), err)
	}
	if blob.Size != -1 && blob.Size != int64(len(data)) {
		t.Errorf("%s: size %d, but %d bytes were read", object.URI(), blob.Size, len(data))
	}
	if blob.Check != nil {
		if err := blob.Check(); err != nil {
			t.Errorf("%s: check: %v", object.URI(), err)
		}
	}
	return data
}

func fingerprint(t *testing.T, s source.Source, object rag.Object) string {
	t.Helper()
	blob, err := s.Open(t.Context(), object, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	return blob.Fingerprint
}

// wantParts checks that err can be told to a person.
func wantParts(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*rag.Error](err)
	if !ok {
		t.Errorf("%v is not a rag.Error", err)
		return
	}
	if e.Code == "" || e.Reason == "" || e.Action == "" || e.Fault == "" {
		t.Errorf("%#v lacks a part", e)
	}
}
