package parse

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// An xlsxFormat is a number format, such as `#,##0.00 "€";[Red]-#,##0.00 "€"`:
// up to four sections, for numbers above, below and at zero, and for text.
type xlsxFormat []xlsxSection

// An xlsxSection is one of a format's sections, cut into tokens.
type xlsxSection struct {
	tokens  []xlsxToken
	test    string // a condition: ">=", with limit
	limit   float64
	date    bool
	general bool
}

// An xlsxToken is a literal text, or something that stands for a part of the
// value: a digit, a part of a date, the text itself.
type xlsxToken struct {
	kind byte // 'L' for a literal, '0', '#', '?', '.', ',', '%', '/', 'E', '@', 'G'eneral; of dates 'y', 'm', 'd', 'h', 'n' minutes, 's', 'f'raction, 'a'm/pm, '[' elapsed
	text string
}

// xlsxBuiltIn are the formats that have a number and no text in the file. The
// short dates are those of the reader's own country, and in the file of none:
// they are shown in the form that means the same everywhere.
var xlsxBuiltIn = map[int]string{
	1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 5: "$#,##0;-$#,##0", 6: "$#,##0;-$#,##0", 7: "$#,##0.00;-$#,##0.00", 8: "$#,##0.00;-$#,##0.00",
	9: "0%", 10: "0.00%", 11: "0.00E+00", 12: "# ?/?", 13: "# ??/??",
	14: "yyyy-mm-dd", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 22: "yyyy-mm-dd h:mm",
	27: "yyyy-mm-dd", 28: "yyyy-mm-dd", 29: "yyyy-mm-dd", 30: "yyyy-mm-dd", 31: "yyyy-mm-dd", 32: "h:mm", 33: "h:mm:ss", 34: "yyyy-mm-dd", 35: "yyyy-mm-dd", 36: "yyyy-mm-dd",
	37: "#,##0;-#,##0", 38: "#,##0;-#,##0", 39: "#,##0.00;-#,##0.00", 40: "#,##0.00;-#,##0.00",
	41: "#,##0;-#,##0;-", 42: "$#,##0;-$#,##0;-", 43: "#,##0.00;-#,##0.00;-", 44: "$#,##0.00;-$#,##0.00;-",
	45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
	50: "yyyy-mm-dd", 51: "yyyy-mm-dd", 52: "yyyy-mm-dd", 53: "yyyy-mm-dd", 54: "yyyy-mm-dd", 55: "yyyy-mm-dd", 56: "yyyy-mm-dd", 57: "yyyy-mm-dd", 58: "yyyy-mm-dd",
}

// xlsxMaxFormat is how much of a format is read, in bytes. Excel allows 255
// characters.
const xlsxMaxFormat = 1 << 10

// newXlsxFormat reads a format.
func newXlsxFormat(code string) xlsxFormat {
	code = code[:min(len(code), xlsxMaxFormat)]
	f := xlsxFormat{{}}
	sec := &f[0]
	literal := func(s string) { sec.tokens = append(sec.tokens, xlsxToken{'L', s}) }
	for i := 0; i < len(code); {
		rest := code[i:]
		c := rest[0]
		lower := c | 0x20
		switch {
		case c == ';':
			f = append(f, xlsxSection{})
			sec = &f[len(f)-1]
			i++
		case c == '"':
			s, _, _ := strings.Cut(rest[1:], `"`)
			literal(s)
			i += min(len(s)+2, len(rest))
		case c == '\\' || c == '!':
			s := xlsxFirst(rest[1:])
			literal(s)
			i += 1 + len(s)
		case c == '_': // as wide as the next character
			literal(" ")
			i += 1 + len(xlsxFirst(rest[1:]))
		case c == '*': // the next character fills the cell
			i += 1 + len(xlsxFirst(rest[1:]))
		case c == '[':
			s, _, _ := strings.Cut(rest[1:], "]")
			sec.bracket(s)
			i += min(len(s)+2, len(rest))
		case len(rest) >= 7 && strings.EqualFold(rest[:7], "general"):
			sec.tokens = append(sec.tokens, xlsxToken{kind: 'G'})
			sec.general = true
			i += 7
		case len(rest) >= 5 && strings.EqualFold(rest[:5], "am/pm"):
			sec.tokens = append(sec.tokens, xlsxToken{kind: 'a', text: "AMPM"})
			sec.date = true
			i += 5
		case len(rest) >= 3 && strings.EqualFold(rest[:3], "a/p"):
			sec.tokens = append(sec.tokens, xlsxToken{kind: 'a', text: "AP"})
			sec.date = true
			i += 3
		case lower == 'e' && len(rest) > 1 && (rest[1] == '+' || rest[1] == '-') && !sec.date:
			sec.tokens = append(sec.tokens, xlsxToken{kind: 'E', text: rest[1:2]})
			i += 2
		case strings.IndexByte("ymdhse", lower) >= 0:
			n := 1
			for n < len(rest) && rest[n]|0x20 == lower {
				n++
			}
			if lower == 'e' { // the year of the era, which is the year
				sec.tokens = append(sec.tokens, xlsxToken{'y', "yyyy"})
			} else {
				sec.tokens = append(sec.tokens, xlsxToken{lower, strings.ToLower(rest[:n])})
			}
			sec.date = true
			i += n
		case strings.IndexByte("0#?.,%/@", c) >= 0:
			sec.tokens = append(sec.tokens, xlsxToken{kind: c})
			i++
		default:
			s := xlsxFirst(rest)
			literal(s)
			i += len(s)
		}
	}
	for i := range f {
		if f[i].date {
			f[i].minutes()
		}
	}
	return f
}

func xlsxFirst(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}

// bracket reads what stands in brackets: a currency, a condition, a unit of
// elapsed time, or a colour, which is ignored.
func (s *xlsxSection) bracket(in string) {
	switch lower := strings.ToLower(in); {
	case strings.HasPrefix(in, "$"):
		currency, _, _ := strings.Cut(in[1:], "-")
		s.tokens = append(s.tokens, xlsxToken{'L', currency})
	case in != "" && (strings.Trim(lower, "h") == "" || strings.Trim(lower, "m") == "" || strings.Trim(lower, "s") == ""):
		s.tokens = append(s.tokens, xlsxToken{'[', lower})
		s.date = true
	case in != "" && strings.IndexByte("<>=", in[0]) >= 0:
		op := in[:1]
		if len(in) > 1 && strings.IndexByte("<>=", in[1]) >= 0 {
			op = in[:2]
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(in[len(op):]), 64); err == nil {
			s.test, s.limit = op, v
		}
	}
}

// minutes tells the m that mean minutes from those that mean months: they
// stand after hours or before seconds. It also finds fractions of seconds.
func (s *xlsxSection) minutes() {
	hours := false
	var out []xlsxToken
	for i := 0; i < len(s.tokens); i++ {
		t := s.tokens[i]
		switch t.kind {
		case 'h':
			hours = true
		case '[':
			hours = t.text[0] == 'h'
		case 'm':
			seconds := false
			for _, n := range s.tokens[i+1:] {
				if strings.IndexByte("ymdhs[", n.kind) >= 0 {
					seconds = n.kind == 's' || n.text == "s" || n.text == "ss"
					break
				}
			}
			if len(t.text) <= 2 && (hours || seconds) {
				t.kind = 'n'
			}
			hours = false
		case 's', 'y', 'd':
			hours = false
		case '.':
			n := 0
			for i+1+n < len(s.tokens) && s.tokens[i+1+n].kind == '0' {
				n++
			}
			if n > 0 {
				t = xlsxToken{'f', strings.Repeat("0", n)}
				i += n
			} else {
				t = xlsxToken{'L', "."}
			}
		case ',', '/', '#', '?', '0', '%':
			t = xlsxToken{'L', string(t.kind)}
		}
		out = append(out, t)
	}
	s.tokens = out
}

// number returns v as the format shows it.
func (f xlsxFormat) number(v float64, epoch1904 bool) string {
	sec, negative := f.section(v)
	if sec == nil || math.IsInf(v, 0) || math.IsNaN(v) {
		return xlsxGeneral(v)
	}
	if sec.date {
		if s, ok := sec.time(v, epoch1904); ok {
			return s
		}
		return xlsxGeneral(v)
	}
	s := sec.digits(math.Abs(v))
	if negative && strings.ContainsAny(s, "123456789") {
		s = "-" + s
	}
	if s = strings.TrimSpace(s); s == "" && v != 0 {
		return xlsxGeneral(v) // hidden by its format; it is in the file, and search may find it
	}
	return s
}

// section returns the section for v, nil if there is none that shows anything,
// and whether a minus stands before what it shows.
func (f xlsxFormat) section(v float64) (sec *xlsxSection, minus bool) {
	secs := f[:min(len(f), 3)]
	if f[0].test != "" || len(f) > 1 && f[1].test != "" {
		for i := range secs {
			if secs[i].holds(v) {
				return &secs[i], v < 0
			}
		}
		return nil, false
	}
	switch {
	case v < 0 && len(secs) > 1:
		return &secs[1], false
	case v == 0 && len(secs) > 2:
		return &secs[2], false
	}
	return &secs[0], v < 0
}

func (s *xlsxSection) holds(v float64) bool {
	switch s.test {
	case "<":
		return v < s.limit
	case "<=":
		return v <= s.limit
	case ">":
		return v > s.limit
	case ">=":
		return v >= s.limit
	case "=":
		return v == s.limit
	case "<>":
		return v != s.limit
	}
	return true
}

// xlsxGeneral returns a number in full. Excel cuts it to the width of the
// column, which says nothing about the number.
func xlsxGeneral(v float64) string {
	s := ooxmlNumber(strconv.FormatFloat(v, 'g', 15, 64))
	if strings.ContainsRune(s, 'e') && math.Abs(v) < 1e21 && math.Abs(v) > 1e-5 {
		w, _ := strconv.ParseFloat(s, 64)
		return strconv.FormatFloat(w, 'f', -1, 64)
	}
	if w, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(w) < 1e21 && (math.Abs(w) > 1e-5 || w == 0) {
		return strconv.FormatFloat(w, 'f', -1, 64)
	}
	return strings.ToUpper(s)
}

// digits returns v, which is not negative, in a section that is no date.
func (s *xlsxSection) digits(v float64) string {
	if s.general {
		var b strings.Builder
		for _, t := range s.tokens {
			if t.kind == 'G' {
				t.text = xlsxGeneral(v)
			}
			b.WriteString(t.text)
		}
		return b.String()
	}
	var frac, slots, scale, percent int
	point, slash, exp := -1, -1, -1
	thousands := false
	last := -1 // the last digit
	for i, t := range s.tokens {
		switch t.kind {
		case '0', '#', '?':
			if exp < 0 {
				last = i
			}
			if point >= 0 && exp < 0 {
				frac++
			} else {
				slots++
			}
		case '.':
			if point < 0 {
				point = i
			}
		case '/':
			slash = i
		case 'E':
			exp = i
		case '%':
			percent++
		}
	}
	for i, t := range s.tokens {
		if t.kind != ',' || last < 0 {
			continue
		}
		if i > last || point >= 0 && i+1 == point {
			scale++ // thousands are left out
		} else if i < last {
			thousands = true
		}
	}
	v *= math.Pow(100, float64(percent))
	v /= math.Pow(1000, float64(scale))

	if slash > 0 && slots > 0 {
		return s.fraction(v, slash)
	}
	power := 0
	var shown string
	if exp >= 0 {
		mantissa, e, _ := strings.Cut(strconv.FormatFloat(v, 'e', min(frac, 30), 64), "e")
		power, _ = strconv.Atoi(e)
		shown = mantissa
	} else {
		// Rounded to what the file can hold first, as 1.005 is in no float.
		if r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 15, 64), 64); err == nil {
			v = r
		}
		shown = xlsxRound(v, min(frac, 30))
	}
	whole, decimals, _ := strings.Cut(shown, ".")
	whole = strings.TrimLeft(whole, "0")
	return s.fill(whole, decimals, power, point, exp, thousands)
}

// xlsxRound rounds halves away from zero, as Excel does, and not to even.
func xlsxRound(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	i := strings.IndexByte(s, '.')
	if i < 0 || len(s)-i-1 <= decimals {
		return strconv.FormatFloat(v, 'f', decimals, 64)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return s
	}
	return r.FloatString(decimals)
}

// fill puts digits where the tokens say.
func (s *xlsxSection) fill(whole, decimals string, power, point, exp int, thousands bool) string {
	end := len(s.tokens)
	if point >= 0 {
		end = point
	} else if exp >= 0 {
		end = exp
	}
	places := 0
	for _, t := range s.tokens[:end] {
		if t.kind == '0' || t.kind == '#' || t.kind == '?' {
			places++
		}
	}
	var b strings.Builder
	left := places // of the whole number
	put := func(from, to int) {
		for ; from < to; from++ {
			b.WriteByte(whole[from])
			if n := len(whole) - from - 1; thousands && n > 0 && n%3 == 0 {
				b.WriteByte(',')
			}
		}
	}
	used, ints, after, exponent := 0, false, 0, false
	for i, t := range s.tokens {
		switch t.kind {
		case 'L':
			b.WriteString(t.text)
		case '%':
			b.WriteByte('%')
		case '.':
			if i == point && (xlsxForced(s.tokens[i+1:]) || strings.Trim(decimals, "0") != "") {
				b.WriteByte('.')
			}
		case '0', '#', '?':
			switch {
			case exponent:
				continue
			case i < end:
				if left--; !ints {
					ints = true
					put(0, len(whole)-places) // what is more than the places
					used = max(len(whole)-places, 0)
				}
				if left < len(whole)-used || left < len(whole) && used < len(whole) {
					put(used, used+1)
					used++
				} else if t.kind == '0' {
					b.WriteByte('0')
					if thousands && left > 0 && left%3 == 0 {
						b.WriteByte(',')
					}
				}
			case after < len(decimals):
				if t.kind == '0' || strings.Trim(decimals[after:], "0") != "" {
					b.WriteByte(decimals[after])
				}
				after++
			}
		case 'E':
			exponent = true
			sign := ""
			if power < 0 {
				sign = "-"
			} else if t.text == "+" {
				sign = "+"
			}
			digits := strconv.Itoa(max(power, -power))
			width := 0
			for _, n := range s.tokens[i+1:] {
				if n.kind == '0' {
					width++
				}
			}
			b.WriteString("E" + sign + strings.Repeat("0", max(width-len(digits), 0)) + digits)
		}
	}
	return b.String()
}

// xlsxForced reports whether a decimal is shown even if it is zero.
func xlsxForced(tokens []xlsxToken) bool {
	for _, t := range tokens {
		if t.kind == '0' {
			return true
		}
	}
	return false
}

// fraction returns v as a whole number and a fraction, such as 2 3/4.
func (s *xlsxSection) fraction(v float64, slash int) string {
	fixed, digits := "", 0
	for _, t := range s.tokens[slash+1:] {
		switch {
		case t.kind == '0' || t.kind == '#' || t.kind == '?':
			digits++
		case t.kind == 'L' && strings.Trim(t.text, "0123456789") == "":
			fixed += t.text
		}
	}
	// Digits before the slash that a blank parts from others are the whole number.
	parted, seen := false, false
	for _, t := range s.tokens[:slash] {
		switch {
		case t.kind == 'L' && strings.TrimSpace(t.text) == "":
			parted = parted || seen
		case t.kind == '0' || t.kind == '#' || t.kind == '?':
			seen = true
		}
	}
	whole, part := 0.0, v
	if parted {
		whole, part = math.Modf(v)
	}
	num, den := 0, 1
	if d, err := strconv.Atoi(fixed); err == nil && d > 0 {
		den = d
		num = int(math.Round(part * float64(d)))
	} else {
		best := math.Inf(1)
		for d := 1; d < int(math.Pow10(min(max(digits, 1), 3))); d++ {
			n := math.Round(part * float64(d))
			if e := math.Abs(part - n/float64(d)); e < best-1e-12 {
				best, num, den = e, int(n), d
			}
		}
	}
	if num == den && parted {
		whole, num = whole+1, 0
	}
	w := strconv.FormatFloat(whole, 'f', 0, 64)
	f := strconv.Itoa(num) + "/" + strconv.Itoa(den)
	switch {
	case !parted:
		return f
	case num == 0:
		return w
	case whole == 0:
		return f
	}
	return w + " " + f
}

// time returns v, days since the epoch, as a date. It reports false for what
// is no date that Excel knows.
func (s *xlsxSection) time(v float64, epoch1904 bool) (string, bool) {
	elapsed := false
	decimals := 0
	half := false
	for _, t := range s.tokens {
		elapsed = elapsed || t.kind == '['
		half = half || t.kind == 'a'
		if t.kind == 'f' {
			decimals = min(len(t.text), 3)
		}
	}
	if v < 0 && !elapsed || math.Abs(v) >= 2958466 {
		return "", false
	}
	unit := time.Second
	for range decimals {
		unit /= 10
	}
	days, frac := math.Modf(v)
	clock := time.Duration(math.Round(frac*86400*1e6) * 1e3).Round(unit)
	epoch := time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)
	switch {
	case epoch1904:
		epoch = time.Date(1904, 1, 1, 0, 0, 0, 0, time.UTC)
	case days < 60:
		epoch = epoch.AddDate(0, 0, 1) // the day after 28 February 1900 is the 29th, to Excel
	}
	t := epoch.AddDate(0, 0, int(days)).Add(clock)
	total := time.Duration(days)*24*time.Hour + clock
	if total < 0 {
		total = -total
	}
	hour := t.Hour()
	if half {
		if hour %= 12; hour == 0 {
			hour = 12
		}
	}
	pad := func(n, width int) string {
		d := strconv.Itoa(n)
		return strings.Repeat("0", max(width-len(d), 0)) + d
	}
	var b strings.Builder
	if v < 0 {
		b.WriteByte('-')
	}
	for _, k := range s.tokens {
		n := len(k.text)
		switch k.kind {
		case 'L':
			b.WriteString(k.text)
		case 'y':
			if n <= 2 {
				b.WriteString(pad(t.Year()%100, 2))
			} else {
				b.WriteString(pad(t.Year(), 4))
			}
		case 'm':
			switch month := t.Month().String(); {
			case n <= 2:
				b.WriteString(pad(int(t.Month()), n))
			case n == 3:
				b.WriteString(month[:3])
			case n == 5:
				b.WriteString(month[:1])
			default:
				b.WriteString(month)
			}
		case 'd':
			switch day := t.Weekday().String(); {
			case n <= 2:
				b.WriteString(pad(t.Day(), n))
			case n == 3:
				b.WriteString(day[:3])
			default:
				b.WriteString(day)
			}
		case 'h':
			b.WriteString(pad(hour, min(n, 2)))
		case 'n':
			b.WriteString(pad(t.Minute(), n))
		case 's':
			b.WriteString(pad(t.Second(), min(n, 2)))
		case 'f':
			b.WriteString("." + pad(t.Nanosecond()/1e6, 3)[:decimals])
		case 'a':
			mark := "AM"
			if t.Hour() >= 12 {
				mark = "PM"
			}
			b.WriteString(mark[:len(k.text)/2])
		case '[':
			div := map[byte]time.Duration{'h': time.Hour, 'm': time.Minute, 's': time.Second}[k.text[0]]
			b.WriteString(pad(int(total/div), n))
		}
	}
	return strings.TrimFunc(b.String(), unicode.IsSpace), true
}

// textOf returns s as the format shows it.
func (f xlsxFormat) textOf(s string) string {
	sec := f[len(f)-1]
	if len(f) < 4 && !sec.isText() {
		return s
	}
	var b strings.Builder
	for _, t := range sec.tokens {
		switch t.kind {
		case 'L':
			b.WriteString(t.text)
		case '@', 'G':
			b.WriteString(s)
		}
	}
	if strings.TrimSpace(b.String()) == "" {
		return s // hidden, as above
	}
	return b.String()
}

func (s *xlsxSection) isText() bool {
	for _, t := range s.tokens {
		if t.kind == '@' {
			return true
		}
	}
	return false
}
