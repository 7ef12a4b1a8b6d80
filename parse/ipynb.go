package parse

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ragprocessor/rag"
)

// An ipynbParser reads Jupyter notebooks: text, code and what the code gave.
type ipynbParser struct{}

const (
	ipynbMaxSize = 128 << 20
	ipynbMaxCell = 4 << 20 // bytes of HTML in one output that are read as HTML
)

// An ipynbText is text that is written as one string or as its lines.
type ipynbText string

// UnmarshalJSON implements [json.Unmarshaler]. Anything else than text is no
// text: outputs hold all sorts of things.
func (t *ipynbText) UnmarshalJSON(b []byte) error {
	var s string
	var lines []string
	switch {
	case json.Unmarshal(b, &s) == nil:
	case json.Unmarshal(b, &lines) == nil:
		s = strings.Join(lines, "")
	}
	*t = ipynbText(ipynbPlain(s))
	return nil
}

type ipynbFile struct {
	Cells    []ipynbCell `json:"cells"`
	Sheets   []ipynbFile `json:"worksheets"` // of version 3, which has one
	Metadata struct {
		Title   string `json:"title"`
		Name    string `json:"name"` // of version 3
		Authors []struct {
			Name string `json:"name"`
		} `json:"authors"`
		Kernel struct {
			Language string `json:"language"`
			Name     string `json:"display_name"`
		} `json:"kernelspec"`
		Language struct {
			Name string `json:"name"`
		} `json:"language_info"`
	} `json:"metadata"`
}

type ipynbCell struct {
	Type     string        `json:"cell_type"`
	Source   ipynbText     `json:"source"`
	Input    ipynbText     `json:"input"` // the source of code in version 3
	Level    int           `json:"level"` // of a heading in version 3
	Language string        `json:"language"`
	Outputs  []ipynbOutput `json:"outputs"`
}

type ipynbOutput struct {
	Type  string                     `json:"output_type"`
	Text  ipynbText                  `json:"text"`
	Data  map[string]json.RawMessage `json:"data"`
	HTML  ipynbText                  `json:"html"` // this and the next of version 3
	PNG   ipynbText                  `json:"png"`
	JPEG  ipynbText                  `json:"jpeg"`
	Error string                     `json:"ename"`
	Value string                     `json:"evalue"`
}

// Parse implements [Parser].
func (ipynbParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	if in.Size > ipynbMaxSize {
		return nil, rag.BadFile("too_large", fmt.Sprintf("The notebook has more than %d MB", ipynbMaxSize>>20),
			"Clear its outputs, save it and send it again", nil)
	}
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse ipynb: %w", err)
	}
	var file ipynbFile
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return nil, rag.BadFile("corrupt_file", "The file is damaged or is not a Jupyter notebook",
			"Open it in Jupyter, save it again and send the new copy", err)
	}
	for _, s := range file.Sheets {
		file.Cells = append(file.Cells, s.Cells...)
	}
	doc := &rag.Document{Format: "ipynb", Title: file.Metadata.Title}
	var authors []string
	for _, a := range file.Metadata.Authors {
		authors = append(authors, a.Name)
	}
	setMeta(doc, "author", strings.Join(authors, ", "))
	language := cmp.Or(file.Metadata.Language.Name, file.Metadata.Kernel.Language)
	setMeta(doc, "kernel", file.Metadata.Kernel.Name)
	for i, c := range file.Cells {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i%100 == 0 {
			in.Progress("cells", int64(i), int64(len(file.Cells)))
		}
		language = cmp.Or(language, c.Language)
		part := fmt.Sprintf("cell %d", i+1)
		for _, e := range c.elements(part, doc) {
			e.Where.Part = part
			doc.Elements = append(doc.Elements, e)
		}
	}
	setMeta(doc, "code_language", language)
	if i := slices.IndexFunc(doc.Elements, func(e rag.Element) bool { return e.Kind == rag.Heading }); i >= 0 && doc.Elements[i].Level == 1 {
		doc.Title = cmp.Or(doc.Title, doc.Elements[i].Text)
	}
	doc.Title = cmp.Or(doc.Title, file.Metadata.Name)
	return doc, nil
}

// elements returns what stands in a cell. Warnings go to doc.
func (c *ipynbCell) elements(part string, doc *rag.Document) []rag.Element {
	source := strings.TrimRight(cmp.Or(string(c.Source), string(c.Input)), " \t\n")
	lines := rag.Locator{Line: 1, LineEnd: 1 + strings.Count(source, "\n")}
	sub := &rag.Document{}
	switch {
	case strings.TrimSpace(source) == "":
	case c.Type == "markdown":
		mdRead(source, part, sub)
	case c.Type == "heading":
		sub.Elements = []rag.Element{{Kind: rag.Heading, Level: min(max(c.Level, 1), 6), Text: strings.Join(strings.Fields(source), " "), Where: lines}}
	case c.Type == "code":
		sub.Elements = []rag.Element{{Kind: rag.Code, Text: source, Where: lines}}
	default: // raw, for a converter
		txtRead(source, sub)
	}
	for _, o := range c.Outputs {
		sub.Elements = append(sub.Elements, o.elements(part, sub)...)
	}
	doc.Warnings = append(doc.Warnings, sub.Warnings...)
	return sub.Elements
}

// data returns one of the forms that an output has.
func (o *ipynbOutput) data(mime string) string {
	var t ipynbText
	if raw := o.Data[mime]; raw != nil {
		_ = t.UnmarshalJSON(raw) // never fails
	}
	return string(t)
}

// elements returns an output in the form that says most to a reader of text.
func (o *ipynbOutput) elements(part string, doc *rag.Document) []rag.Element {
	if o.Type == "error" || o.Type == "pyerr" {
		// The trace repeats the code.
		return []rag.Element{{Kind: rag.Paragraph, Text: ipynbPlain(o.Error + ": " + o.Value)}}
	}
	plain := strings.Trim(cmp.Or(string(o.Text), o.data("text/plain")), "\n")
	page := cmp.Or(o.data("text/html"), string(o.HTML))
	if strings.Contains(page, "<table") || plain == "" && page != "" {
		if root := ipynbHTML(page, part, doc); root != nil {
			return root
		}
	}
	if md := o.data("text/markdown"); md != "" {
		sub := &rag.Document{}
		mdRead(md, part, sub)
		doc.Warnings = append(doc.Warnings, sub.Warnings...)
		for i := range sub.Elements {
			sub.Elements[i].Where = rag.Locator{}
		}
		return sub.Elements
	}
	for mime := range o.Data {
		if strings.HasPrefix(mime, "image/") {
			return []rag.Element{{Kind: rag.Image, Text: cmp.Or(strings.Trim(plain, "<>"), "Picture")}}
		}
	}
	switch {
	case o.PNG != "" || o.JPEG != "":
		return []rag.Element{{Kind: rag.Image, Text: cmp.Or(strings.Trim(plain, "<>"), "Picture")}}
	case strings.TrimSpace(plain) != "":
		return []rag.Element{{Kind: rag.Code, Text: plain}}
	}
	if tex := o.data("text/latex"); tex != "" {
		return []rag.Element{{Kind: rag.Formula, Text: strings.Trim(tex, "$ \n")}}
	}
	return nil
}

// ipynbHTML returns the elements of an output in HTML, or nil.
func ipynbHTML(page, part string, doc *rag.Document) []rag.Element {
	if len(page) > ipynbMaxCell {
		return nil
	}
	root := htmlTree(page, part, doc)
	if root == nil {
		return nil
	}
	elements := htmlElements(root, doc)
	for i := range elements {
		elements[i].Where = rag.Locator{}
	}
	return elements
}

var (
	ipynbEscape = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
	ipynbReturn = regexp.MustCompile("(?m)^.*\r([^\r\n]+)\r?$")
)

// ipynbPlain returns what a terminal would show in the end: no colors, and of
// a line that was written over and over the last version.
func ipynbPlain(s string) string {
	s = ipynbEscape.ReplaceAllString(strings.ReplaceAll(s, "\r\n", "\n"), "")
	if strings.Contains(s, "\r") {
		s = ipynbReturn.ReplaceAllString(s, "$1")
	}
	return cleanText(s)
}
