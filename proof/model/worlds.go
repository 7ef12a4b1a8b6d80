package main

// A world is a set of bounds within which the model is searched to the end.
type world struct {
	name   string
	says   string
	define []string // of the model
	claim  string   // the formula, for liveness; "" looks at every assertion
}

// The worlds. Each is searched whole: every order of every step within its
// bounds. They are kept apart because together they would be too many.
var (
	faults = world{"faults", "2 workers, 2 attempts; answers lost, copies of writes under way, crashes, pauses, cancels",
		[]string{"NET=1", "GENS=1", "ATTEMPTS=2", "LIMIT=2"}, ""}
	generations = world{"generations", "2 workers, up to 5 attempts; 2 generations in any order, cancels, requeues, releases, crashes, pauses",
		[]string{"NET=0", "GENS=2", "ATTEMPTS=2", "LIMIT=3"}, ""}
	deletion = world{"deletion", "2 workers; the document is deleted at any time and told of again; answers lost, copies under way",
		[]string{"NET=1", "GENS=1", "ATTEMPTS=1", "LIMIT=1", "IDS=2"}, ""}
	twoJobs = world{"two jobs", "2 workers, 2 jobs of one user who may have 1 lease; crashes, pauses, cancels",
		[]string{"NET=0", "GENS=1", "ATTEMPTS=2", "LIMIT=2", "JOBS=2", "CAP=1"}, ""}
	end = world{"end", "every job ends: weak fairness, at most 2 faults and 2 demands",
		[]string{"LIVENESS", "NET=1", "GENS=1", "ATTEMPTS=2", "LIMIT=2", "FAULTS=2", "DEMANDS=2"}, "ends"}
	answer = world{"answer", "every request to cancel is answered: weak fairness, at most 1 fault and 3 demands",
		[]string{"LIVENESS", "NET=1", "GENS=2", "ATTEMPTS=2", "LIMIT=2", "FAULTS=1", "DEMANDS=3"}, "answers"}
	twice = world{"twice", "2 workers, 1 attempt; 2 generations, crashes, pauses, cancels",
		[]string{"NET=0", "GENS=2", "ATTEMPTS=1", "LIMIT=1"}, ""}
	rest = world{"rest", "what is left when nothing more can happen: at most 2 faults and 2 demands",
		[]string{"NET=1", "GENS=1", "ATTEMPTS=2", "LIMIT=2", "FAULTS=2", "DEMANDS=2"}, ""}
)

var worlds = []world{faults, generations, deletion, twoJobs, end, answer}

// property is an assertion of the model, as lifecycle.pml numbers them.
type property int

var properties = []string{
	1: "row_is_fold", "log_chain", "table_only", "attempt_monotone", "generation_grows", "cancel_kept", "stale_changes_nothing",
	"one_holder", "live_lease_kept", "searchable_iff_completed", "one_generation", "cancelled_not_completed", "retry_budget",
	"lease_iff_active", "answers_true", "duplicate_noop", "cap_respected", "every_job_ends",
}

func (p property) String() string {
	if p > 0 && int(p) < len(properties) {
		return properties[p]
	}
	return "none"
}

// A variant is the model without one of its fences. The search must find a
// violation of the property, or, where another fence stands behind the one that
// is missing, none.
type variant struct {
	without  []string // the fences, as the model names them
	world    world
	property string // that must be violated; "" if the fences behind it must hold
	only     string // look at no property but this
}

var variants = []variant{
	// What the database compares before it lets a worker write.
	{[]string{"NO_ATTEMPT_FENCE"}, faults, "stale_changes_nothing", ""},
	{[]string{"NO_STAGE_CAS"}, faults, "stale_changes_nothing", ""},
	{[]string{"NO_STAGE_CAS"}, faults, "log_chain", "log_chain"},
	{[]string{"NO_GENERATION_FENCE"}, generations, "", ""},
	{[]string{"NO_STAGE_CAS", "NO_GENERATION_FENCE"}, generations, "generation_grows", "generation_grows"},
	{[]string{"NO_JOB_ID"}, deletion, "stale_changes_nothing", ""},
	{[]string{"NO_RENEW_FENCE"}, faults, "stale_changes_nothing", ""},
	{[]string{"NO_CANCEL_REFUSAL"}, faults, "cancelled_not_completed", "cancelled_not_completed"},
	{[]string{"NO_TABLE_CHECK"}, faults, "table_only", ""},
	{[]string{"NO_EVENT_ID"}, faults, "answers_true", ""},
	// What is one transaction.
	{[]string{"NO_ATOMIC_LOG"}, faults, "row_is_fold", ""},
	{[]string{"NO_ATOMIC_FINISH"}, faults, "searchable_iff_completed", ""},
	{[]string{"NO_REPLACE"}, twice, "one_generation", ""},
	{[]string{"NO_LEASE_END"}, faults, "lease_iff_active", ""},
	// Claims.
	{[]string{"NO_CLAIM_LOCK"}, faults, "one_holder", "one_holder"},
	{[]string{"NO_EXPIRED_CHECK"}, faults, "live_lease_kept", ""},
	{[]string{"NO_ATTEMPT_LIMIT"}, faults, "retry_budget", ""},
	{[]string{"NO_CAP"}, twoJobs, "cap_respected", ""},
	{[]string{"NO_TAKEOVER"}, rest, "every_job_ends", ""},
	{[]string{"NO_CANCEL_BY_CLAIM"}, rest, "every_job_ends", ""},
	{[]string{"NO_TAKEOVER"}, end, "ends", ""},
	{[]string{"NO_CANCEL_BY_CLAIM"}, answer, "answers", ""},
	// Events.
	{[]string{"NO_OLDER_IGNORED"}, generations, "generation_grows", ""},
	{[]string{"NO_DUPLICATE_IGNORED"}, generations, "duplicate_noop", ""},
	// The worker's own rules.
	{[]string{"NO_SETTLE"}, faults, "answers_true", ""},
	{[]string{"NO_CANCEL_SETTLE"}, faults, "answers_true", ""},
}
