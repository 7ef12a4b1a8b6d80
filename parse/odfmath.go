package parse

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// odfMath returns a formula of MathML as LaTeX, as ooxmlMath does with Word's.
func odfMath(n *ooxmlNode) string {
	var b strings.Builder
	odfMathTo(&b, n)
	return strings.TrimSpace(b.String())
}

func odfMathTo(b *strings.Builder, n *ooxmlNode) {
	if n == nil {
		return
	}
	var kids []*ooxmlNode // elements
	for _, c := range n.kids {
		if c.name != "" {
			kids = append(kids, c)
		}
	}
	arg := func(i int) string {
		if i >= len(kids) {
			return ""
		}
		return odfMath(kids[i])
	}
	script := func(mark string, i int) {
		if s := arg(i); s != "" {
			b.WriteString(mark + "{" + s + "}")
		}
	}
	base := func() {
		s := arg(0)
		if op, ok := ooxmlOperators[s]; ok {
			s = op
		} else if slices.Contains(ooxmlFunctions, s) {
			s = `\` + s
		}
		b.WriteString(s)
	}
	switch name := strings.TrimPrefix(n.name, "math:"); name {
	case "mi", "mn", "mtext", "ms":
		b.WriteString(strings.Join(strings.Fields(n.allText()), " "))
	case "mo":
		s := strings.TrimSpace(n.allText())
		if op, ok := ooxmlOperators[s]; ok {
			s = op + " "
		} else if strings.ContainsAny(s, "=+−<>≤≥≠≈→⇒±×·∈⊂∪∩") {
			s = " " + s + " "
		}
		b.WriteString(s)
	case "mfrac":
		b.WriteString(`\frac{` + arg(0) + "}{" + arg(1) + "}")
	case "msup", "mover":
		if accent, ok := map[string]string{"^": `\hat`, "~": `\tilde`, "¯": `\bar`, "‾": `\overline`, "˙": `\dot`, "→": `\vec`, "⃗": `\vec`}[arg(1)]; ok && name == "mover" {
			b.WriteString(accent + "{" + arg(0) + "}")
			return
		}
		base()
		script("^", 1)
	case "msub", "munder":
		base()
		script("_", 1)
	case "msubsup", "munderover":
		base()
		script("_", 1)
		script("^", 2)
	case "msqrt":
		var in strings.Builder
		for _, c := range kids {
			odfMathTo(&in, c)
		}
		b.WriteString(`\sqrt{` + strings.TrimSpace(in.String()) + "}")
	case "mroot":
		b.WriteString(`\sqrt[` + arg(1) + "]{" + arg(0) + "}")
	case "mfenced":
		var parts []string
		for i := range kids {
			parts = append(parts, arg(i))
		}
		b.WriteString(odfOr(n.attr("open"), "(") + strings.Join(parts, ",") + odfOr(n.attr("close"), ")"))
	case "mtable":
		var rows []string
		for _, r := range kids {
			var cells []string
			for _, c := range r.kids {
				if c.name != "" {
					cells = append(cells, odfMath(c))
				}
			}
			rows = append(rows, strings.Join(cells, " & "))
		}
		if len(rows) == 1 {
			b.WriteString(rows[0])
			return
		}
		b.WriteString(`\begin{matrix}` + strings.Join(rows, ` \\ `) + `\end{matrix}`)
	case "mspace", "mphantom":
		b.WriteByte(' ')
	case "annotation", "annotation-xml":
	case "semantics":
		// The formula itself, or what its author typed if that was not translated.
		if s := arg(0); s != "" {
			b.WriteString(s)
			return
		}
		b.WriteString(strings.TrimSpace(n.child("math:annotation").allText()))
	default:
		for i, c := range kids {
			if i > 0 && (odfMathWord(c) && kids[i-1].name == "math:mi" || odfMathWord(kids[i-1]) && c.name == "math:mi") {
				b.WriteByte(' ')
			}
			odfMathTo(b, c)
		}
	}
}

// odfMathWord reports whether a formula's element is a name of several letters.
func odfMathWord(n *ooxmlNode) bool {
	return n.name == "math:mi" && utf8.RuneCountInString(strings.TrimSpace(n.allText())) > 1 || n.name == "math:mtext"
}
