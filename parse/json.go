package parse

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"ragprocessor/rag"
)

// A jsonParser reads JSON, and JSON Lines, whose values stand on a line each.
// Files are streamed.
type jsonParser struct{ lines bool }

const jsonMaxLine = 64 << 20 // bytes of one line of JSON Lines

// Parse implements [Parser].
func (p jsonParser) Parse(ctx context.Context, in *Input) (*rag.Document, error) {
	format := "json"
	if p.lines {
		format = "jsonl"
	}
	r, err := decoded(in, nil)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", format, err)
	}
	w := newRecordWriter(&rag.Document{Format: format})
	if p.lines {
		err = jsonLines(ctx, in, r, w)
	} else {
		err = jsonValues(ctx, in, r, w)
	}
	var syntax *jsonSyntax
	if errors.As(err, &syntax) {
		return dataAsText(in, format, fmt.Sprintf("It is not valid JSON from line %d on", syntax.line))
	}
	if err != nil {
		return nil, err
	}
	w.finish()
	return w.doc, nil
}

// A jsonSyntax is the error for what is not JSON.
type jsonSyntax struct {
	line int
	err  error
}

func (e *jsonSyntax) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }

// A lineCounter is a reader that knows the line of each byte that was read.
type lineCounter struct {
	io.Reader
	off    int64
	breaks []int64 // offsets of line breaks that line has not passed
	line   int     // of the last byte that was asked for
}

func (l *lineCounter) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	for i := 0; ; {
		k := bytes.IndexByte(b[i:n], '\n')
		if k < 0 {
			break
		}
		i += k + 1
		l.breaks = append(l.breaks, l.off+int64(i))
	}
	l.off += int64(n)
	return n, err
}

// at returns the line of the byte before off. Offsets must not go back.
func (l *lineCounter) at(off int64) int {
	for len(l.breaks) > 0 && l.breaks[0] < off {
		l.breaks = l.breaks[1:]
		l.line++
	}
	return l.line
}

// A jsonReader hands the tokens of JSON to a writer.
type jsonReader struct {
	*json.Decoder
	w       *recordWriter
	objects []bool // of what is open: whether it is an object
}

func newJSONReader(r io.Reader, w *recordWriter) *jsonReader {
	d := json.NewDecoder(r)
	d.UseNumber()
	return &jsonReader{Decoder: d, w: w}
}

// next hands over the next token. line tells the line of the byte before an
// offset.
func (d *jsonReader) next(line func(int64) int) error {
	t, err := d.Token()
	if err == io.EOF && len(d.objects) == 0 {
		return io.EOF
	}
	at := line(d.InputOffset())
	if err != nil {
		return jsonFault(err, at)
	}
	key := ""
	if s, ok := t.(string); ok && len(d.objects) > 0 && d.objects[len(d.objects)-1] {
		key = s
		t, err = d.Token()
		at = line(d.InputOffset())
		if err != nil {
			return jsonFault(err, at)
		}
	}
	switch t := t.(type) {
	case json.Delim:
		switch t {
		case '{':
			d.objects = append(d.objects, true)
			d.w.open(dataObject, key, "", at)
		case '[':
			d.objects = append(d.objects, false)
			d.w.open(dataArray, key, "", at)
		default:
			d.objects = d.objects[:len(d.objects)-1]
			d.w.close(at)
		}
		return nil
	case nil:
		return d.w.scalar(key, "null", "", at, at)
	}
	return d.w.scalar(key, fmt.Sprint(t), "", at, at)
}

// jsonValues reads the values in r, of which there should be one.
func jsonValues(ctx context.Context, in *Input, r io.Reader, w *recordWriter) error {
	lines := &lineCounter{Reader: r, line: 1}
	d := newJSONReader(lines, w)
	for tokens := 0; ; tokens++ {
		if tokens%10_000 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			in.Progress("bytes", d.InputOffset(), in.Size)
		}
		switch err := d.next(lines.at); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// jsonFault tells what is wrong with the file from what is wrong with the disk.
func jsonFault(err error, line int) error {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &jsonSyntax{line, err}
	}
	return fmt.Errorf("parse json: line %d: %w", line, err)
}

// jsonLines reads one value from each line.
func jsonLines(ctx context.Context, in *Input, r io.Reader, w *recordWriter) error {
	src := bufio.NewReaderSize(r, 64<<10)
	var off int64
	bad := 0
	for line := 1; ; line++ {
		if line%1000 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			in.Progress("bytes", off, in.Size)
		}
		b, err := jsonLine(src)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		off += int64(len(b)) + 1
		b = bytes.TrimSpace(b)
		switch {
		case len(b) == 0:
		case !json.Valid(b):
			if w.leaves == 0 && bad == 0 && len(b) <= 2 {
				// A value over several lines: it is only named so.
				all, err := decoded(in, nil)
				if err != nil {
					return fmt.Errorf("parse jsonl: %w", err)
				}
				return jsonValues(ctx, in, all, w)
			}
			if bad++; bad <= 10 {
				w.doc.Warnings = append(w.doc.Warnings, rag.Warning{Part: fmt.Sprintf("line %d", line), Reason: "It is not valid JSON; it was read as plain text"})
			}
			if err := w.scalar("", string(b), "", line, line); err != nil {
				return err
			}
		default:
			d := newJSONReader(bytes.NewReader(b), w)
			for {
				err := d.next(func(int64) int { return line })
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
			}
		}
	}
	if bad > 10 {
		w.doc.Warnings = append(w.doc.Warnings, rag.Warning{Part: "more lines", Reason: fmt.Sprintf("%d more lines are not valid JSON", bad-10)})
	}
	return nil
}

// jsonLine returns the next line.
func jsonLine(src *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		p, err := src.ReadSlice('\n')
		if len(b)+len(p) > jsonMaxLine {
			return nil, rag.BadFile("too_large", fmt.Sprintf("The file has a line of more than %d MB", jsonMaxLine>>20),
				"Check that the file has one value on each line", nil)
		}
		b = append(b, p...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(b) > 0:
			return b, nil
		case err != nil && err != io.EOF:
			return nil, fmt.Errorf("parse jsonl: %w", err)
		}
		return b, err
	}
}
