package parse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"ragprocessor/rag"
)

// A yamlParser reads YAML with its comments. Aliases are filled in as far as
// that stays in proportion.
type yamlParser struct{}

const (
	yamlMaxSize  = 16 << 20 // bytes; more is read as plain text
	yamlMaxAlias = 100      // values that one alias is filled in with
	yamlMaxFill  = 10_000   // values that come from aliases
)

// Parse implements [Parser].
func (yamlParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	if in.Size > yamlMaxSize {
		return dataAsText(in, "yaml", fmt.Sprintf("It has more than %d MB", yamlMaxSize>>20))
	}
	text, err := decodedText(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse yaml: %w", err)
	}
	y := &yamlReader{ctx: ctx, w: newRecordWriter(&rag.Document{Format: "yaml"})}
	y.w.record = "Document"
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return dataAsText(in, "yaml", "It is not valid YAML ("+strings.TrimPrefix(err.Error(), "yaml: ")+")")
		}
		if _, err := y.value("", n.HeadComment, &n, 0); err != nil {
			return nil, err
		}
	}
	y.w.finish()
	if y.unfilled {
		y.w.doc.Warnings = append(y.w.doc.Warnings, rag.Warning{Part: "document", Reason: "Its aliases stand for too much; some were left as they are written"})
	}
	return y.w.doc, nil
}

type yamlReader struct {
	ctx      context.Context
	w        *recordWriter
	within   []*yaml.Node // aliases that are being filled in
	aliased  int          // values that came from aliases
	unfilled bool
	values   int
}

// fits reports whether what an alias stands for is small enough to be filled
// in, and does not hold the alias itself.
func (y *yamlReader) fits(n *yaml.Node) bool {
	left := yamlMaxAlias
	var count func(n *yaml.Node) bool
	count = func(n *yaml.Node) bool {
		if left--; left < 0 {
			return false
		}
		if n.Kind == yaml.AliasNode {
			return count(n.Alias)
		}
		return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !count(c) })
	}
	return y.aliased <= yamlMaxFill && !slices.Contains(y.within, n) && count(n)
}

// value adds n, with note as the comment above it, and returns its last line,
// or line if that is nearer to the end of the file.
func (y *yamlReader) value(key, note string, n *yaml.Node, line int) (int, error) {
	if y.values++; y.values%1000 == 0 && y.ctx.Err() != nil {
		return 0, y.ctx.Err()
	}
	if len(y.within) > 0 {
		y.aliased++
	}
	line = max(line, n.Line)
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			if _, err := y.value(key, dataNotes(note, c.HeadComment), c, line); err != nil {
				return 0, err
			}
		}
	case yaml.AliasNode:
		if !y.fits(n.Alias) {
			y.unfilled = true
			return line, y.w.scalar(key, "*"+n.Value, note, line, line)
		}
		y.within = append(y.within, n.Alias)
		_, err := y.value(key, note, n.Alias, line)
		y.within = y.within[:len(y.within)-1]
		return line, err
	case yaml.SequenceNode:
		y.w.open(dataArray, key, note, line)
		for _, c := range n.Content {
			var err error
			if line, err = y.value("", dataNotes(c.HeadComment, c.LineComment), c, line); err != nil {
				return 0, err
			}
		}
		y.w.close(line)
	case yaml.MappingNode:
		y.w.open(dataObject, key, note, line)
		var err error
		if line, err = y.members(n, nil, line); err != nil {
			return 0, err
		}
		y.w.close(line)
	default:
		end := line
		if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			end += strings.Count(strings.TrimRight(n.Value, "\n"), "\n") + 1
		}
		return end, y.w.scalar(key, n.Value, note, line, end)
	}
	return line, nil
}

// members adds the members of a mapping, except those in but.
func (y *yamlReader) members(n *yaml.Node, but []string, line int) (int, error) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if slices.Contains(but, k.Value) {
			continue
		}
		if k.Tag == "!!merge" {
			if ok, err := y.merge(n, v, line); ok || err != nil {
				if err != nil {
					return 0, err
				}
				continue
			}
		}
		key := k.Value
		if k.Kind != yaml.ScalarNode {
			key = "?"
		}
		var err error
		line, err = y.value(key, dataNotes(k.HeadComment, k.LineComment, v.HeadComment, v.LineComment), v, max(line, k.Line))
		if err != nil {
			return 0, err
		}
		if c := dataNotes(k.FootComment, v.FootComment); c != "" {
			if err := y.w.scalar("", c, "", line+1, line+1+strings.Count(c, "\n")); err != nil {
				return 0, err
			}
		}
	}
	return line, nil
}

// merge adds the members of the mapping that v, an alias, stands for, which
// into does not have itself. It reports false if v is anything else.
func (y *yamlReader) merge(into, v *yaml.Node, line int) (bool, error) {
	if v.Kind != yaml.AliasNode || v.Alias.Kind != yaml.MappingNode || !y.fits(v.Alias) {
		return false, nil
	}
	var own []string
	for i := 0; i < len(into.Content); i += 2 {
		own = append(own, into.Content[i].Value)
	}
	y.within = append(y.within, v.Alias)
	_, err := y.members(v.Alias, own, line)
	y.within = y.within[:len(y.within)-1]
	return true, err
}
