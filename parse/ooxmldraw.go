package parse

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"ragprocessor/rag"
)

// What Word and PowerPoint have in common: formulas, charts and diagrams.

// ooxmlMath returns a formula as LaTeX, the linear form that people and models
// both read. Symbols stay the characters they are in the file.
func ooxmlMath(n *ooxmlNode) string {
	var b strings.Builder
	ooxmlMathTo(&b, n)
	return strings.TrimSpace(b.String())
}

func ooxmlMathTo(b *strings.Builder, n *ooxmlNode) {
	if n == nil {
		return
	}
	arg := func(name string) string { return ooxmlMath(n.child(name)) }
	// script writes _{…} and ^{…}, without what is empty.
	script := func(mark, name string) {
		if s := arg(name); s != "" {
			b.WriteString(mark + "{" + s + "}")
		}
	}
	prop := func(pr, name, usual string) string {
		if c := n.child(pr, name); c != nil {
			return c.attr("m:val")
		}
		return usual
	}
	switch n.name {
	case "m:t", "w:t", "a:t":
		b.WriteString(n.allText())
	case "m:f":
		if prop("m:fPr", "m:type", "") == "noBar" {
			b.WriteString(`\binom{` + arg("m:num") + "}{" + arg("m:den") + "}")
			return
		}
		b.WriteString(`\frac{` + arg("m:num") + "}{" + arg("m:den") + "}")
	case "m:sSup", "m:sSub", "m:sSubSup":
		b.WriteString(arg("m:e"))
		script("_", "m:sub")
		script("^", "m:sup")
	case "m:sPre":
		b.WriteString("{}")
		script("_", "m:sub")
		script("^", "m:sup")
		b.WriteString(arg("m:e"))
	case "m:rad":
		b.WriteString(`\sqrt`)
		if deg := arg("m:deg"); deg != "" {
			b.WriteString("[" + deg + "]")
		}
		b.WriteString("{" + arg("m:e") + "}")
	case "m:nary":
		op := prop("m:naryPr", "m:chr", "∫")
		if name, ok := ooxmlOperators[op]; ok {
			op = name
		}
		b.WriteString(op)
		script("_", "m:sub")
		script("^", "m:sup")
		b.WriteString(" " + arg("m:e"))
	case "m:d":
		var parts []string
		for e := range n.each("m:e") {
			parts = append(parts, ooxmlMath(e))
		}
		b.WriteString(prop("m:dPr", "m:begChr", "(") + strings.Join(parts, prop("m:dPr", "m:sepChr", "|")) +
			prop("m:dPr", "m:endChr", ")"))
	case "m:func":
		name, e := arg("m:fName"), arg("m:e")
		if slices.Contains(ooxmlFunctions, name) {
			name = `\` + name
		}
		if !strings.HasPrefix(e, "(") {
			name += " "
		}
		b.WriteString(name + e)
	case "m:limLow", "m:limUpp":
		base := arg("m:e")
		if slices.Contains(ooxmlFunctions, base) {
			base = `\` + base
		}
		b.WriteString(base)
		script(map[string]string{"m:limLow": "_", "m:limUpp": "^"}[n.name], "m:lim")
	case "m:acc":
		accent := map[string]string{"": `\hat`, "\u0302": `\hat`, "\u0303": `\tilde`, "\u0304": `\bar`, "\u0305": `\overline`,
			"\u0307": `\dot`, "\u0308": `\ddot`, "\u20d7": `\vec`}[prop("m:accPr", "m:chr", "")]
		b.WriteString(accent + "{" + arg("m:e") + "}")
	case "m:groupChr":
		brace := map[string]string{"": `\underbrace`, "⏟": `\underbrace`, "⏞": `\overbrace`}[prop("m:groupChrPr", "m:chr", "")]
		b.WriteString(brace + "{" + arg("m:e") + "}")
	case "m:bar":
		b.WriteString(`\overline{` + arg("m:e") + "}")
	case "m:m", "m:eqArr":
		var rows []string
		for _, r := range n.kids {
			switch r.name {
			case "m:mr":
				var cells []string
				for e := range r.each("m:e") {
					cells = append(cells, ooxmlMath(e))
				}
				rows = append(rows, strings.Join(cells, " & "))
			case "m:e":
				rows = append(rows, ooxmlMath(r))
			}
		}
		if len(rows) == 1 {
			b.WriteString(rows[0])
			return
		}
		b.WriteString(`\begin{matrix}` + strings.Join(rows, ` \\ `) + `\end{matrix}`)
	case "m:rPr", "w:rPr", "w:del", "w:moveFrom":
	default:
		for _, c := range n.kids {
			ooxmlMathTo(b, c)
		}
	}
}

var (
	ooxmlOperators = map[string]string{"∫": `\int`, "∬": `\iint`, "∮": `\oint`, "∑": `\sum`, "∏": `\prod`,
		"∭": `\iiint`,
		"⋃": `\bigcup`, "⋂": `\bigcap`, "⋀": `\bigwedge`, "⋁": `\bigvee`}
	ooxmlFunctions = []string{"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",
		"tanh", "log", "ln", "lg", "exp", "lim", "max", "min", "sup", "inf", "det", "gcd", "arg"}
)

// chart returns the title and the numbers of a chart part, as they were when
// the document was last saved.
func (p *ooxmlPackage) chart(part, what string) ([]rag.Element, error) {
	root, err := p.secondary(part, what)
	if err != nil || root == nil {
		return nil, err
	}
	chart := root.child("c:chart")
	var els []rag.Element
	if s := ooxmlParagraphs(chart.child("c:title"), " "); s != "" {
		els = append(els, rag.Element{Kind: rag.Caption, Text: s})
	}
	// A series names its values; the first with categories names the rows.
	var names []string
	var columns [][]string
	var categories []string
	rows := 0
	chart.child("c:plotArea").walk(func(n *ooxmlNode) bool {
		if n.name != "c:ser" {
			return true
		}
		name := strings.Join(ooxmlPoints(n.child("c:tx")), " ")
		if name == "" {
			name = n.child("c:tx", "c:v").allText()
		}
		x, y := n.child("c:cat"), n.child("c:val")
		if y == nil {
			x, y = n.child("c:xVal"), n.child("c:yVal")
		}
		if categories == nil {
			categories = ooxmlPoints(x)
		}
		values := ooxmlPoints(y)
		rows = max(rows, len(categories), len(values))
		names = append(names, name)
		columns = append(columns, values)
		return false
	})
	return p.chartTable(els, names, columns, categories, rows)
}

// chartEx returns the title and the numbers of a chart of the kinds that came
// with Office 2016: treemaps, funnels, waterfalls and the like.
func (p *ooxmlPackage) chartEx(part, what string) ([]rag.Element, error) {
	root, err := p.secondary(part, what)
	if err != nil || root == nil {
		return nil, err
	}
	chart := root.child("cx:chart")
	var els []rag.Element
	if s := ooxmlParagraphs(chart.child("cx:title"), " "); s != "" {
		els = append(els, rag.Element{Kind: rag.Caption, Text: s})
	}
	data := map[string]*ooxmlNode{}
	for d := range root.child("cx:chartData").each("cx:data") {
		data[d.attr("id")] = d
	}
	var names []string
	var columns [][]string
	var categories []string
	rows := 0
	for s := range chart.child("cx:plotArea", "cx:plotAreaRegion").each("cx:series") {
		d := data[s.child("cx:dataId").attr("val")]
		if categories == nil {
			categories = ooxmlPoints(d.child("cx:strDim", "cx:lvl"))
		}
		values := ooxmlPoints(d.child("cx:numDim", "cx:lvl"))
		rows = max(rows, len(categories), len(values))
		names = append(names, s.child("cx:tx", "cx:txData", "cx:v").allText())
		columns = append(columns, values)
	}
	return p.chartTable(els, names, columns, categories, rows)
}

// chartTable appends the numbers of a chart to els as a table, a column for
// each series.
func (p *ooxmlPackage) chartTable(els []rag.Element, names []string, columns [][]string, categories []string, rows int) ([]rag.Element, error) {
	if rows == 0 {
		return els, nil
	}
	if p.budget.cells -= (rows + 1) * (len(columns) + 1); p.budget.cells < 0 {
		return nil, ooxmlTooLarge("more than %d cells", ooxmlMaxCells)
	}
	at := func(s []string, i int) string {
		if i < len(s) {
			return s[i]
		}
		return ""
	}
	table := [][]string{append([]string{""}, names...)}
	for i := range rows {
		row := []string{at(categories, i)}
		for _, c := range columns {
			row = append(row, at(c, i))
		}
		table = append(table, row)
	}
	return append(els, rag.Element{Kind: rag.Table, Rows: table, HeaderRows: 1}), nil
}

// ooxmlPoints returns the cached values of a series by their index. Of
// categories in several levels it takes the innermost.
func ooxmlPoints(n *ooxmlNode) []string {
	var v []string
	if lvl := n.child("c:multiLvlStrRef", "c:multiLvlStrCache", "c:lvl"); lvl != nil {
		n = lvl
	}
	n.walk(func(c *ooxmlNode) bool {
		if c.name != "c:pt" && c.name != "cx:pt" {
			return true
		}
		i, err := strconv.Atoi(c.attr("idx"))
		if err != nil || i < 0 || i > 100_000 {
			return false
		}
		for len(v) <= i {
			v = append(v, "")
		}
		if c.name == "c:pt" {
			c = c.child("c:v")
		}
		v[i] = ooxmlNumber(strings.TrimSpace(c.allText()))
		return false
	})
	return v
}

// ooxmlNumber rounds a number as Office shows it: 4.4000000000000004 is 4.4.
func ooxmlNumber(s string) string {
	if len(s) > 15 {
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			if v, err = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 15, 64), 64); err == nil {
				return strconv.FormatFloat(v, 'g', -1, 64)
			}
		}
	}
	return s
}

// diagram returns the texts of a SmartArt diagram's data part as a list that
// is nested as the diagram is.
func (p *ooxmlPackage) diagram(part, what string) ([]rag.Element, error) {
	root, err := p.secondary(part, what)
	if err != nil || root == nil {
		return nil, err
	}
	texts := map[string]string{}
	var order, tops []string // model IDs
	for pt := range root.child("dgm:ptLst").each("dgm:pt") {
		switch id := pt.attr("modelId"); pt.attr("type") {
		case "", "node", "asst":
			texts[id] = ooxmlParagraphs(pt.child("dgm:t"), "\n")
			order = append(order, id)
		case "doc":
			tops = append(tops, id)
		}
	}
	type child struct {
		id  string
		ord int
	}
	children := map[string][]child{}
	for c := range root.child("dgm:cxnLst").each("dgm:cxn") {
		if t := c.attr("type"); t == "" || t == "parOf" {
			ord, _ := strconv.Atoi(c.attr("srcOrd"))
			children[c.attr("srcId")] = append(children[c.attr("srcId")], child{c.attr("destId"), ord})
		}
	}
	var els []rag.Element
	seen := map[string]bool{}
	var visit func(id string, level int)
	visit = func(id string, level int) {
		if seen[id] || level > ooxmlMaxDepth {
			return
		}
		seen[id] = true
		if s := texts[id]; s != "" {
			els = append(els, rag.Element{Kind: rag.ListItem, Level: max(level, 1), Text: s})
		}
		kids := children[id]
		slices.SortStableFunc(kids, func(a, b child) int { return a.ord - b.ord })
		for _, k := range kids {
			visit(k.id, level+1)
		}
	}
	for _, id := range tops {
		visit(id, 0)
	}
	for _, id := range order {
		visit(id, 1)
	}
	return els, nil
}

// ooxmlAltText returns the words that stand for a picture, or "" if they are
// only the name of its file.
func ooxmlAltText(pr *ooxmlNode) string {
	s := strings.TrimSpace(pr.attr("descr"))
	switch strings.ToLower(path.Ext(s)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".emf", ".wmf", ".svg", ".webp":
		return ""
	}
	return s
}

// ooxmlParagraphs returns the text of the DrawingML paragraphs within n.
func ooxmlParagraphs(n *ooxmlNode, sep string) string {
	var parts []string
	n.walk(func(c *ooxmlNode) bool {
		if c.name != "a:p" {
			return true
		}
		if s := strings.TrimSpace(ooxmlRunText(c)); s != "" {
			parts = append(parts, s)
		}
		return false
	})
	return strings.Join(parts, sep)
}

// ooxmlRunText returns the text of one DrawingML paragraph.
func ooxmlRunText(p *ooxmlNode) string {
	var b strings.Builder
	p.walk(func(c *ooxmlNode) bool {
		switch c.name {
		case "a:t":
			b.WriteString(c.allText())
		case "a:br":
			b.WriteByte('\n')
		case "m:oMath":
			b.WriteString(ooxmlMath(c))
		case "mc:AlternateContent":
			b.WriteString(ooxmlRunText(c.branch()))
		case "a:pPr", "a:rPr", "a:endParaRPr":
		default:
			return true
		}
		return false
	})
	return b.String()
}
