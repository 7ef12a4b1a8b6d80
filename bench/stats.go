package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A sample is a set of measurements of one thing.
type sample []float64

// quantile returns the value below which the share q of s lies, between the
// two nearest measurements in proportion. It returns NaN if s is empty.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func (s sample) median() float64 { return s.quantile(0.5) }

func (s sample) sum() float64 {
	var sum float64
	for _, v := range s {
		sum += v
	}
	return sum
}

// String returns the median with the least and the greatest in parentheses, or
// the value alone if there is one.
func (s sample) String() string {
	switch len(s) {
	case 0:
		return "–"
	case 1:
		return number(s[0])
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median()), number(slices.Min(s)), number(slices.Max(s)))
}

// number returns v to three significant digits, with commas between thousands.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a == 0:
		return "0"
	case a >= 99.95:
		return thousands(int64(math.Round(v)))
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	var parts []string
	for len(s) > 3 {
		parts = append(parts, s[len(s)-3:])
		s = s[:len(s)-3]
	}
	parts = append(parts, s)
	slices.Reverse(parts)
	return sign + strings.Join(parts, ",")
}

// percent returns the share v as a percentage.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	if a := math.Abs(100 * v); a >= 10 {
		return strconv.FormatFloat(100*v, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(100*v, 'f', 2, 64) + " %"
}

// seconds returns d as a number of seconds, milliseconds as one of milliseconds.
func seconds(d time.Duration) float64      { return d.Seconds() }
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// recall returns the share of truth that is in found.
func recall(found, truth []string) float64 {
	if len(truth) == 0 {
		return 1
	}
	hit := 0
	for _, id := range truth {
		if slices.Contains(found, id) {
			hit++
		}
	}
	return float64(hit) / float64(len(truth))
}
