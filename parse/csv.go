package parse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"ragprocessor/rag"
)

// A csvParser reads tables in text: CSV, TSV and their relatives with other
// delimiters. The rows become a run of tables of a few kilobytes, each with
// the header and the lines that it stands on, so that a citation leads to a
// screenful and not to a whole file. The file is streamed.
type csvParser struct {
	format string // "csv" or "tsv", whose delimiter is preferred if several fit
}

const (
	csvGroupBytes = 2 << 10 // of cells in one table
	csvGroupRows  = 50
	csvMaxCells   = 20_000_000
	csvMaxLine    = 16 << 20 // bytes of one line
	csvMaxQuoted  = 1 << 20  // bytes of one quoted cell that runs over lines
	csvSample     = 64 << 10 // bytes in which the dialect is looked for
)

// Parse implements [Parser].
func (p csvParser) Parse(_ context.Context, in *Input) (*rag.Document, error) {
	text, err := decoded(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", p.format, err)
	}
	src := bufio.NewReaderSize(text, csvSample)
	sample, err := src.Peek(csvSample)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("parse %s: %w", p.format, err)
	}
	r := &csvReader{src: src}
	if m := csvSep.FindSubmatch(sample); m != nil {
		r.comma = rune(m[1][0])
		if _, err := src.Discard(len(m[0])); err != nil {
			return nil, fmt.Errorf("parse %s: %w", p.format, err)
		}
		r.line = 1
	} else {
		r.comma = csvDelimiter(string(sample), err == io.EOF, p.format == "tsv")
	}

	t := &csvTable{doc: &rag.Document{Format: p.format}}
	for {
		rec, err := r.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: line %d: %w", p.format, r.line, err)
		}
		if err := t.add(rec); err != nil {
			return nil, err
		}
		if t.rows%1000 == 0 {
			in.Progress("rows", int64(t.rows), 0)
		}
	}
	t.flush()
	return t.doc, nil
}

// csvSep is the line by which a file tells Excel its delimiter.
var csvSep = regexp.MustCompile(`^(?i:sep)=([,;|\t:])\r?\n`)

// A csvRecord is a row and the lines that it stands on.
type csvRecord struct {
	cells       []string
	first, last int
}

// A csvTable gathers rows into tables.
type csvTable struct {
	doc    *rag.Document
	held   *csvRecord // the first row, until the second says whether it is a header
	header []string
	group  [][]string
	size   int // bytes of group
	first  int // line of group
	last   int
	rows   int
	cells  int
}

func (t *csvTable) add(rec csvRecord) error {
	t.rows++
	if t.cells += len(rec.cells); t.cells > csvMaxCells {
		return rag.BadFile("too_large", fmt.Sprintf("The table has more than %d cells", csvMaxCells), "Split the file and send its parts", nil)
	}
	switch {
	case t.rows == 1:
		t.held = &rec
		return nil
	case t.held != nil:
		if isHeader(t.held.cells, rec.cells) {
			t.header = t.held.cells
			t.first = t.held.first
		} else {
			t.put(*t.held)
		}
		t.held = nil
	}
	t.put(rec)
	return nil
}

func (t *csvTable) put(rec csvRecord) {
	n := 0
	for _, c := range rec.cells {
		n += len(c) + 1
	}
	if len(t.group) > 0 && (t.size+n > csvGroupBytes || len(t.group) >= csvGroupRows) {
		t.flush()
	}
	if len(t.group) == 0 && t.first == 0 {
		t.first = rec.first
	}
	t.group = append(t.group, rec.cells)
	t.size += n
	t.last = rec.last
}

func (t *csvTable) flush() {
	if t.held != nil {
		t.put(*t.held)
		t.held = nil
	}
	if len(t.group) == 0 {
		return
	}
	e := rag.Element{Kind: rag.Table, Where: rag.Locator{Line: t.first, LineEnd: t.last}}
	if t.header != nil {
		e.HeaderRows = 1
		e.Rows = append(e.Rows, t.header)
	}
	e.Rows = append(e.Rows, t.group...)
	t.doc.Elements = append(t.doc.Elements, e)
	t.group, t.size, t.first = nil, 0, 0
}

var csvNumber = regexp.MustCompile(`^[-+(]?[$€£¥]?\s?\d[\d.,' ]*\s?[%€)]?$|^\d{4}-\d\d?-\d\d?|^\d\d?[./]\d\d?[./]\d{2,4}`)

var csvYear = regexp.MustCompile(`^(?:19|20)\d\d$`)

// isHeader reports whether a first row names columns: its cells are different
// from each other, short, and no numbers or dates, except years above
// something else. The first cell and the last ones may be empty.
func isHeader(cells, next []string) bool {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	if len(cells) == 0 || len(cells) == 1 && cells[0] == "" {
		return false
	}
	seen := map[string]bool{}
	for i, c := range cells {
		year := i > 0 && csvYear.MatchString(c) && i < len(next) && !csvYear.MatchString(next[i])
		if seen[c] || len(c) > 200 || c == "" && i > 0 || csvNumber.MatchString(c) && !year {
			return false
		}
		seen[c] = true
	}
	return true
}

// csvDelimiter returns the character that most evenly cuts the sample's lines.
// whole says that the sample is the whole file.
func csvDelimiter(sample string, whole, tsv bool) rune {
	if !whole { // the last line is cut off
		if i := strings.LastIndexByte(sample, '\n'); i > 0 {
			sample = sample[:i]
		}
	}
	candidates := []rune{',', ';', '\t', '|'}
	if tsv {
		candidates = []rune{'\t', ',', ';', '|'}
	}
	best, bestScore := candidates[0], 0.0
	for _, d := range candidates {
		r := &csvReader{src: bufio.NewReader(strings.NewReader(sample)), comma: d}
		widths, n := map[int]int{}, 0
		for n < 200 {
			rec, err := r.read()
			if err != nil {
				break
			}
			widths[len(rec.cells)]++
			n++
		}
		mode := 0
		for w, k := range widths {
			if k > widths[mode] || k == widths[mode] && w > mode {
				mode = w
			}
		}
		if n == 0 || mode < 2 {
			continue
		}
		even := float64(widths[mode]) / float64(n)
		// Evenness decides; more columns break a tie.
		if score := even + float64(min(mode, 50))/1000; score > bestScore {
			best, bestScore = d, score
		}
	}
	return best
}

// A csvReader reads rows as people's programs write them: quotes doubled
// within quotes, quotes in the middle of a cell, rows of any length, and
// quotes that are never closed, which encoding/csv cannot read.
type csvReader struct {
	src     *bufio.Reader
	comma   rune
	line    int      // number of the last line read
	back    []string // lines to read again
	oneLine bool     // a quote was never closed: none runs over lines any more
}

var errLongLine = rag.BadFile("too_large", fmt.Sprintf("The table has a line of more than %d MB", csvMaxLine>>20),
	"Check that the file is a table with one row a line", nil)

// next returns the next line without its end.
func (r *csvReader) next() (string, error) {
	if len(r.back) > 0 {
		l := r.back[0]
		r.back = r.back[1:]
		r.line++
		return l, nil
	}
	var b []byte
	for {
		p, err := r.src.ReadSlice('\n')
		if len(b)+len(p) > csvMaxLine {
			return "", errLongLine
		}
		b = append(b, p...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == io.EOF && len(b) > 0 {
			err = nil
		}
		if err != nil {
			return "", err
		}
		r.line++
		return strings.TrimRight(string(b), "\r\n"), nil
	}
}

// read returns the next row that is not blank.
func (r *csvReader) read() (csvRecord, error) {
	for {
		l, err := r.next()
		if err != nil {
			return csvRecord{}, err
		}
		if strings.TrimSpace(l) == "" {
			continue
		}
		first := r.line
		if cells, open := r.split(l, false); !open {
			return csvRecord{cells, first, first}, nil
		}
		if cells, ok := r.join(l); ok {
			return csvRecord{cells, first, r.line}, nil
		}
		cells, _ := r.split(l, true)
		return csvRecord{cells, first, first}, nil
	}
}

// join reads on until the quote that l leaves open is closed. If it never is,
// join puts the lines back and reports false.
func (r *csvReader) join(l string) ([]string, bool) {
	if r.oneLine {
		return nil, false
	}
	first := r.line
	lines := []string{}
	size, quotes, tries, failed := len(l), strings.Count(l, `"`), 0, 0
	var b strings.Builder
	b.WriteString(l)
	for size < csvMaxQuoted {
		m, err := r.next()
		if err != nil {
			break
		}
		lines = append(lines, m)
		size += len(m) + 1
		b.WriteString("\n" + m)
		// Where quotes are doubled as they should be, an even number of them
		// closes the cell. Looking from the start is dear, and in files that are
		// not as they should be it is done a few times only.
		n := strings.Count(m, `"`)
		if quotes += n; n == 0 {
			continue
		}
		if tries++; quotes%2 != 0 && tries > 20 {
			continue
		}
		if cells, open := r.split(b.String(), false); !open {
			return cells, true
		}
		if quotes%2 == 0 {
			if failed++; failed > 100 {
				break
			}
		}
	}
	r.oneLine = true
	r.back = append(lines, r.back...)
	r.line = first
	return nil, false
}

// split cuts a row into cells. It reports whether a quote is left open, which
// with literal set is a character like any other.
func (r *csvReader) split(l string, literal bool) (cells []string, open bool) {
	for {
		var cell string
		trimmed := strings.TrimLeft(l, " ")
		if !literal && strings.HasPrefix(trimmed, `"`) {
			var ok bool
			if cell, l, ok = r.quoted(trimmed[1:]); !ok {
				return nil, true
			}
		} else if i := strings.IndexRune(l, r.comma); i >= 0 {
			cell, l = l[:i], l[i:]
		} else {
			cell, l = l, ""
		}
		cells = append(cells, cleanText(strings.TrimSpace(cell)))
		if l == "" {
			return cells, false
		}
		l = l[utf8.RuneLen(r.comma):]
	}
}

// quoted reads the rest of a cell behind its opening quote. It returns the
// cell and what follows it, a delimiter or nothing.
func (r *csvReader) quoted(s string) (cell, rest string, ok bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return "", "", false
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		after := strings.TrimLeft(s, " ")
		switch {
		case strings.HasPrefix(s, `"`):
			b.WriteByte('"')
			s = s[1:]
		case after == "" || strings.HasPrefix(after, string(r.comma)):
			return b.String(), after, true
		default: // a quote in the middle of a cell
			b.WriteByte('"')
		}
	}
}
