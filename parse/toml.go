package parse

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"ragprocessor/rag"
)

// A tomlParser reads TOML with its comments.
type tomlParser struct{}

const (
	tomlMaxSize  = 16 << 20 // bytes; more is read as plain text
	tomlMaxDepth = 10_000   // brackets that may be open
	tomlMaxKeys  = 100      // parts of a dotted key
)

// Parse implements [Parser].
func (tomlParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	if in.Size > tomlMaxSize {
		return dataAsText(in, "toml", fmt.Sprintf("It has more than %d MB", tomlMaxSize>>20))
	}
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse toml: %w", err)
	}
	// The library calls itself for each bracket.
	if strings.Count(text, "[")-strings.Count(text, "]") > tomlMaxDepth || strings.Count(text, "{")-strings.Count(text, "}") > tomlMaxDepth || tomlDeep(text) {
		return dataAsText(in, "toml", "It is nested too deeply")
	}
	root := &dataNode{kind: dataObject, line: 1}
	t := &tomlReader{root: root, at: root, index: map[*dataNode]map[string]*dataNode{}}
	for i, c := range []byte(text) {
		if c == '\n' {
			t.breaks = append(t.breaks, i)
		}
	}
	t.KeepComments = true
	t.Reset([]byte(text))
	for n := 0; t.NextExpression(); n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !t.expression(t.Expression()) {
			return dataAsText(in, "toml", "It is nested too deeply")
		}
	}
	if err := t.Error(); err != nil {
		return dataAsText(in, "toml", "It is not valid TOML ("+err.Error()+")")
	}
	w := newRecordWriter(&rag.Document{Format: "toml"})
	if t.note != "" { // at the end
		root.kids = append(root.kids, &dataNode{text: t.note, line: t.last, end: t.last})
	}
	if err := w.add(root); err != nil {
		return nil, err
	}
	w.finish()
	return w.doc, nil
}

// tomlDeep reports whether brackets are opened one after the other beyond
// sense.
func tomlDeep(s string) bool {
	run := 0
	for i := range len(s) {
		switch s[i] {
		case '[', '{':
			if run++; run > tomlMaxDepth {
				return true
			}
		case ']', '}':
			run = max(run-1, 0)
		}
	}
	return false
}

type tomlReader struct {
	unstable.Parser
	root, at *dataNode // at is the table that keys go to
	index    map[*dataNode]map[string]*dataNode
	breaks   []int
	note     string // comments that belong to what follows
	last     int    // line of the last expression
}

func (t *tomlReader) line(n *unstable.Node) int {
	if n.Raw.Length == 0 {
		return t.last
	}
	return 1 + sort.SearchInts(t.breaks, int(n.Raw.Offset))
}

// expression takes up a line. It reports false if its key has too many parts.
func (t *tomlReader) expression(e *unstable.Node) bool {
	if e.Kind == unstable.Comment {
		t.last = t.line(e)
		t.note = dataNotes(t.note, string(e.Data))
		return true
	}
	var keys []string
	for it := e.Key(); it.Next(); {
		if len(keys) == 0 {
			t.last = t.line(it.Node())
		}
		keys = append(keys, string(it.Node().Data))
	}
	if len(keys) == 0 || len(keys) > tomlMaxKeys {
		return len(keys) == 0
	}
	name := keys[len(keys)-1]
	switch e.Kind {
	case unstable.Table:
		t.at = t.path(t.root, keys)
		t.noteTo(t.at)
	case unstable.ArrayTable:
		parent := t.path(t.root, keys[:len(keys)-1])
		array := t.index[parent][name]
		if array == nil || array.kind != dataArray {
			array = t.child(parent, name, dataArray)
		}
		t.at = &dataNode{kind: dataObject, line: t.last, end: t.last}
		t.noteTo(t.at)
		array.kids = append(array.kids, t.at)
	case unstable.KeyValue:
		parent := t.path(t.at, keys[:len(keys)-1])
		n := t.value(name, e.Value())
		t.noteTo(n)
		parent.kids = append(parent.kids, n)
		t.at.end, parent.end = n.end, n.end
	}
	return true
}

func (t *tomlReader) noteTo(n *dataNode) {
	n.note, t.note = dataNotes(n.note, t.note), ""
}

// path returns the table that keys lead to from n, made if it is not there.
func (t *tomlReader) path(n *dataNode, keys []string) *dataNode {
	for _, k := range keys {
		c := t.index[n][k]
		if c == nil {
			c = t.child(n, k, dataObject)
		}
		if c.kind == dataArray && len(c.kids) > 0 {
			c = c.kids[len(c.kids)-1]
		}
		n = c
	}
	return n
}

func (t *tomlReader) child(n *dataNode, key string, kind dataKind) *dataNode {
	c := &dataNode{kind: kind, key: key, line: t.last, end: t.last}
	n.kids = append(n.kids, c)
	if t.index[n] == nil {
		t.index[n] = map[string]*dataNode{}
	}
	t.index[n][key] = c
	return c
}

// value returns a value with the given key.
func (t *tomlReader) value(key string, v *unstable.Node) *dataNode {
	n := &dataNode{key: key, text: string(v.Data), line: t.last}
	if v.Raw.Length > 0 {
		t.last = max(t.last, 1+sort.SearchInts(t.breaks, int(v.Raw.Offset+v.Raw.Length)-1))
	}
	switch v.Kind {
	case unstable.Array:
		n.kind, n.text = dataArray, ""
		for it := v.Children(); it.Next(); {
			if c := it.Node(); c.Kind == unstable.Comment {
				t.note = dataNotes(t.note, string(c.Data))
			} else {
				n.kids = append(n.kids, t.value("", c))
			}
		}
	case unstable.InlineTable:
		n.kind, n.text = dataObject, ""
		for it := v.Children(); it.Next(); {
			c := it.Node()
			if c.Kind != unstable.KeyValue {
				continue
			}
			var keys []string
			for k := c.Key(); k.Next(); {
				keys = append(keys, string(k.Node().Data))
			}
			n.kids = append(n.kids, t.value(strings.Join(keys, "."), c.Value()))
		}
	}
	n.end = t.last
	return n
}
