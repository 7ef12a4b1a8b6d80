package main

import "testing"

func TestTenants(t *testing.T) {
	all, asked := tenants()
	if len(all) != 21 || len(asked) != 3 {
		t.Fatalf("%d tenants and %d asked, want 21 and 3", len(all), len(asked))
	}
	count := map[string]int{}
	const n = 100_000
	for i := range n {
		count[owner(all, float64(i)/n)]++
	}
	for user, want := range map[string]float64{asked[0].user: 0.6, asked[1].user: 0.05, asked[2].user: 0.35 / 19, all[20].user: 0.35 / 19} {
		if got := float64(count[user]) / n; got < want-0.001 || got > want+0.001 {
			t.Errorf("%s owns %v, want %v", user, got, want)
		}
	}
}
