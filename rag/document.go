package rag

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A Document is what a parser saw in a file, in reading order.
type Document struct {
	Title    string            `json:"title,omitempty"`
	Language string            `json:"language,omitempty"` // BCP 47, if known
	Format   string            `json:"format"`             // name of the format that read it: "pdf", "docx", …
	Pages    int               `json:"pages,omitempty"`    // pages or slides; 0 if the format has none
	Meta     map[string]string `json:"meta,omitempty"`     // author, created, …: document properties
	Elements []Element         `json:"elements"`
	Warnings []Warning         `json:"warnings,omitempty"` // parts that could not be read
	Children []Child           `json:"children,omitempty"` // files within the file
}

// A Child is a file within a file: a member of an archive, an attachment of a
// mail. It becomes a document of its own.
type Child struct {
	Path string `json:"path"`           // by which its parser finds it again; no two of a file are the same
	Name string `json:"name"`           // for people, with an extension if it has one
	Size int64  `json:"size,omitempty"` // bytes, if known before it is unpacked
}

// A Kind says what an [Element] is.
type Kind string

// The kinds of elements.
const (
	Heading   Kind = "heading"
	Paragraph Kind = "paragraph"
	ListItem  Kind = "list_item"
	Table     Kind = "table"
	Code      Kind = "code"
	Formula   Kind = "formula"
	Caption   Kind = "caption"
	Footnote  Kind = "footnote"
	Note      Kind = "note" // a speaker's note under a slide, a comment
	Image     Kind = "image"
	Speech    Kind = "speech"
)

// An Element is one heading, paragraph, table, picture or utterance.
type Element struct {
	Kind  Kind   `json:"kind"`
	Level int    `json:"level,omitempty"` // heading level or list depth, from 1
	Text  string `json:"text,omitempty"`  // the words; for a table, empty

	// Rows are the cells of a table, row by row. A merged cell's text stands in
	// its first cell and the others are empty. The first HeaderRows rows are
	// the header.
	Rows       [][]string `json:"rows,omitempty"`
	HeaderRows int        `json:"header_rows,omitempty"`

	Where Locator `json:"where"`
}

// A Locator says where in the original something stands, so that a search
// result can open the original at the right place. Fields that the format
// does not have are zero.
type Locator struct {
	Page    int   `json:"page,omitempty"`     // first page is 1
	PageEnd int   `json:"page_end,omitempty"` // last page, if not the same
	Boxes   []Box `json:"boxes,omitempty"`

	Slide    int `json:"slide,omitempty"` // first slide is 1
	SlideEnd int `json:"slide_end,omitempty"`

	Sheet string `json:"sheet,omitempty"`
	Range string `json:"range,omitempty"` // A1:C9

	Line    int `json:"line,omitempty"` // first line is 1
	LineEnd int `json:"line_end,omitempty"`

	Para    int `json:"para,omitempty"` // paragraph of a flow format, from 1
	ParaEnd int `json:"para_end,omitempty"`

	Part string `json:"part,omitempty"` // part of a mail, chapter of a book

	Start time.Duration `json:"start,omitempty"` // audio and video
	End   time.Duration `json:"end,omitempty"`
}

// A Box is a rectangle on a page, in PDF points (1/72 inch) from the top left
// corner of the page as it is shown.
type Box struct {
	Page int     `json:"page"`
	X0   float64 `json:"x0"`
	Y0   float64 `json:"y0"`
	X1   float64 `json:"x1"`
	Y1   float64 `json:"y1"`
}

// String returns the place as a person would cite it: "p. 3", "slide 4",
// "lines 10–24", "Sheet1!A1:C9", "¶ 12", "0:31–0:45".
func (l Locator) String() string {
	span := func(one, many string, a, b int) string {
		if b > a {
			return fmt.Sprintf("%s %d–%d", many, a, b)
		}
		return fmt.Sprintf("%s %d", one, a)
	}
	var s []string
	if l.Part != "" {
		s = append(s, l.Part)
	}
	switch {
	case l.Page > 0:
		s = append(s, span("p.", "pp.", l.Page, l.PageEnd))
	case l.Slide > 0:
		s = append(s, span("slide", "slides", l.Slide, l.SlideEnd))
	case l.Sheet != "" && l.Range != "":
		s = append(s, l.Sheet+"!"+l.Range)
	case l.Sheet != "":
		s = append(s, l.Sheet)
	case l.Line > 0:
		s = append(s, span("line", "lines", l.Line, l.LineEnd))
	case l.Para > 0:
		s = append(s, span("¶", "¶¶", l.Para, l.ParaEnd))
	case l.End > 0:
		s = append(s, clock(l.Start)+"–"+clock(l.End))
	}
	return strings.Join(s, ", ")
}

func clock(d time.Duration) string {
	s := int(d / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// A Chunk is the unit of embedding, storage and search.
type Chunk struct {
	Index int      `json:"index"` // position in the document, from 0
	Text  string   `json:"text"`  // what is shown and cited
	Path  []string `json:"path,omitempty"`
	Where Locator  `json:"where"`

	// Elements are the first and the last element of the document that the
	// chunk was cut from, as indexes into [Document.Elements].
	Elements [2]int `json:"elements"`

	Kind   Kind `json:"kind,omitempty"` // of its elements, if they are all of one kind
	Tokens int  `json:"tokens"`         // of Indexed(), counted by the embedding model's tokenizer
}

// Indexed returns the text that is embedded and indexed: the heading path,
// then the chunk's own text. The path is not part of what is shown.
func (c *Chunk) Indexed() string {
	if len(c.Path) == 0 {
		return c.Text
	}
	return strings.Join(c.Path, " › ") + "\n" + c.Text
}
