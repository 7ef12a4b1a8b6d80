package parse

import (
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// odfBlock reports whether an element is a block.
func odfBlock(name string) bool {
	switch name {
	case "text:p", "text:h", "text:list", "text:numbered-paragraph", "office:annotation":
		return true
	}
	return strings.HasPrefix(name, "draw:") || strings.HasPrefix(name, "dr3d:")
}

// blocks reads the blocks in n, which stand in an item of a list if item is
// not nil.
func (r *odfReader) blocks(n *ooxmlNode, item *odfItem) {
	for _, c := range n.children() {
		if r.err != nil {
			return
		}
		r.block(c, item)
	}
}

func (r *odfReader) block(n *ooxmlNode, item *odfItem) {
	switch n.name {
	case "text:p", "text:h":
		r.paragraph(n, item)
	case "text:list":
		r.list(n, item)
	case "text:numbered-paragraph":
		r.numbered(n)
	case "table:table":
		t := r.newTable(n)
		t.add(n, false)
		t.emit()
	case "text:section":
		if n.attr("text:display") != "none" {
			r.blocks(n, item)
		}
	case "draw:g", "draw:a":
		r.object(n)
	default:
		switch {
		case slices.Contains(odfTransparent, n.name):
			r.blocks(n, item)
		case odfBlock(n.name):
			r.object(n)
		}
	}
}

// An odfText is the text of a paragraph as it is collected.
type odfText struct {
	strings.Builder
	space   bool // it ends in white space, and more of it means nothing
	words   bool
	fixed   bool         // only fixed-width runs so far
	runs    int          // texts that are not blank
	formula int          // formulas
	objects []*ooxmlNode // boxes, pictures: told after the paragraph
	seq     bool         // it has a number that counts figures or tables
}

// write adds the text of one node, whose white space means one space.
func (t *odfText) write(s, font string) {
	if s == "" {
		return
	}
	if strings.TrimSpace(s) != "" {
		t.fixed = t.fixed && docxFixedWidth(font)
		t.runs++
		t.words = true
	}
	if font != "" {
		if f := strings.ToLower(font); strings.HasPrefix(f, "symbol") || strings.HasPrefix(f, "wingdings") {
			s = docxPrivate(strings.TrimSpace(font), s)
		}
	}
	for _, c := range s {
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			if !t.space {
				t.WriteByte(' ')
			}
			t.space = true
			continue
		}
		t.WriteRune(c)
		t.space = false
	}
}

// mark adds white space that is meant.
func (t *odfText) mark(s string) {
	t.WriteString(s)
	t.space = false
}

// odfMaxSpaces is how many spaces one element may stand for.
const odfMaxSpaces = 1000

// inline collects the text in n.
func (r *odfReader) inline(n *ooxmlNode, t *odfText, font string) {
	for _, c := range n.children() {
		switch c.name {
		case "":
			t.write(c.text, font)
		case "text:s":
			count, err := strconv.Atoi(c.attr("text:c"))
			if err != nil {
				count = 1
			}
			t.mark(strings.Repeat(" ", min(max(count, 0), odfMaxSpaces)))
		case "text:tab":
			t.mark("\t")
		case "text:line-break":
			t.mark("\n")
			t.space = true
		case "text:span":
			st := r.styles.get("text", c.attr("text:style-name"))
			if !st.hidden {
				r.inline(c, t, odfOr(st.font, font))
			}
		case "text:note":
			r.note(c)
		case "office:annotation":
			r.annotation(c)
		case "text:ruby":
			r.inline(c.child("text:ruby-base"), t, font)
		case "text:sequence":
			t.seq = true
			r.inline(c, t, font)
		case "text:p", "text:h": // in an index mark or a field of another writer
			r.inline(c, t, font)
			t.mark("\n")
		case "table:table", "text:list":
			t.objects = append(t.objects, c)
		case "text:hidden-text", "text:hidden-paragraph", "text:number", "text:script", "text:dde-connection",
			"office:annotation-end", "office:event-listeners", "office:forms", "text:tracked-changes", "text:note-citation":
		default:
			switch {
			case c.name == "draw:frame" && r.formula(c, t):
			case strings.HasPrefix(c.name, "draw:") || strings.HasPrefix(c.name, "dr3d:"):
				t.objects = append(t.objects, c)
			default: // links, bookmarks, fields, and what else marks text
				r.inline(c, t, font)
			}
		}
	}
}

func odfOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// formula adds the formula in a frame to the text around it.
func (r *odfReader) formula(frame *ooxmlNode, t *odfText) bool {
	o := frame.child("draw:object")
	if o == nil {
		return false
	}
	m := o.child("math:math")
	if m == nil {
		root, err := r.objectRoot(o)
		if err != nil {
			r.fail(err)
		}
		if root == nil || root.name != "math:math" {
			return false
		}
		m = root
	}
	if s := odfMath(m); s != "" {
		if t.Len() > 0 && !t.space {
			t.WriteByte(' ')
		}
		t.mark(s)
		t.formula++
	}
	return true
}

// paragraph reads a paragraph or a heading.
func (r *odfReader) paragraph(n *ooxmlNode, item *odfItem) {
	if r.inBox == 0 {
		r.para++
	}
	st := r.styles.get("paragraph", n.attr("text:style-name"))
	if st.hidden {
		return
	}
	t := &odfText{space: true, fixed: true}
	r.inline(n, t, st.font)
	text := strings.TrimSpace(t.String())
	if text != "" {
		if st.tableHead {
			r.heads++
		} else {
			r.plain++
		}
		r.emitText(n, text, t, st, item)
	}
	for _, o := range t.objects {
		r.inBox++
		r.block(o, nil)
		r.inBox--
	}
}

// emitText emits a paragraph as what its element, style and list say it is.
func (r *odfReader) emitText(n *ooxmlNode, text string, t *odfText, st odfStyle, item *odfItem) {
	e := rag.Element{Kind: rag.Paragraph, Text: text}
	heading := st.heading
	if n.name == "text:h" && heading != docxTitle {
		v, err := strconv.Atoi(n.attr("text:outline-level"))
		if err != nil || v < 1 {
			v = 1
		}
		heading = min(v, 9)
	}
	marker := ""
	listed := false
	switch {
	case item != nil:
		marker, listed = item.next()
	case n.name == "text:h" && n.attr("text:is-list-header") != "true":
		marker = r.lists.heading(n, heading, st)
	}
	code := st.code || t.fixed && t.runs > 0 && (docxLooksLikeCode(text) || r.afterCode())
	switch {
	case heading > 0:
		e.Kind, e.Level = rag.Heading, heading
	case st.caption:
		e.Kind = rag.Caption
	case t.formula > 0 && !t.words:
		e.Kind = rag.Formula
	case code && !listed:
		e.Kind = rag.Code
		e.Text = strings.TrimRight(t.String(), " \t\n")
		if r.afterCode() {
			last := &r.out[len(r.out)-1]
			last.Text += "\n" + e.Text
			if r.slide == 0 {
				last.Where.ParaEnd = r.para
			}
			return
		}
	case listed && item.told > 1 && r.out != nil && item.last == len(r.out)-1:
		// A further paragraph of the item.
		r.out[item.last].Text += "\n" + text
		if r.slide == 0 && r.para > r.out[item.last].Where.Para {
			r.out[item.last].Where.ParaEnd = r.para
		}
		return
	case listed:
		e.Kind, e.Level = rag.ListItem, item.level+1
		item.last = len(r.out)
	}
	if number := strings.TrimSpace(n.child("text:number").allText()); number != "" && (heading > 0 || listed) && marker == "" {
		marker = number
	}
	if marker != "" && e.Kind != rag.Formula && e.Kind != rag.Code {
		e.Text = marker + " " + text
	}
	r.emit(e)
}

// afterCode reports whether the paragraph before the present one is code.
func (r *odfReader) afterCode() bool {
	if len(r.out) == 0 {
		return false
	}
	e := &r.out[len(r.out)-1]
	return e.Kind == rag.Code && (r.slide > 0 || max(e.Where.Para, e.Where.ParaEnd) >= r.para-1)
}

// note keeps a footnote or an endnote for after the block.
func (r *odfReader) note(n *ooxmlNode) {
	r.aside(n.child("text:note-body"), rag.Footnote, "")
}

// annotation keeps a comment for after the block.
func (r *odfReader) annotation(n *ooxmlNode) {
	author := strings.TrimSpace(n.child("dc:creator").allText())
	if author != "" {
		author += ": "
	}
	r.aside(n, rag.Note, author)
}

// aside keeps the blocks in n as one note.
func (r *odfReader) aside(n *ooxmlNode, kind rag.Kind, before string) {
	at := rag.Locator{Para: max(r.para, 1)}
	r.inBox++
	text := docxFlat(r.capture(func() { r.blocks(n, nil) }), "\n")
	r.inBox--
	if text != "" {
		r.pending = append(r.pending, rag.Element{Kind: kind, Text: before + text, Where: at})
	}
}
