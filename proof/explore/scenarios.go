package explore

// newer is the arrival of newer bytes.
var newer = [][]Act{{{Do: "enqueue", Job: "A", Gen: 2}}}

// again is a cancellation, and a person's wish to have the job run after all.
var again = [][]Act{{{Do: "cancel", Job: "A"}, {Do: "requeue", Job: "A"}}}

// events arrive out of order and twice.
var events = [][]Act{{{Do: "enqueue", Job: "A", Gen: 1}, {Do: "enqueue", Job: "A", Gen: 3}, {Do: "enqueue", Job: "A", Gen: 2}}}

// Scenarios are the small worlds, the largest first. Each is explored whole:
// within its bound no order of events is left out. Those that are Deep are too
// large for that, and looked into as far as a limit goes.
var Scenarios = []Scenario{
	{Name: "delete and again", Jobs: 1, Procs: 2, Workers: 1, Faults: 1, Pauses: 1, Acts: [][]Act{{{Do: "delete", Job: "A"}, {Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "newer bytes against crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Pauses: 1, Acts: newer},
	{Name: "newer bytes against faults", Jobs: 1, Procs: 2, Workers: 1, Faults: 1, Pauses: 1, Acts: newer},
	{Name: "one job, the work stops anywhere", Jobs: 1, Procs: 2, Workers: 1, Work: AnyWork, WorkFaults: 1, Pauses: 1, Crashes: 1},
	{Name: "cancel and again against crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Pauses: 1, Acts: again},
	{Name: "the whole pipeline with files", Jobs: 1, Procs: 2, Workers: 1, Files: true, Work: AnyWork, Pauses: 1, Acts: newer},
	{Name: "newer bytes against cancel", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Acts: [][]Act{again[0], newer[0]}},
	{Name: "one job, two crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 2, Pauses: 1},
	{Name: "one job, crash and faults", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Faults: 1, Pauses: 1},
	{Name: "cancel against faults", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Faults: 1, Pauses: 1, Acts: [][]Act{{{Do: "cancel", Job: "A"}}}},
	{Name: "one job, pauses beyond the lease", Jobs: 1, Procs: 2, Workers: 1, Pauses: 2},
	{Name: "one job, lost answers and a pause", Jobs: 1, Procs: 2, Workers: 1, Faults: 2, Pauses: 1},
	{Name: "cancel against a pause", Jobs: 1, Procs: 2, Workers: 1, Work: AnyWork, Hints: true, Pauses: 1, Acts: [][]Act{{{Do: "cancel", Job: "A"}}}},
	{Name: "cancel and again against faults", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Faults: 1, Acts: again},
	{Name: "one worker with two slots, a fault", Jobs: 2, Procs: 1, Workers: 2, Hints: true, Faults: 1},
	{Name: "two jobs, two workers, a crash", Jobs: 2, Procs: 2, Workers: 1, Crashes: 1},
	{Name: "two jobs, two workers, a fault", Jobs: 2, Procs: 2, Workers: 1, Faults: 1},
	{Name: "the whole pipeline with files, a fault", Jobs: 1, Procs: 2, Workers: 1, Files: true, Work: AnyWork, Faults: 1, Acts: newer},
	{Name: "events: older, again, newer", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Acts: events},
	{Name: "two jobs, two workers", Jobs: 2, Procs: 2, Workers: 1, Hints: true},

	{Name: "two jobs, two workers, a pause", Deep: true, Jobs: 2, Procs: 2, Workers: 1, Pauses: 1},
	{Name: "one job, four pauses", Deep: true, Jobs: 1, Procs: 2, Workers: 1, Pauses: 4},
	{Name: "one job, lost answers, pauses and moments", Deep: true, Jobs: 1, Procs: 2, Workers: 1, Faults: 2, Pauses: 2, Moments: 1},
	{Name: "one worker with two slots, a fault and a pause", Deep: true, Jobs: 2, Procs: 1, Workers: 2, Hints: true, Faults: 1, Pauses: 1},
	{Name: "events: older, again, newer, a pause", Deep: true, Jobs: 1, Procs: 2, Workers: 1, Hints: true, Pauses: 1, Acts: events},
	{Name: "newer bytes against cancel, a pause", Deep: true, Jobs: 1, Procs: 2, Workers: 1, Hints: true, Pauses: 1, Acts: [][]Act{again[0], newer[0]}},
	{Name: "the whole pipeline with files, a fault and a pause", Deep: true, Jobs: 1, Procs: 2, Workers: 1, Files: true, Work: AnyWork, Faults: 1, Pauses: 1, Acts: newer},
}
