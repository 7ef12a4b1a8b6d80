package explore

// Scenarios are the small worlds. Each is explored whole: within its bound no
// order of events is left out.
var Scenarios = []Scenario{
	{Name: "two jobs, two workers", Jobs: 2, Procs: 2, Workers: 1, Hints: true},
	{Name: "two jobs, two workers, a pause", Jobs: 2, Procs: 2, Workers: 1, Pauses: 1},
	{Name: "two jobs, two workers, a fault", Jobs: 2, Procs: 2, Workers: 1, Faults: 1},
	{Name: "two jobs, two workers, a crash", Jobs: 2, Procs: 2, Workers: 1, Crashes: 1},
	{Name: "two jobs, one worker with two slots", Jobs: 2, Procs: 1, Workers: 2, Hints: true, Faults: 1, Pauses: 1},
	{Name: "one job, pauses beyond the lease", Jobs: 1, Procs: 2, Workers: 1, Pauses: 4},
	{Name: "one job, lost answers and pauses", Jobs: 1, Procs: 2, Workers: 1, Faults: 2, Pauses: 2, Moments: 1},
	{Name: "one job, crash and faults", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Faults: 1, Pauses: 1},
	{Name: "one job, two crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 2, Pauses: 1},
	{Name: "one job, the work stops anywhere", Jobs: 1, Procs: 2, Workers: 1, Work: AnyWork, WorkFaults: 1, Pauses: 2, Crashes: 1},
	{Name: "cancel against pauses", Jobs: 1, Procs: 2, Workers: 1, Work: AnyWork, Hints: true, Pauses: 2, Acts: [][]Act{{{Do: "cancel", Job: "A"}}}},
	{Name: "cancel against faults", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Faults: 1, Pauses: 1, Acts: [][]Act{{{Do: "cancel", Job: "A"}, {Do: "requeue", Job: "A"}}}},
	{Name: "cancel against crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Pauses: 2, Acts: [][]Act{{{Do: "cancel", Job: "A"}, {Do: "requeue", Job: "A"}}}},
	{Name: "events: older, again, newer", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Pauses: 1, Acts: [][]Act{{{Do: "enqueue", Job: "A", Gen: 1}, {Do: "enqueue", Job: "A", Gen: 3}, {Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "newer bytes against faults", Jobs: 1, Procs: 2, Workers: 1, Faults: 1, Pauses: 1, Acts: [][]Act{{{Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "newer bytes against crashes", Jobs: 1, Procs: 2, Workers: 1, Crashes: 1, Pauses: 2, Acts: [][]Act{{{Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "newer bytes against cancel", Jobs: 1, Procs: 2, Workers: 1, Hints: true, Pauses: 1, Acts: [][]Act{{{Do: "cancel", Job: "A"}, {Do: "requeue", Job: "A"}}, {{Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "delete and again", Jobs: 1, Procs: 2, Workers: 1, Faults: 1, Pauses: 2, Acts: [][]Act{{{Do: "delete", Job: "A"}, {Do: "enqueue", Job: "A", Gen: 2}}}},
	{Name: "the whole pipeline with files", Jobs: 1, Procs: 2, Workers: 1, Files: true, Work: AnyWork, Faults: 1, Pauses: 1, Acts: [][]Act{{{Do: "enqueue", Job: "A", Gen: 2}}}},
}
