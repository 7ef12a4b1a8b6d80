package parse

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/bodgit/sevenzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/text/encoding/charmap"

	"ragprocessor/rag"
)

// An archiveParser lists the members of archives, which become documents of
// their own. The archive itself has no text.
type archiveParser struct {
	members func(ctx context.Context, in *Input) iter.Seq2[member, error]
}

// A member is what an archive holds. Its reader is good until the next one is
// asked for.
type member struct {
	name   string
	size   int64 // -1 if it is not known
	packed int64 // bytes that it takes in the archive; 0 if it is not known
	mode   fs.FileMode
	locked bool // behind a password
	open   func() (io.ReadCloser, error)
}

const (
	// maxChildren is how many files of an archive or a mail become documents.
	maxChildren = 2000

	// maxMembers is how many members of an archive are looked at.
	maxMembers = 100_000

	// maxRatio is how many times larger than what it takes in the archive a
	// member may be, beyond freeSize: text shrinks to a tenth, a bomb to a
	// thousandth.
	maxRatio = 200
	freeSize = 64 << 20

	// maxUnpacked is how many bytes of a compressed stream are read to list what
	// is in it.
	maxUnpacked = 64 << 30
)

// Parse implements [Parser].
func (p archiveParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	f, _ := Find(in.MIME)
	doc := &rag.Document{Format: f.Name}
	warn := func(part, reason string) {
		if len(doc.Warnings) < 100 {
			doc.Warnings = append(doc.Warnings, rag.Warning{Part: part, Reason: reason})
		}
	}
	left := 0
	for m, err := range p.children(ctx, in) {
		switch {
		case err != nil && len(doc.Children) == 0:
			return nil, err
		case err != nil:
			e, _ := errors.AsType[*rag.Error](err)
			warn("the rest of the archive", e.Reason)
		case len(doc.Children) == maxChildren:
			left++
		case m.mode&fs.ModeSymlink != 0:
			warn(m.name, "It is a link; links are not followed")
		case !m.mode.IsRegular():
			warn(m.name, "It is a device or pipe, not a file")
		case m.locked:
			warn(m.name, "It is protected with a password")
		case m.packed > 0 && m.size > freeSize && m.size/m.packed > maxRatio:
			warn(m.name, fmt.Sprintf("It unpacks to %d times its size, as a decompression bomb does", m.size/m.packed))
		default:
			doc.Children = append(doc.Children, rag.Child{Path: m.name, Name: m.name, Size: max(0, m.size)})
		}
		in.Progress("files", int64(len(doc.Children)), 0)
	}
	if left > 0 {
		warn("the rest of the archive", fmt.Sprintf("%d more files are in it than the %d that are read of one archive", left, maxChildren))
	}
	if len(doc.Children) == 0 && len(doc.Warnings) == 0 {
		return nil, rag.BadFile("empty_archive", "The archive holds no files", "Send the files that were to be in it", nil)
	}
	return doc, nil
}

// Extract implements [Extractor].
func (p archiveParser) Extract(ctx context.Context, in *Input, path string, w io.Writer) error {
	for m, err := range p.children(ctx, in) {
		if err != nil {
			return err
		}
		if m.name != path {
			continue
		}
		r, err := m.open()
		if err != nil {
			return corruptArchive(err)
		}
		defer r.Close()
		if _, err := io.Copy(w, r); err != nil {
			return corruptArchive(err)
		}
		return nil
	}
	return noChild(path)
}

// children returns the members that a person would call files, each with a name
// that no other has. Folders are left out, and what systems put into archives
// for themselves, and hidden files, as where a folder is ingested.
func (p archiveParser) children(ctx context.Context, in *Input) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		seen := map[string]int{}
		n := 0
		for m, err := range p.members(ctx, in) {
			if err == nil {
				err = context.Cause(ctx)
			}
			if n++; n > maxMembers && err == nil {
				err = rag.BadFile("too_many_files", fmt.Sprintf("The archive holds more than %d files", maxMembers), "Split the archive", nil)
			}
			if err != nil {
				if _, ok := errors.AsType[*rag.Error](err); !ok {
					err = corruptArchive(err)
				}
				yield(member{}, err)
				return
			}
			if m.mode.IsDir() || strings.HasSuffix(m.name, "/") {
				continue
			}
			if m.name = cleanName(m.name); m.name == "" || hiddenName(m.name) {
				continue
			}
			if seen[m.name]++; seen[m.name] > 1 {
				ext := path.Ext(m.name)
				m.name = fmt.Sprintf("%s (%d)%s", strings.TrimSuffix(m.name, ext), seen[m.name], ext)
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// cleanName returns the name of a member as a relative path in UTF-8. Names of
// old programs are in the code page of DOS.
func cleanName(name string) string {
	if !utf8.ValidString(name) {
		if s, err := charmap.CodePage437.NewDecoder().String(name); err == nil {
			name = s
		}
	}
	name = cleanText(strings.ReplaceAll(name, "\\", "/"))
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// hiddenName reports whether a part of name begins with a dot, or is what
// systems leave behind.
func hiddenName(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || part == "__MACOSX" || strings.EqualFold(part, "Thumbs.db") || strings.EqualFold(part, "desktop.ini") {
			return true
		}
	}
	return false
}

func corruptArchive(err error) error {
	if _, ok := errors.AsType[*rag.Error](err); ok {
		return err
	}
	return rag.BadFile("corrupt_archive", "The archive is damaged", "Make it again, or unpack it and send the files", err)
}

// zipMembers lists a ZIP archive.
func zipMembers(_ context.Context, in *Input) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		// Each entry of the directory costs several times its size in memory.
		if n, ok := zipDirectory(in, in.Size); ok && n > 64<<20 {
			yield(member{}, rag.BadFile("too_many_files", "The archive holds more files than can be listed", "Split the archive", nil))
			return
		}
		z, err := zip.NewReader(in, in.Size)
		if err != nil {
			yield(member{}, err)
			return
		}
		for _, f := range z.File {
			m := member{
				name: f.Name, size: int64(f.UncompressedSize64), packed: int64(f.CompressedSize64),
				mode: f.Mode(), locked: f.Flags&1 != 0, open: f.Open,
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// sevenZipMembers lists a 7-Zip archive.
func sevenZipMembers(_ context.Context, in *Input) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		z, err := sevenzip.NewReader(in, in.Size)
		if e, ok := errors.AsType[*sevenzip.ReadError](err); ok && e.Encrypted {
			err = rag.BadFile("password_required", "The archive is protected with a password", "Unpack it and send the files, or an archive without a password", err)
		}
		if err != nil {
			yield(member{}, err)
			return
		}
		for _, f := range z.File {
			// What members take is known only of all together.
			if !yield(member{name: f.Name, size: int64(f.UncompressedSize), mode: f.Mode(), open: f.Open}, nil) {
				return
			}
		}
	}
}

// tarMembers lists a tar archive.
func tarMembers(_ context.Context, in *Input) iter.Seq2[member, error] {
	return tarOf(io.NewSectionReader(in, 0, in.Size))
}

func tarOf(r io.Reader) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		t := tar.NewReader(r)
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(member{}, err)
				return
			}
			m := member{name: h.Name, size: h.Size, packed: h.Size, mode: h.FileInfo().Mode(), open: func() (io.ReadCloser, error) { return io.NopCloser(t), nil }}
			if h.Typeflag == tar.TypeLink {
				m.mode |= fs.ModeSymlink
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// packedMembers lists what is in a compressed stream: the members of a tar
// archive, or else the one file that it is.
func packedMembers(open func(io.Reader) (io.ReadCloser, error)) func(context.Context, *Input) iter.Seq2[member, error] {
	return func(_ context.Context, in *Input) iter.Seq2[member, error] {
		return func(yield func(member, error) bool) {
			stream := func() (io.ReadCloser, error) { return open(io.NewSectionReader(in, 0, in.Size)) }
			r, err := stream()
			if err != nil {
				yield(member{}, err)
				return
			}
			defer r.Close()
			limited := &unpacking{r: r, packed: in.Size}
			if isTar(stream) {
				for m, err := range tarOf(limited) {
					if !yield(m, err) {
						return
					}
				}
				return
			}
			name := strings.TrimSuffix(path.Base(in.Name), path.Ext(in.Name))
			if z, ok := r.(*gzip.Reader); ok && z.Name != "" {
				name = path.Base(z.Name)
			}
			yield(member{name: strings.TrimLeft(name, "."), size: -1, open: func() (io.ReadCloser, error) { return io.NopCloser(limited), nil }}, nil)
		}
	}
}

// isTar reports whether a stream begins as a tar archive does.
func isTar(stream func() (io.ReadCloser, error)) bool {
	r, err := stream()
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = tar.NewReader(r).Next()
	return err == nil
}

// An unpacking is a compressed stream that ends with an error when it becomes
// too large.
type unpacking struct {
	r      io.Reader
	packed int64
	n      int64
}

func (u *unpacking) Read(b []byte) (int, error) {
	n, err := u.r.Read(b)
	if u.n += int64(n); u.n > maxUnpacked || u.n > freeSize && u.n/max(1, u.packed) > 5*maxRatio {
		return n, rag.BadFile("too_large_uncompressed", "The archive unpacks to more than can be read safely", "Unpack it and send the files", nil)
	}
	return n, err
}

func openGzip(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }

func openBzip2(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }

func openXz(r io.Reader) (io.ReadCloser, error) {
	x, err := xz.ReaderConfig{DictCap: freeSize}.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}
