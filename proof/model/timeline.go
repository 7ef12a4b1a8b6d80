package main

import (
	"fmt"
	"strings"
)

// timeline tells what happened in a trail, which spin has replayed, and the
// property that was violated at its end. The model prints a line that begins
// with @ for each step.
func timeline(trail string) (lines []string, failed property) {
	cycle := false
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for line := range strings.Lines(trail) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "START OF CYCLE") && !cycle {
			cycle = true
			say("from here on it goes round for ever:")
		}
		rest, ok := strings.CutPrefix(line, "@ ")
		if !ok {
			continue
		}
		verb, numbers, _ := strings.Cut(rest, " ")
		var v [8]int
		for i, f := range strings.Fields(numbers) {
			if i < len(v) {
				fmt.Sscan(f, &v[i])
			}
		}
		who := fmt.Sprint("worker ", v[0]+1)
		switch verb {
		case "fails":
			failed = property(v[0])
			say("%s does not hold", failed)
			return lines, failed // spin replays the step to its end
		case "event":
			job := ""
			if v[0] > 0 {
				job = fmt.Sprintf(" of job %d", v[0]+1)
			}
			say("    → %s%s: %s → %s, attempt %d of %d, generation %d", signalName(v[1]), job, stageName(v[2]), stageName(v[3]), v[4], v[6], v[5])
		case "claims":
			say("%s claims", who)
		case "looks":
			say("%s looks for what to claim", who)
		case "asks":
			say("%s claims again by the same ID, not having heard", who)
		case "reaches":
			say("%s goes on with the work of %s", who, stageName(v[1]))
		case "writes":
			say("%s writes, and hears the answer", who)
		case "unheard":
			say("%s writes, but the answer is lost", who)
		case "sends":
			say("%s writes; a copy stays under way", who)
		case "arrives":
			say("the copy that was under way arrives")
		case "chunks":
			say("%s commits its chunks, without the stage", who)
		case "ends":
			say("%s is about to end its attempt: %s", who, signalName(v[1]))
		case "stale":
			say("    %s hears that the job moved on without it", who)
		case "refused":
			say("    %s hears that it is to stop", who)
		case "renews":
			say("%s renews its lease", who)
		case "leaves":
			say("%s leaves the job", who)
		case "dies":
			say("%s dies, or gives up", who)
		case "expires":
			say("the lease of job %d runs out", v[0]+1)
		case "person":
			say("a person")
		case "deletes":
			say("a person deletes the document")
		case "tells":
			say("the source tells of generation %d", v[0])
		default:
			say("%s", rest)
		}
	}
	if cycle && strings.HasPrefix(lines[len(lines)-1], "from here on") {
		lines[len(lines)-1] = "and nothing more happens"
	}
	return lines, failed
}
