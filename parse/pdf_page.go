package parse

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/klippa-app/go-pdfium/enums"
	"github.com/klippa-app/go-pdfium/references"
	"github.com/klippa-app/go-pdfium/requests"
)

// A pdfBox is a rectangle on a page. The unit is the point, the origin the
// top left corner, and y grows downwards.
type pdfBox struct{ x0, y0, x1, y1 float64 }

func (b pdfBox) w() float64  { return b.x1 - b.x0 }
func (b pdfBox) h() float64  { return b.y1 - b.y0 }
func (b pdfBox) cx() float64 { return (b.x0 + b.x1) / 2 }
func (b pdfBox) cy() float64 { return (b.y0 + b.y1) / 2 }

func (b pdfBox) union(c pdfBox) pdfBox {
	return pdfBox{min(b.x0, c.x0), min(b.y0, c.y0), max(b.x1, c.x1), max(b.y1, c.y1)}
}

// holds reports whether the middle of c is in b.
func (b pdfBox) holds(c pdfBox) bool {
	return c.cx() >= b.x0 && c.cx() <= b.x1 && c.cy() >= b.y0 && c.cy() <= b.y1
}

// sameRow reports whether b and c stand beside each other on one row.
func (b pdfBox) sameRow(c pdfBox) bool {
	return min(b.y1, c.y1)-max(b.y0, c.y0) > 0.5*min(b.h(), c.h())
}

// A pdfWord is a run of characters without a space between them.
type pdfWord struct {
	pdfBox
	text  string
	size  float64 // of the font as it is shown
	font  string  // its name
	order int     // position in the content stream
	mcid  int     // marked content that it belongs to; pdfNoMark or pdfArtifact
	bold  bool
	heavy bool // the font claims a bold weight; its name does not say
	mono  bool
	glued bool // no space between it and the word before it in the stream
	aside bool // set at another angle than most of the page
}

// The values of [pdfWord.mcid] for words that are in no marked content.
const (
	pdfNoMark   = -1
	pdfArtifact = -2 // furniture, as the file itself says
)

// A pdfSeg is a horizontal or vertical ruling.
type pdfSeg struct{ x0, y0, x1, y1 float64 }

// A pdfPage is what was read from a page. Its coordinates are those of the
// page turned so that its text is upright.
type pdfPage struct {
	number int
	frame  pdfFrame
	w, h   float64
	words  []pdfWord
	hs, vs []pdfSeg
	tags   []pdfTag // structure elements of a tagged page in reading order
	chars  int      // characters of text
	plain  string   // text beyond what is laid out
	blank  bool     // nothing is shown on it
}

// A pdfFrame turns coordinates of the PDF into those of [pdfPage]: the shown
// box of the page, turned clockwise by quarters.
type pdfFrame struct {
	box   pdfBox // as in the file: y grows upwards, y0 is the bottom
	turns int    // quarters to turn from the file's orientation to upright text
	shown int    // quarters to turn from the file's orientation to the page as shown
}

func (f pdfFrame) size() (w, h float64) {
	if f.turns%2 == 1 {
		return f.box.h(), f.box.w()
	}
	return f.box.w(), f.box.h()
}

// shownSize returns the size of the page as it is shown.
func (f pdfFrame) shownSize() (w, h float64) {
	f.turns = f.shown
	return f.size()
}

func (f pdfFrame) point(x, y float64) (float64, float64) {
	switch f.turns {
	case 1:
		return y - f.box.y0, x - f.box.x0
	case 2:
		return f.box.x1 - x, y - f.box.y0
	case 3:
		return f.box.y1 - y, f.box.x1 - x
	default:
		return x - f.box.x0, f.box.y1 - y
	}
}

func (f pdfFrame) rect(x0, y0, x1, y1 float64) pdfBox {
	ax, ay := f.point(x0, y0)
	bx, by := f.point(x1, y1)
	return pdfBox{min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)}
}

// asShown turns a box of the upright page to the page as it is shown.
func (f pdfFrame) asShown(b pdfBox) pdfBox {
	w, h := f.size()
	for range (f.shown - f.turns + 4) % 4 {
		b = pdfBox{h - b.y1, b.x0, h - b.y0, b.x1}
		w, h = h, w
	}
	return b
}

// page reads page n.
func (s *pdfSession) page(n int) (*pdfPage, error) {
	ref := requests.Page{ByIndex: &requests.PageByIndex{Document: s.doc, Index: n - 1}}
	s.handles += 4
	text, err := s.lib.FPDFText_LoadPage(&requests.FPDFText_LoadPage{Page: ref})
	if err != nil {
		return nil, fmt.Errorf("load text: %w", err)
	}
	defer func() {
		// What cannot be released goes with the instance.
		_, _ = s.lib.FPDFText_ClosePage(&requests.FPDFText_ClosePage{TextPage: text.TextPage})
	}()
	box, err := s.lib.FPDF_GetPageBoundingBox(&requests.FPDF_GetPageBoundingBox{Page: ref})
	if err != nil {
		return nil, fmt.Errorf("bounding box: %w", err)
	}
	rotation, err := s.lib.FPDFPage_GetRotation(&requests.FPDFPage_GetRotation{Page: ref})
	if err != nil {
		return nil, fmt.Errorf("rotation: %w", err)
	}
	count, err := s.lib.FPDFText_CountChars(&requests.FPDFText_CountChars{TextPage: text.TextPage})
	if err != nil {
		return nil, fmt.Errorf("count characters: %w", err)
	}
	r := box.Rect
	p := &pdfPage{number: n, frame: pdfFrame{
		box: pdfBox{
			float64(min(r.Left, r.Right)), float64(min(r.Bottom, r.Top)),
			float64(max(r.Left, r.Right)), float64(max(r.Bottom, r.Top)),
		},
		shown: int(rotation.PageRotation) & 3,
	}}
	p.frame.turns = p.frame.shown
	l := &pdfLoader{s: s, ref: ref, text: text.TextPage, page: p}
	if count.Count > 0 {
		if count.Count > pdfMaxPageChars {
			err = l.plain(count.Count)
		} else {
			err = l.words()
		}
		if err != nil {
			return nil, err
		}
	}
	p.w, p.h = p.frame.size()
	if p.chars == 0 {
		p.blank, err = l.blank()
		return p, err
	}
	if len(p.words) > 0 {
		if err := l.rulings(); err != nil {
			return nil, err
		}
		if err := l.tags(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// A pdfLoader reads one page.
type pdfLoader struct {
	s      *pdfSession
	ref    requests.Page
	text   references.FPDF_TEXTPAGE
	page   *pdfPage
	starts []int // of each word of the page: index of its first character
	paths  int   // path objects seen
	images int   // image objects seen
	seen   int   // objects seen
}

// plain reads the text of a page that has too many characters to be laid out.
func (l *pdfLoader) plain(n int) error {
	t, err := l.s.lib.FPDFText_GetText(&requests.FPDFText_GetText{TextPage: l.text, Count: min(n, pdfMaxChars)})
	if err != nil {
		return fmt.Errorf("text: %w", err)
	}
	l.page.plain = pdfClean(t.Text)
	l.page.chars = len(l.page.plain)
	return nil
}

// words reads the characters of the page and makes words of them.
func (l *pdfLoader) words() error {
	t, err := l.s.lib.GetPageTextStructured(&requests.GetPageTextStructured{
		Page: l.ref, Mode: requests.GetPageTextStructuredModeChars,
	})
	if err != nil {
		return fmt.Errorf("characters: %w", err)
	}
	chars := make([]pdfChar, 0, len(t.Chars))
	var quarters [4]int
	for i, c := range t.Chars {
		r := pdfRune(c.Text)
		if r < 0 {
			continue
		}
		// PDFium's angle is clockwise.
		q := (4 - int(math.Round(c.Angle/(math.Pi/2)))%4) % 4
		pos := c.PointPosition
		chars = append(chars, pdfChar{r: r, index: i, quarter: q,
			pdfBox: pdfBox{pos.Left, pos.Bottom, pos.Right, pos.Top}})
		if r != ' ' {
			quarters[q]++
		}
	}
	// A page whose text runs up or down is laid out as if it were turned.
	upright := l.page.frame.shown
	for q, n := range quarters {
		if n > quarters[upright] {
			upright = q
		}
	}
	l.page.frame.turns = upright
	return l.group(chars, upright)
}

// A pdfChar is a character; a space is any white space.
type pdfChar struct {
	pdfBox
	r       rune
	index   int
	quarter int // turns counterclockwise
}

// pdfRune returns the character that PDFium calls text: ' ' for white space,
// -1 for what is not text.
func pdfRune(text string) rune {
	for _, r := range text {
		switch {
		case r == 0xfffe || r == 2: // PDFium's mark for a hyphen at the end of a line
			return pdfSoftHyphen
		case unicode.IsSpace(r):
			return ' '
		case r < ' ' || r == 0xfffd || unicode.Is(unicode.Co, r) && r >= 0xf8ff:
			return -1
		default:
			return r
		}
	}
	return -1
}

// pdfSoftHyphen marks a hyphen at the end of a line.
const pdfSoftHyphen = '\u00ad'

// pdfWordGap is the gap, in font sizes, that ends a word even where PDFium sees
// no space. It is wide, for the narrow glyphs of some fonts leave much room.
const pdfWordGap = 0.6

// group makes words of chars. PDFium inserts spaces where it sees them; a
// wide gap, a jump back and a change of line end a word as well.
func (l *pdfLoader) group(chars []pdfChar, upright int) error {
	p := l.page
	type place struct {
		r    rune
		x, y int
	}
	seen := map[place]bool{} // bold by printing twice
	var b strings.Builder
	var cur *pdfWord
	var last pdfChar
	spaced := true
	flush := func() {
		if cur != nil {
			cur.text = b.String()
			p.words = append(p.words, *cur)
			cur = nil
		}
		b.Reset()
	}
	for _, c := range chars {
		if c.r == ' ' {
			flush()
			spaced = true
			continue
		}
		box := p.frame.rect(c.x0, c.y0, c.x1, c.y1)
		if box.w() > 0.1 {
			k := place{c.r, int(math.Round(box.x0 * 4)), int(math.Round(box.y0 * 4))}
			if seen[k] {
				continue
			}
			seen[k] = true
		}
		if cur != nil {
			gap := box.x0 - cur.x1
			if pdfRTL(c.r) {
				gap = cur.x0 - box.x1
			}
			dy := math.Abs(box.y1 - cur.y1)
			if c.quarter != upright {
				gap, dy = 0, 0 // PDFium's spaces have to do
			}
			turn := pdfTurns(last.r, c.r)
			if fs := cur.size; gap > pdfWordGap*fs && dy < fs || gap < -1.5*fs || dy > 0.7*fs && gap > -0.2*fs || dy > 1.5*fs ||
				cur.aside != (c.quarter != upright) || turn {
				flush()
				spaced = turn
			}
		}
		if cur == nil {
			w := pdfWord{pdfBox: box, order: len(p.words), mcid: pdfNoMark, glued: !spaced, aside: c.quarter != upright}
			if err := l.font(&w, c.index); err != nil {
				return err
			}
			cur = &w
			l.starts = append(l.starts, c.index)
		} else {
			cur.pdfBox = cur.union(box)
		}
		if s := b.String(); pdfLigature(c, last, s) {
			// PDFium writes the two letters of this ligature in the wrong order.
			b.Reset()
			b.WriteString(s[:len(s)-utf8.RuneLen(last.r)])
			b.WriteRune(c.r)
			b.WriteRune(last.r)
		} else {
			b.WriteRune(c.r)
		}
		last = c
		p.chars++
		spaced = false
	}
	flush()
	l.dropUnseen()
	return nil
}

// dropUnseen removes the words that stand beside the page: nobody who reads it
// sees them. If they are most of the text, it is the page's size that is wrong.
func (l *pdfLoader) dropUnseen() {
	p := l.page
	w, h := p.frame.size()
	shown := pdfBox{-1, -1, w + 1, h + 1}
	var words []pdfWord
	var starts []int
	unseen := 0
	for i, word := range p.words {
		if !shown.holds(word.pdfBox) {
			unseen += utf8.RuneCountInString(word.text)
			continue
		}
		words, starts = append(words, word), append(starts, l.starts[i])
	}
	if unseen > 0 && 2*unseen < p.chars {
		p.words, l.starts = words, starts
		p.chars -= unseen
	}
}

// pdfTurns reports whether the letters a and b are written in different
// directions: the space between them is often lost.
func pdfTurns(a, b rune) bool {
	return unicode.IsLetter(a) && unicode.IsLetter(b) && pdfRTL(a) != pdfRTL(b)
}

// pdfLigature reports whether c and the last character of word are the halves
// of the Arabic ligature lam-alef, alef first.
func pdfLigature(c, last pdfChar, word string) bool {
	return c.r == 'ل' && strings.ContainsRune("اأإآ", last.r) && strings.HasSuffix(word, string(last.r)) &&
		math.Abs(c.x0-last.x0) < 0.01 && math.Abs(c.x1-last.x1) < 0.01
}

// font sets what the font of the character at index says of w.
func (l *pdfLoader) font(w *pdfWord, index int) error {
	size, err := l.s.lib.FPDFText_GetFontSize(&requests.FPDFText_GetFontSize{TextPage: l.text, Index: index})
	if err != nil {
		return fmt.Errorf("font size: %w", err)
	}
	w.size = size.FontSize
	if m, err := l.s.lib.FPDFText_GetMatrix(&requests.FPDFText_GetMatrix{TextPage: l.text, Index: index}); err == nil {
		w.size *= math.Hypot(float64(m.Matrix.C), float64(m.Matrix.D))
	}
	if !(w.size > 0.5 && w.size < 500) {
		w.size = min(max(w.h(), 1), 500)
	}
	if weight, err := l.s.lib.FPDFText_GetFontWeight(&requests.FPDFText_GetFontWeight{TextPage: l.text, Index: index}); err == nil {
		w.heavy = weight.FontWeight >= 600
	}
	if f, err := l.s.lib.FPDFText_GetFontInfo(&requests.FPDFText_GetFontInfo{TextPage: l.text, Index: index}); err == nil {
		w.font = f.FontName
		w.bold, w.mono = pdfFontName(f.FontName)
	}
	return nil
}

// pdfFontName guesses from a font's name whether it is bold, and whether all
// its characters have one width.
func pdfFontName(name string) (bold, mono bool) {
	n := strings.ToLower(name)
	for _, s := range []string{"bold", "black", "heavy", "demi", "-medi"} {
		bold = bold || strings.Contains(n, s)
	}
	bold = bold || strings.HasSuffix(n, "-bd") || pdfTeXBold.MatchString(n)
	for _, s := range []string{"mono", "courier", "consol", "cmtt", "typewriter"} {
		mono = mono || strings.Contains(n, s)
	}
	return bold, mono
}

// pdfTeXBold matches the bold fonts of TeX: CMBX10, SFBX1000.
var pdfTeXBold = regexp.MustCompile(`(?:cm|sf|ec|lm)[a-z]?bx`)

// pdfMaxObjects is how many objects of a page are looked at for rulings.
const pdfMaxObjects = 6000

// rulings collects the horizontal and vertical lines of the page.
func (l *pdfLoader) rulings() error {
	return l.objects(func(o references.FPDF_PAGEOBJECT, m pdfMatrix, inForm bool) { l.path(o, m, inForm) })
}

// blank reports whether nothing that could be text is shown on the page.
func (l *pdfLoader) blank() (bool, error) {
	err := l.objects(func(references.FPDF_PAGEOBJECT, pdfMatrix, bool) {})
	return l.images == 0 && l.paths < 10, err
}

// objects calls path for the path objects of the page, also within forms.
func (l *pdfLoader) objects(path func(o references.FPDF_PAGEOBJECT, m pdfMatrix, inForm bool)) error {
	count, err := l.s.lib.FPDFPage_CountObjects(&requests.FPDFPage_CountObjects{Page: l.ref})
	if err != nil {
		return fmt.Errorf("count objects: %w", err)
	}
	var visit func(o references.FPDF_PAGEOBJECT, m pdfMatrix, depth int)
	visit = func(o references.FPDF_PAGEOBJECT, m pdfMatrix, depth int) {
		l.seen++
		l.s.handles++
		typ, err := l.s.lib.FPDFPageObj_GetType(&requests.FPDFPageObj_GetType{PageObject: o})
		if err != nil {
			return
		}
		switch typ.Type {
		case enums.FPDF_PAGEOBJ_IMAGE, enums.FPDF_PAGEOBJ_SHADING:
			l.images++
		case enums.FPDF_PAGEOBJ_PATH:
			l.paths++
			path(o, m, depth > 0)
		case enums.FPDF_PAGEOBJ_FORM:
			if depth > 4 {
				return
			}
			n, err := l.s.lib.FPDFFormObj_CountObjects(&requests.FPDFFormObj_CountObjects{PageObject: o})
			if err != nil {
				return
			}
			fm := l.matrix(o).mul(m)
			for k := 0; k < n.Count && l.seen < pdfMaxObjects; k++ {
				child, err := l.s.lib.FPDFFormObj_GetObject(&requests.FPDFFormObj_GetObject{PageObject: o, Index: uint64(k)})
				if err != nil {
					return
				}
				visit(child.PageObject, fm, depth+1)
			}
		}
	}
	for k := 0; k < count.Count && l.seen < pdfMaxObjects; k++ {
		o, err := l.s.lib.FPDFPage_GetObject(&requests.FPDFPage_GetObject{Page: l.ref, Index: k})
		if err != nil {
			return fmt.Errorf("object: %w", err)
		}
		visit(o.PageObject, pdfMatrix{1, 0, 0, 1, 0, 0}, 0)
	}
	return nil
}

// A pdfMatrix is a transformation as PDF writes it: a b c d e f.
type pdfMatrix [6]float64

// mul returns the transformation that applies a, then b.
func (a pdfMatrix) mul(b pdfMatrix) pdfMatrix {
	return pdfMatrix{
		a[0]*b[0] + a[1]*b[2], a[0]*b[1] + a[1]*b[3],
		a[2]*b[0] + a[3]*b[2], a[2]*b[1] + a[3]*b[3],
		a[4]*b[0] + a[5]*b[2] + b[4], a[4]*b[1] + a[5]*b[3] + b[5],
	}
}

func (l *pdfLoader) matrix(o references.FPDF_PAGEOBJECT) pdfMatrix {
	r, err := l.s.lib.FPDFPageObj_GetMatrix(&requests.FPDFPageObj_GetMatrix{PageObject: o})
	if err != nil {
		return pdfMatrix{1, 0, 0, 1, 0, 0}
	}
	m := r.Matrix
	return pdfMatrix{float64(m.A), float64(m.B), float64(m.C), float64(m.D), float64(m.E), float64(m.F)}
}

// The measures, in points, of a ruling.
const (
	pdfThin   = 3 // at most as thick
	pdfShortH = 6 // shorter horizontals are no rulings
	pdfShortV = 4 // shorter verticals are no rulings
)

// path adds the rulings of a path object.
func (l *pdfLoader) path(o references.FPDF_PAGEOBJECT, m pdfMatrix, inForm bool) {
	p := l.page
	if !inForm {
		// Most rulings are paths of their own: their bounds say it all, and
		// cost a tenth of reading their segments.
		b, err := l.s.lib.FPDFPageObj_GetBounds(&requests.FPDFPageObj_GetBounds{PageObject: o})
		if err != nil {
			return
		}
		box := p.frame.rect(float64(b.Left), float64(b.Bottom), float64(b.Right), float64(b.Top))
		if l.bar(box) || box.w() < pdfShortH && box.h() < pdfShortV {
			return
		}
	}
	count, err := l.s.lib.FPDFPath_CountSegments(&requests.FPDFPath_CountSegments{PageObject: o})
	if err != nil || count.Count > 400 {
		return
	}
	mode, err := l.s.lib.FPDFPath_GetDrawMode(&requests.FPDFPath_GetDrawMode{PageObject: o})
	if err != nil {
		return
	}
	m = l.matrix(o).mul(m)
	var segs []pdfSeg
	var box pdfBox
	var px, py, sx, sy float64
	curved := false
	for k := range count.Count {
		seg, err := l.s.lib.FPDFPath_GetPathSegment(&requests.FPDFPath_GetPathSegment{PageObject: o, Index: k})
		if err != nil {
			return
		}
		l.s.handles++
		typ, err := l.s.lib.FPDFPathSegment_GetType(&requests.FPDFPathSegment_GetType{PathSegment: seg.PathSegment})
		if err != nil {
			return
		}
		pt, err := l.s.lib.FPDFPathSegment_GetPoint(&requests.FPDFPathSegment_GetPoint{PathSegment: seg.PathSegment})
		if err != nil {
			return
		}
		ux, uy := float64(pt.X), float64(pt.Y)
		x, y := p.frame.point(m[0]*ux+m[2]*uy+m[4], m[1]*ux+m[3]*uy+m[5])
		if k == 0 {
			box = pdfBox{x, y, x, y}
		}
		box = box.union(pdfBox{x, y, x, y})
		switch typ.Type {
		case enums.FPDF_SEGMENT_MOVETO:
			sx, sy = x, y
		case enums.FPDF_SEGMENT_LINETO:
			segs = append(segs, pdfSeg{px, py, x, y})
		default:
			curved = true
		}
		px, py = x, y
	}
	if len(segs) > 0 && (px != sx || py != sy) {
		segs = append(segs, pdfSeg{px, py, sx, sy})
	}
	if curved && len(segs) < 2 || l.bar(box) || !mode.Stroke && len(segs) > 6 {
		return
	}
	for _, g := range segs {
		b := pdfBox{min(g.x0, g.x1), min(g.y0, g.y1), max(g.x0, g.x1), max(g.y0, g.y1)}
		if b.h() < 1 && b.w() > pdfShortH || b.w() < 1 && b.h() > pdfShortV {
			l.bar(b)
		}
	}
}

// bar adds box as a ruling if it is one, and reports whether it is.
func (l *pdfLoader) bar(box pdfBox) bool {
	p := l.page
	switch {
	case box.h() < pdfThin && box.w() > pdfShortH:
		p.hs = append(p.hs, pdfSeg{box.x0, box.cy(), box.x1, box.cy()})
	case box.w() < pdfThin && box.h() > pdfShortV:
		p.vs = append(p.vs, pdfSeg{box.cx(), box.y0, box.cx(), box.y1})
	default:
		return false
	}
	return true
}

// pdfClean returns s as one line without control characters.
func pdfClean(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || r < ' ' || r == 0x7f || r == 0xfffe || r == 0xffff
	}), " ")
}

// pdfRTL reports whether r belongs to a script written from right to left.
func pdfRTL(r rune) bool {
	return r >= 0x590 && r <= 0x8ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff
}

// pdfCJK reports whether r belongs to a script written without spaces.
func pdfCJK(r rune) bool {
	return r > 0x2e7f && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana)
}
