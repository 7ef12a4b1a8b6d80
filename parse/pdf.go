package parse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/klippa-app/go-pdfium"
	pdfium_errors "github.com/klippa-app/go-pdfium/errors"
	"github.com/klippa-app/go-pdfium/references"
	"github.com/klippa-app/go-pdfium/requests"
	"github.com/klippa-app/go-pdfium/responses"
	"github.com/klippa-app/go-pdfium/webassembly"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"ragprocessor/rag"
)

// The limits within which a PDF is read. What lies beyond them is told in the
// document's warnings.
const (
	pdfMaxPages     = 5000
	pdfMaxChars     = 20_000_000 // of the whole document
	pdfMaxPageChars = 250_000    // laid out; the rest of such a page is plain text
	pdfMaxHandles   = 200_000    // library handles before the instance is renewed
	pdfMaxRenewals  = 20         // instances lost to broken pages before giving up
	pdfMemoryPages  = 4096       // 64 KiB each: 256 MiB
)

// A pdfParser reads PDF files with PDFium compiled to WebAssembly, which can
// reach nothing but the file's bytes. It is safe for concurrent use.
type pdfParser struct{}

// pdfEngine is the compiled module. It is the one thing that the package keeps
// between files: a process pays for it once, about 6 CPU-seconds, or 0.1 if
// [Input.CacheDir] holds it from another process.
var pdfEngine struct {
	sync.Mutex
	pool pdfium.Pool
}

// pdfInstance returns a fresh instance of the module, compiling it first if no
// file has been read yet. The compiled code is kept in cacheDir, if not empty.
func pdfInstance(ctx context.Context, cacheDir string) (pdfium.Pdfium, error) {
	pdfEngine.Lock()
	defer pdfEngine.Unlock()
	if pdfEngine.pool == nil {
		// WithCloseOnContextDone would make each call 2.7 times slower: a
		// file that takes too long is ended by killing the process.
		config := wazero.NewRuntimeConfig().
			WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesExceptionHandling).
			WithMemoryLimitPages(pdfMemoryPages)
		if cacheDir != "" {
			// An unusable cache costs time, not correctness.
			if cache, err := wazero.NewCompilationCacheWithDir(cacheDir); err == nil {
				config = config.WithCompilationCache(cache)
			}
		}
		pool, err := webassembly.Init(webassembly.Config{
			Context:  context.WithoutCancel(ctx),
			MaxTotal: 4,
			// Without this, go-pdfium mounts the root directory.
			FSConfig:      wazero.NewFSConfig(),
			RuntimeConfig: config,
			Stdout:        io.Discard,
			Stderr:        io.Discard,
		})
		if err != nil {
			return nil, fmt.Errorf("parse pdf: compile pdfium: %w", err)
		}
		pdfEngine.pool = pool
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	in, err := pdfEngine.pool.GetInstanceWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("parse pdf: start pdfium: %w", err)
	}
	return in, nil
}

// Parse reads a PDF file. The structure comes from the tags of a tagged page
// whose tags cover its text, otherwise from fonts, places and drawn lines.
func (pdfParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	if in.Size == 0 {
		return nil, rag.BadFile("corrupt_file", "The file is empty", "Upload the file again", nil)
	}
	s := &pdfSession{in: in}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	total, err := s.pageCount()
	if err != nil {
		return nil, pdfCorrupt("its pages cannot be counted", err)
	}
	if total == 0 {
		return nil, pdfCorrupt("it has no pages", nil)
	}
	doc := &rag.Document{Format: "pdf", Pages: total, Language: s.language(), Meta: s.meta()}
	outline := s.outline()
	pages, err := s.pages(ctx, doc)
	if err != nil {
		return nil, err
	}
	if len(pages) == 0 {
		return nil, pdfNothingRead(doc)
	}
	l := &pdfLayout{pages: pages, outline: outline}
	doc.Elements = l.elements()
	doc.Title = l.title(doc.Meta["title"], doc.Elements)
	delete(doc.Meta, "title")
	return doc, nil
}

// pdfCorrupt returns the error for a file that is not what its type claims.
func pdfCorrupt(what string, err error) error {
	return rag.BadFile("corrupt_file", "The PDF is damaged: "+what,
		"Open the file in a PDF reader and save or print it to a new PDF, or upload another copy", err)
}

// The reasons of warnings for a page, or several.
const (
	pdfNoText  = "no text: what is shown is a picture; text recognition (OCR) is not supported yet"
	pdfDamaged = "damaged and left out"
)

// pdfNothingRead returns the error for a document of which no page has text.
func pdfNothingRead(doc *rag.Document) error {
	for _, w := range doc.Warnings {
		if w.Reason == pdfDamaged {
			return pdfCorrupt(fmt.Sprintf("no text can be read (of %d pages, these are damaged: %s)", doc.Pages, strings.TrimPrefix(strings.TrimPrefix(w.Part, "pages "), "page ")), nil)
		}
	}
	if len(doc.Warnings) == 0 {
		return rag.BadFile("no_text", "The pages of the PDF are empty", "Upload another file", nil)
	}
	return rag.BadFile("no_text", "No page of the PDF has text: its pages are pictures, such as scans, "+
		"and text recognition (OCR) is not supported yet",
		"Run text recognition (OCR) on the file and upload the result", nil)
}

// A pdfSession is one file open in an instance of the module. The instance is
// renewed when a page broke it, and when it holds so many handles, which it
// never releases, that they would fill the memory.
type pdfSession struct {
	in       *Input
	lib      pdfium.Pdfium
	doc      references.FPDF_DOCUMENT
	handles  int // made since the instance started
	renewals int // instances lost to broken pages
}

func (s *pdfSession) open(ctx context.Context) error {
	lib, err := pdfInstance(ctx, s.in.CacheDir)
	if err != nil {
		return err
	}
	s.lib, s.handles = lib, 0
	r, err := lib.OpenDocument(&requests.OpenDocument{
		FileReader:     io.NewSectionReader(s.in, 0, s.in.Size),
		FileReaderSize: s.in.Size,
	})
	switch {
	case err == nil:
		s.doc = r.Document
		return nil
	case errors.Is(err, pdfium_errors.ErrPassword):
		return rag.BadFile("password_required", "The PDF is encrypted and needs a password",
			"Save a copy without a password and upload that", err)
	case errors.Is(err, pdfium_errors.ErrSecurity):
		return rag.BadFile("password_required", "The PDF is encrypted in a way that cannot be opened",
			"Save a copy without encryption and upload that", err)
	case errors.Is(err, pdfium_errors.ErrFormat):
		return pdfCorrupt(s.diagnose(), err)
	default:
		return pdfCorrupt("it cannot be opened", err)
	}
}

func (s *pdfSession) close() {
	if s.lib != nil {
		// The module's memory goes with it; that it closes without an error is
		// of no use to anyone.
		_ = s.lib.Close()
		s.lib = nil
	}
}

// renew replaces the instance.
func (s *pdfSession) renew(ctx context.Context) error {
	s.close()
	return s.open(ctx)
}

// diagnose says in what way the file is not a PDF.
func (s *pdfSession) diagnose() string {
	head := make([]byte, min(s.in.Size, 1024))
	n, _ := s.in.ReadAt(head, 0)
	if !strings.Contains(string(head[:n]), "%PDF-") {
		return "it does not begin as a PDF file does (%PDF-)"
	}
	tail := make([]byte, min(s.in.Size, 2048))
	n, _ = s.in.ReadAt(tail, s.in.Size-int64(len(tail)))
	if !strings.Contains(string(tail[:n]), "%%EOF") {
		return "its end is missing, as after an upload or download that broke off"
	}
	return "its table of contents (cross-reference table) cannot be read"
}

func (s *pdfSession) pageCount() (int, error) {
	r, err := s.lib.FPDF_GetPageCount(&requests.FPDF_GetPageCount{Document: s.doc})
	if err != nil {
		return 0, err
	}
	return r.PageCount, nil
}

// pages reads the pages one by one. A page that cannot be read becomes a
// warning in doc. The result holds the pages with text.
func (s *pdfSession) pages(ctx context.Context, doc *rag.Document) ([]*pdfPage, error) {
	var from, to int // pages of the last warning
	warn := func(first, last int, reason string) {
		if n := len(doc.Warnings); n > 0 && first == to+1 && doc.Warnings[n-1].Reason == reason {
			doc.Warnings = doc.Warnings[:n-1]
			first = from
		}
		from, to = first, last
		part := fmt.Sprintf("page %d", first)
		if last > first {
			part = fmt.Sprintf("pages %d–%d", first, last)
		}
		doc.Warnings = append(doc.Warnings, rag.Warning{Part: part, Reason: reason})
	}
	var pages []*pdfPage
	chars := 0
	for n := 1; n <= doc.Pages; n++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("parse pdf: page %d: %w", n, err)
		}
		if n > pdfMaxPages {
			warn(n, doc.Pages, fmt.Sprintf("the document has %d pages; only the first %d are read", doc.Pages, pdfMaxPages))
			break
		}
		if chars > pdfMaxChars {
			warn(n, doc.Pages, fmt.Sprintf("the document has more than %d characters before this page; the rest is not read", pdfMaxChars))
			break
		}
		if s.handles > pdfMaxHandles {
			if err := s.renew(ctx); err != nil {
				return nil, err
			}
		}
		page, err := s.page(n)
		switch {
		case err != nil:
			warn(n, n, pdfDamaged)
			if errors.Is(err, pdfium_errors.ErrPage) {
				break
			}
			// Anything else may be a trap, after which the instance's memory
			// is not to be trusted.
			if s.renewals++; s.renewals > pdfMaxRenewals {
				if n < doc.Pages {
					warn(n+1, doc.Pages, "too many pages before these are damaged; the rest was left out")
				}
				return pages, nil
			}
			if err := s.renew(ctx); err != nil {
				return nil, err
			}
		case page.chars == 0:
			if page.blank {
				break
			}
			warn(n, n, pdfNoText)
		default:
			chars += page.chars
			pages = append(pages, page)
		}
		s.in.Progress("pages", int64(n), int64(doc.Pages))
	}
	return pages, nil
}

// language returns the language that the document declares for itself.
func (s *pdfSession) language() string {
	r, err := s.lib.FPDFCatalog_GetLanguage(&requests.FPDFCatalog_GetLanguage{Document: s.doc})
	if err != nil {
		return ""
	}
	return strings.TrimSpace(r.Language)
}

// meta returns the document's properties.
func (s *pdfSession) meta() map[string]string {
	meta := map[string]string{}
	for tag, key := range map[string]string{
		"Title": "title", "Author": "author", "Subject": "subject", "Keywords": "keywords",
		"Creator": "creator", "Producer": "producer", "CreationDate": "created", "ModDate": "modified",
	} {
		r, err := s.lib.GetMetaData(&requests.GetMetaData{Document: s.doc, Tags: &[]string{tag}})
		if err != nil || len(r.Tags) == 0 {
			continue
		}
		v := pdfClean(r.Tags[0].Value)
		if key == "created" || key == "modified" {
			v = pdfDate(v)
		}
		if v != "" {
			meta[key] = v
		}
	}
	return meta
}

// pdfDate turns D:20240131120000+01'00' into RFC 3339; what it cannot read it
// returns as it is.
func pdfDate(s string) string {
	t := strings.ReplaceAll(strings.TrimPrefix(s, "D:"), "'", "")
	for _, layout := range []string{"20060102150405-0700", "20060102150405Z0000", "20060102150405Z", "20060102150405", "200601021504", "20060102"} {
		if d, err := time.Parse(layout, t); err == nil {
			return d.Format(time.RFC3339)
		}
	}
	return s
}

// A pdfOutlineItem is one bookmark.
type pdfOutlineItem struct {
	title string
	level int // from 1
}

// outline returns the bookmarks of the document, at most a thousand. They are
// evidence only, so that an unreadable outline is an empty one.
func (s *pdfSession) outline() []pdfOutlineItem {
	var items []pdfOutlineItem
	var walk func(b *references.FPDF_BOOKMARK, level int)
	walk = func(b *references.FPDF_BOOKMARK, level int) {
		for b != nil && len(items) < 1000 {
			t, err := s.lib.FPDFBookmark_GetTitle(&requests.FPDFBookmark_GetTitle{Bookmark: *b})
			if err == nil {
				items = append(items, pdfOutlineItem{pdfClean(t.Title), level})
			}
			var child *responses.FPDFBookmark_GetFirstChild
			if level < 6 {
				child, err = s.lib.FPDFBookmark_GetFirstChild(&requests.FPDFBookmark_GetFirstChild{Document: s.doc, Bookmark: b})
				if err == nil {
					walk(child.Bookmark, level+1)
				}
			}
			next, err := s.lib.FPDFBookmark_GetNextSibling(&requests.FPDFBookmark_GetNextSibling{Document: s.doc, Bookmark: *b})
			if err != nil {
				return
			}
			b = next.Bookmark
		}
	}
	first, err := s.lib.FPDFBookmark_GetFirstChild(&requests.FPDFBookmark_GetFirstChild{Document: s.doc})
	if err != nil {
		return nil
	}
	walk(first.Bookmark, 1)
	return items
}
