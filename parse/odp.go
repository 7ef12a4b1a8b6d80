package parse

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// An odpParser reads OpenDocument presentations: packages (odp, otp) and flat
// files (fodp). Hidden slides are read like the others. Dates, footers, slide
// numbers and what stands on masters are left out.
type odpParser struct{}

// Parse implements [Parser]. Progress is counted in bytes of the main part.
func (odpParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	return odfRead(ctx, in, "odp")
}

// odpAside are the classes of the frames that every slide has.
var odpAside = []string{"header", "footer", "page-number", "date-time", "page", "handout"}

// page emits a slide: its title, its shapes in reading order, then the
// speaker's notes and the comments.
func (r *odfReader) page(n *ooxmlNode) {
	if len(r.within) == 0 {
		r.slide++
	}
	var titles, notes, comments []*ooxmlNode
	var items []pptxItem
	placed := true
	for _, c := range n.kids {
		class := c.attr("presentation:class")
		switch {
		case c.name == "presentation:notes":
			notes = append(notes, c)
		case c.name == "office:annotation":
			comments = append(comments, c)
		case !strings.HasPrefix(c.name, "draw:") && !strings.HasPrefix(c.name, "dr3d:"), slices.Contains(odpAside, class):
		case c.attr("presentation:placeholder") == "true" && len(c.child("draw:text-box").children()) == 0:
		case class == "title":
			titles = append(titles, c)
		default:
			it := pptxItem{node: c}
			odpPlace(&it)
			placed = placed && it.placed
			items = append(items, it)
		}
	}
	for _, c := range titles {
		text := docxFlat(r.capture(func() { r.object(c) }), " ")
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			r.emit(rag.Element{Kind: rag.Heading, Level: 1, Text: text})
		}
	}
	if placed && len(items) <= pptxMaxSorted {
		items = pptxReadingOrder(items)
	}
	for i, it := range items {
		els := r.capture(func() { r.object(it.node) })
		if i == 0 && len(titles) == 0 && placed && odpIsTitle(els, items) {
			els[0].Kind, els[0].Level = rag.Heading, 1
		}
		for _, e := range els {
			r.emit(e)
		}
	}
	r.flush()
	for _, c := range notes {
		r.speaker(c)
	}
	for _, c := range comments {
		r.annotation(c)
	}
	r.flush()
}

// odpIsTitle reports whether the first of a slide's shapes, which holds els, is
// its title though nothing says so: one short line above everything else. Many
// converters know no other titles.
func odpIsTitle(els []rag.Element, items []pptxItem) bool {
	const long = 80
	if len(els) != 1 || els[0].Kind != rag.Paragraph || len(els[0].Text) > long || strings.Contains(els[0].Text, "\n") || len(items) < 2 {
		return false
	}
	for _, it := range items[1:] {
		if it.y0 < items[0].y1 {
			return false
		}
	}
	return true
}

// speaker emits the speaker's notes under a slide.
func (r *odfReader) speaker(n *ooxmlNode) {
	text := docxFlat(r.capture(func() {
		for _, c := range n.kids {
			if c.name == "draw:frame" && !slices.Contains(odpAside, c.attr("presentation:class")) || c.name == "draw:custom-shape" {
				r.object(c)
			}
		}
	}), "\n")
	if text != "" {
		r.emit(rag.Element{Kind: rag.Note, Text: text})
	}
}

// odpPlace finds where a shape is. A group is where its first shapes are.
func odpPlace(it *pptxItem) {
	n := it.node
	if n.name == "draw:g" || n.name == "draw:a" {
		for _, c := range n.kids {
			in := pptxItem{node: c}
			if !strings.HasPrefix(c.name, "draw:") {
				continue
			}
			if odpPlace(&in); !in.placed {
				continue
			}
			if !it.placed {
				it.x0, it.y0, it.x1, it.y1 = in.x0, in.y0, in.x1, in.y1
			}
			it.x0, it.y0, it.x1, it.y1 = min(it.x0, in.x0), min(it.y0, in.y0), max(it.x1, in.x1), max(it.y1, in.y1)
			it.placed = true
		}
		return
	}
	x, okX := odfLength(odfOr(n.attr("svg:x"), n.attr("svg:x1")))
	y, okY := odfLength(odfOr(n.attr("svg:y"), n.attr("svg:y1")))
	if !okX || !okY {
		return
	}
	w, _ := odfLength(n.attr("svg:width"))
	h, _ := odfLength(n.attr("svg:height"))
	it.x0, it.y0, it.x1, it.y1, it.placed = x, y, x+max(w, 0), y+max(h, 0), true
}

// odfUnits are the units of length, in EMU, as presentations of Office count.
var odfUnits = map[string]float64{"cm": 360_000, "mm": 36_000, "in": 914_400, "pt": 12_700, "pc": 152_400, "px": 9_525}

// odfLength returns a length in EMU.
func odfLength(s string) (float64, bool) {
	if len(s) < 3 {
		return 0, false
	}
	v, err := strconv.ParseFloat(s[:len(s)-2], 64)
	unit, ok := odfUnits[s[len(s)-2:]]
	if err != nil || !ok || v < -1e6 || v > 1e6 || v != v {
		return 0, false
	}
	return v * unit, true
}
