package door

import (
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	for _, who := range []string{"stranger", ""} {
		t.Run("who "+who, func(t *testing.T) {
			if Open(who, false) {
				t.Errorf("%q came in", who)
			}
		})
	}
	if !Open("guest", false) {
		t.Error("a guest must wait")
	}
}

func TestWalls(t *testing.T) {
	if Walls(11) || !Walls(3) {
		t.Error("walls")
	}
}

func TestTexts(t *testing.T) {
	if !strings.Contains(Query(), "WHERE") {
		t.Error(Query())
	}
	for _, s := range []string{"REFERENCES", "UNIQUE (house", "slams INTEGER,"} {
		if !strings.Contains(Schema(), s) {
			t.Errorf("no %s in %s", s, Schema())
		}
	}
}
