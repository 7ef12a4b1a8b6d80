package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		s    sample
		q    float64
		want float64
	}{
		{sample{5}, 0.5, 5},
		{sample{5}, 0.95, 5},
		{sample{3, 1, 2}, 0.5, 2},
		{sample{4, 1, 3, 2}, 0.5, 2.5},
		{sample{4, 1, 3, 2}, 0, 1},
		{sample{4, 1, 3, 2}, 1, 4},
		{sample{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}, 0.95, 95},
	} {
		if got := tt.s.quantile(tt.q); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%v.quantile(%v) = %v, want %v", []float64(tt.s), tt.q, got, tt.want)
		}
	}
	if got := (sample{}).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing = %v, want NaN", got)
	}
	s := sample{3, 1, 2}
	s.median()
	if s[0] != 3 {
		t.Errorf("median reordered its sample: %v", []float64(s))
	}
}

func TestSampleString(t *testing.T) {
	for _, tt := range []struct {
		s    sample
		want string
	}{
		{nil, "–"},
		{sample{12.34}, "12.3"},
		{sample{3, 1000.4, 2000}, "1,000 (3.00–2,000)"},
	} {
		if got := tt.s.String(); got != tt.want {
			t.Errorf("%v.String() = %q, want %q", []float64(tt.s), got, tt.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {math.NaN(), "–"}, {math.Inf(1), "–"},
		{0.00123, "0.0012"}, {0.5, "0.5"}, {0.99951, "1.00"}, {1.234, "1.23"}, {9.996, "10.0"},
		{12.34, "12.3"}, {99.96, "100"}, {123.4, "123"}, {999.6, "1,000"}, {1234567, "1,234,567"}, {-1234, "-1,234"},
	} {
		if got := number(tt.v); got != tt.want {
			t.Errorf("number(%v) = %q, want %q", tt.v, got, tt.want)
		}
	}
}

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		want string
	}{{0.9134, "91.3 %"}, {0.00321, "0.32 %"}, {1, "100.0 %"}, {math.NaN(), "–"}} {
		if got := percent(tt.v); got != tt.want {
			t.Errorf("percent(%v) = %q, want %q", tt.v, got, tt.want)
		}
	}
}

func TestRecall(t *testing.T) {
	for _, tt := range []struct {
		found, truth []string
		want         float64
	}{
		{[]string{"a", "b"}, []string{"b", "c"}, 0.5},
		{[]string{"c", "b"}, []string{"b", "c"}, 1},
		{nil, []string{"b"}, 0},
		{[]string{"a"}, nil, 1},
	} {
		if got := recall(tt.found, tt.truth); got != tt.want {
			t.Errorf("recall(%v, %v) = %v, want %v", tt.found, tt.truth, got, tt.want)
		}
	}
}
