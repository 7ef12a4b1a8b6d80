/*
 * The life of jobs, as a specification for the model checker spin.
 *
 * It says what package lifecycle, store.Store, store.Attempt, runner.Runner and
 * a driver do with a job, and nothing of how. The table of moves is table.pml,
 * which is generated from the Go code. docs/model.md tells which function and
 * which SQL each step below stands for, and what the model leaves out.
 *
 * There are:
 *   - the database: for each job a row, its log (as the state that the log folds
 *     to, the ghost fold), and its searchable chunks. A transaction is one d_step;
 *   - WORKERS workers. Each holds at most one job: an attempt with a queue of
 *     stage writes that lag behind the work. A worker may stop between any two of
 *     its steps for as long as it likes (SIGSTOP, a slow network), and may crash;
 *   - the network: a write may be lost, or its answer, or a copy of it stays
 *     under way and reaches the database at any later time, when its worker may
 *     long be dead;
 *   - the clock, which may end a lease at any time that the worker did not renew it;
 *   - a person, who cancels, requeues and deletes;
 *   - a source, which tells of generations in any order, any number of times.
 *
 * Each fence of the database and each rule of the store stands in a macro of its
 * own, under "Fences". Compiled with -DNO_…, the model lacks that one. The
 * driver of this folder does so with each and requires that the property named
 * beside it is violated.
 */

#ifndef JOBS
#define JOBS 1
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef GENS
#define GENS 2 /* the source tells of generations 1 to GENS */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* lifecycle.Attempts */
#endif
#ifndef LIMIT
#define LIMIT 4 /* a requeue or release that would raise the limit of attempts beyond is left out */
#endif
#ifndef IDS
#define IDS 1 /* how often the document is made anew after it was deleted, plus one */
#endif
#ifndef NET
#define NET 1 /* answers may be lost, and copies of writes stay under way */
#endif
#ifndef CAP
#define CAP JOBS /* live leases that the user may have: both jobs are one user's */
#endif

#include "table.pml"

/* ---- Properties ---------------------------------------------------------------- */

/* CHECK fails if cond does not hold. With -DONLY=p only the property p is looked at. */
#ifndef ONLY
#define ONLY 0
#endif
#define CHECK(cond, p) if :: (cond) || (ONLY && ONLY != p) :: else -> printf("@ fails %d\n", p); assert(false) fi

#define row_is_fold              1  /* the row says what the log adds up to */
#define log_chain                2  /* an event begins in the stage in which the one before it ended */
#define table_only               3  /* only moves of the table are made */
#define attempt_monotone         4  /* claim and takeover raise the attempt by one, nothing else changes it */
#define generation_grows         5  /* only newer bytes change the generation */
#define cancel_kept              6  /* after a request to cancel only the moves that the table allows are made */
#define stale_changes_nothing    7  /* a worker whose hold has ended changes nothing */
#define one_holder               8  /* never two workers with a valid lease of one job */
#define live_lease_kept          9  /* nobody takes a job from a worker whose lease lives */
#define searchable_iff_completed 10 /* the chunks are those of the last generation that completed */
#define one_generation           11 /* never chunks of two generations, never one twice */
#define cancelled_not_completed  12 /* a job that was cancelled never turns out completed */
#define retry_budget             13 /* no more attempts than the limit */
#define lease_iff_active         14 /* a lease while a worker is at work, and only then */
#define answers_true             15 /* a worker is told that it lost its hold only if it did */
#define duplicate_noop           16 /* an event for known bytes changes nothing */
#define cap_respected            17 /* a claim gives no user more live leases than the cap */
#define every_job_ends           18 /* a system that has come to rest has ended every job */

/* ---- Fences -------------------------------------------------------------------- */

#ifdef NO_JOB_ID          /* the write names the object, not the job */
#define SAME_JOB(jb, x) true
#else
#define SAME_JOB(jb, x) (row[jb].id == x)
#endif
#ifdef NO_ATTEMPT_FENCE
#define SAME_ATTEMPT(jb, a) true
#else
#define SAME_ATTEMPT(jb, a) (row[jb].attempt == a)
#endif
#ifdef NO_STAGE_CAS
#define SAME_STAGE(jb, s) true
#else
#define SAME_STAGE(jb, s) (row[jb].stage == s)
#endif
#ifdef NO_GENERATION_FENCE
#define SAME_GENERATION(jb, g) true
#else
#define SAME_GENERATION(jb, g) (row[jb].gen == g)
#endif
#ifdef NO_CANCEL_REFUSAL
#define CANCEL_REFUSES(jb, on) false
#else
#define CANCEL_REFUSES(jb, on) (REFUSED_BY_CANCEL(on) && row[jb].cancel)
#endif
#ifdef NO_EVENT_ID        /* a repetition is not recognised */
#define IN_LOG(x) false
#else
#define IN_LOG(x) (x)
#endif
#ifdef NO_TABLE_CHECK
#define DATABASE_ALLOWS(s, t, on) true
#else
#define DATABASE_ALLOWS(s, t, on) LEGAL(s, t, on)
#endif
#ifdef NO_EXPIRED_CHECK
#define LOST(jb) (row[jb].lease != Free)
#else
#define LOST(jb) (row[jb].lease == Expired)
#endif
#ifdef NO_OLDER_IGNORED
#define NEWER(jb, g) (g != row[jb].gen)
#else
#define NEWER(jb, g) (g > row[jb].gen)
#endif
#ifdef NO_RENEW_FENCE     /* any worker may renew */
#define MAY_RENEW(jb, x, a) (row[jb].id && ACTIVE(row[jb].stage))
#else
#define MAY_RENEW(jb, x, a) (row[jb].id == x && row[jb].attempt == a && ACTIVE(row[jb].stage))
#endif
#ifdef NO_CAP
#define ROOM true
#else
#define ROOM (LIVES < CAP)
#endif

/* ---- State --------------------------------------------------------------------- */

/* A lease. */
#define Free    0
#define Live    1
#define Expired 2

typedef Row {
	byte id;      /* of the job: 0 if there is none, and another after each deletion */
	byte stage;
	byte attempt;
	byte limit;
	byte gen;
	byte lease;
	bit cancel;   /* cancellation was requested */
	byte chunks[GENS + 1] /* how often the chunks of each generation are searchable */
};

/* What the log says: lifecycle.State. */
typedef Fold {
	byte stage;
	byte attempt;
	byte limit;
	byte gen;
	bit cancel;
	byte searchable; /* the generation, or 0 */
	bit stopped      /* a person stopped it, and nobody asked for it again */
};

/* What a worker is doing. */
#define Idle   0
#define Asking 1 /* its claim is committed, but it did not hear so */
#define Work   2
#define Ending 3

/* Why a hold was lost. */
#define Kept   0
#define Gone   1 /* rag.ErrStale */
#define Asked  2 /* rag.ErrCancelRequested */

/*
 * store.Attempt. Its stage writes run from the stage that the database has
 * confirmed to the one that the work has reached, so these two say all there is
 * to say of the queue. The writes up to inlog are in the log: a write has one ID,
 * however often it is sent.
 */
typedef Hold {
	byte doing;
	byte job;
	byte id;
	byte attempt;
	byte gen;
	bit last;       /* no attempt is left after this one */
	byte reached;
	byte confirmed;
	byte inlog;
	byte ends;      /* the signal that ends the attempt, while Ending */
	bit endlog;     /* it is in the log */
	byte lost;
	bit valid       /* ghost: the hold has not ended */
};

/* A copy of a write that is still under way: up to three moves, and the end. */
typedef Copy {
	bit sent;
	byte who;
	bit own;        /* its worker still has that attempt; otherwise what follows of it counts */
	byte job;
	byte id;
	byte attempt;
	byte gen;
	byte first;     /* the stage in which it begins */
	byte upto;      /* the stage to which its moves lead */
	byte ends;
	byte inlog;
	bit endlog;
	bit valid
};

Row row[JOBS];
Fold fold[JOBS];
Hold hold[WORKERS];
Copy net;
#if IDS > 1
byte ids[JOBS];     /* how many jobs were made */
#endif
#ifdef NO_CLAIM_LOCK
byte seen[WORKERS]; /* 1 + what a claim has decided to do with job 0 */
#endif
#ifdef NO_ATOMIC_FINISH
bit half[WORKERS];  /* the chunks are committed, the stage is not */
#endif

/*
 * For safety, faults may come at any time and as often as they like. For
 * liveness there are at most FAULTS faults and DEMANDS demands.
 */
#ifdef FAULTS
byte faults = FAULTS, demands = DEMANDS;
#define FAULT    (faults > 0)
#define FAULTY   faults--
#define DEMAND   (demands > 0)
#define DEMANDED demands--
#else
#define FAULT    true
#define FAULTY   skip
#define DEMAND   true
#define DEMANDED skip
#endif

#ifdef TRACE
#include "trace.pml"
#else
#define GOES_ON true
#define RECORD skip
#endif

/* Values that live within one d_step: they are no part of the state. */
hidden byte res, sig, from, to, att, gen, lim, i, n, k;

/* The answers of the database, in res. */
#define Made    1
#define Stale   2
#define Refused 3

/* ---- The database -------------------------------------------------------------- */

#define PRESENT(jb) (row[jb].id > 0)
#define ENDED(jb)   (row[jb].id == 0 || row[jb].stage >= Completed)

/* LIVES is how many live leases the user has. */
#if JOBS > 1
#define LIVES ((row[0].lease == Live -> 1 : 0) + (row[1].lease == Live -> 1 : 0))
#else
#define LIVES (row[0].lease == Live -> 1 : 0)
#endif

/* inv checks what must hold of job j at every moment, for every reader: store.Check. */
inline inv(jb) {
	CHECK(row[jb].stage == fold[jb].stage && row[jb].attempt == fold[jb].attempt && row[jb].limit == fold[jb].limit &&
		row[jb].gen == fold[jb].gen && row[jb].cancel == fold[jb].cancel, row_is_fold);
	CHECK((row[jb].lease != Free) == ACTIVE(row[jb].stage), lease_iff_active);
	CHECK(row[jb].attempt <= row[jb].limit, retry_budget);
	n = 0; i = 1;
	do
	:: i <= GENS ->
		n = n + row[jb].chunks[i];
		CHECK(fold[jb].searchable != i || row[jb].chunks[i] > 0, searchable_iff_completed);
		CHECK(fold[jb].searchable > 0 || row[jb].chunks[i] == 0, searchable_iff_completed);
		i++
	:: else -> break
	od;
	CHECK(n <= 1, one_generation);
	CHECK(row[jb].stage != Completed || fold[jb].searchable == row[jb].gen, searchable_iff_completed)
}

/* append writes an event and checks it as lifecycle.Fold does. att, gen and lim are what holds after it. */
inline append(jb, on) {
	RECORD;
	CHECK(from == fold[jb].stage, log_chain);
	CHECK(LEGAL(from, to, on), table_only);
	CHECK(att == fold[jb].attempt + (TAKES_LEASE(on) -> 1 : 0), attempt_monotone);
	CHECK(on == Enqueue || (on == Supersede && gen > fold[jb].gen) || (on != Supersede && gen == fold[jb].gen), generation_grows);
	CHECK(!(fold[jb].cancel && REFUSED_BY_CANCEL(on)), cancel_kept);
	CHECK(!(fold[jb].stopped && on == Stored), cancelled_not_completed);
	fold[jb].stage = to;
	fold[jb].attempt = att;
	fold[jb].limit = lim;
	fold[jb].gen = gen;
	if
	:: on == Stored -> fold[jb].searchable = gen
	:: on == RequestCancel -> fold[jb].cancel = 1; fold[jb].stopped = 1
	:: on == Cancel -> fold[jb].stopped = 1
	:: on == Requeue || on == Supersede -> fold[jb].stopped = 0
	:: else
	fi;
	if
	:: CLEARS_CANCEL(on, to) -> fold[jb].cancel = 0
	:: else
	fi
}

/* endholds notes that whoever holds job j holds it no longer. */
inline endholds(jb) {
	i = 0;
	do
	:: i < WORKERS ->
		if
		:: hold[i].job == jb -> hold[i].valid = 0
		:: else
		fi;
		i++
	:: else -> break
	od;
	if
	:: net.job == jb -> net.valid = 0
	:: else
	fi
}

/*
 * write makes the move from the stage from that no fence refused: the row and
 * its event in one transaction. att, gen and lim are what holds after it.
 */
inline write(jb, on) {
	to = TO(from, on);
	printf("@ event %d %d %d %d %d %d %d\n", jb, on, from, to, att, gen, lim);
	row[jb].stage = to;
	row[jb].attempt = att;
	row[jb].limit = lim;
	row[jb].gen = gen;
	if
	:: TAKES_LEASE(on) -> row[jb].lease = Live
	:: on == RequestCancel -> row[jb].cancel = 1
	:: KEEPS_LEASE(on, to) && on != RequestCancel -> row[jb].lease = Live
#ifndef NO_LEASE_END
	:: !KEEPS_LEASE(on, to) && !TAKES_LEASE(on) -> row[jb].lease = Free
#endif
	:: else
	fi;
	if
	:: CLEARS_CANCEL(on, to) -> row[jb].cancel = 0
	:: else
	fi;
	if
	:: !KEEPS_LEASE(on, to) -> endholds(jb)
	:: else
	fi;
#ifndef NO_ATOMIC_LOG
	append(jb, on);
#endif
	inv(jb)
}

/* same prepares a move of j that changes neither attempt, generation nor limit. */
inline same(jb) {
	from = row[jb].stage; att = row[jb].attempt; gen = row[jb].gen; lim = row[jb].limit
}

/* replace makes the chunks of generation xgen the document's. */
inline replace(jb, xgen) {
#ifndef NO_REPLACE
	i = 1;
	do
	:: i <= GENS -> row[jb].chunks[i] = 0; i++
	:: else -> break
	od;
#endif
	row[jb].chunks[xgen]++
}

#define FENCED(jb, x, a, g) (PRESENT(jb) && SAME_JOB(jb, x) && SAME_ATTEMPT(jb, a) && SAME_STAGE(jb, from) && SAME_GENERATION(jb, g))

/*
 * apply is Driver.Apply and Driver.Finish for one transition of a worker, from
 * the stage from, for the job x, the attempt a and the generation g. ok is the
 * ghost's view of its hold. The answer is in res.
 */
inline apply(jb, xid, xatt, xgen, on, ok) {
	to = TO(from, on);
	if
	:: !FENCED(jb, xid, xatt, xgen) || !DATABASE_ALLOWS(from, to, on) -> res = Stale
	:: else ->
		if
		:: CANCEL_REFUSES(jb, on) -> res = Refused
		:: else ->
			CHECK(ok, stale_changes_nothing);
			att = xatt;
			gen = xgen;
			lim = (on == Release -> row[jb].limit + 1 : row[jb].limit);
#ifndef NO_ATOMIC_FINISH
			if
			:: on == Stored -> replace(jb, xgen)
			:: else
			fi;
#endif
			write(jb, on);
			res = Made
		fi
	fi
}

/* ---- Workers ------------------------------------------------------------------- */

#define H hold[w]

/* DONE is the signal by which the work of a stage ends. */
#define DONE(s) (s == Downloading -> Downloaded : (s == Processing -> Processed : (s == Embedding -> Embedded : Stored)))

/*
 * decide chooses what a claim does with job j: the function in Store.Claim.
 * CLAIMABLE says that there is something to do: the job is due or lost, and if
 * it would get a lease, then its user may have one.
 */
#define EXHAUSTED(jb) (row[jb].attempt >= row[jb].limit)
#if defined(NO_TAKEOVER)
#define TO_TAKE(jb)   false
#elif defined(NO_CANCEL_BY_CLAIM)
#define TO_TAKE(jb)   (!row[jb].cancel && (EXHAUSTED(jb) || ROOM))
#else
#define TO_TAKE(jb)   (row[jb].cancel || EXHAUSTED(jb) || ROOM)
#endif
#define CLAIMABLE(jb) (PRESENT(jb) && (row[jb].stage == Pending -> ROOM : ACTIVE(row[jb].stage) && LOST(jb) && TO_TAKE(jb)))

inline decide(jb) {
	if
	:: row[jb].stage == Pending -> sig = Claim
	:: row[jb].stage != Pending && row[jb].cancel -> sig = Cancel
#ifdef NO_ATTEMPT_LIMIT
	:: else -> sig = Takeover
#else
	:: else -> sig = (EXHAUSTED(jb) -> Expire : Takeover)
#endif
	fi
}

/* holders sets n to the number of those whose hold of job j has not ended. */
inline holders(jb) {
	n = (net.sent && !net.own && net.valid && net.job == jb -> 1 : 0);
	i = 0;
	do
	:: i < WORKERS ->
		n = n + (hold[i].valid && hold[i].job == jb -> 1 : 0);
		i++
	:: else -> break
	od
}

/*
 * take does with job j what was decided: Driver.Claim for one job, under the
 * row's lock. A claim of several jobs is several of these in one transaction.
 */
inline take(w, jb) {
	printf("@ claims %d\n", w);
	holders(jb);
	CHECK(!(sig == Claim && n > 0), one_holder);
	CHECK(!(NEEDS_EXPIRED(sig) && row[jb].lease == Live), live_lease_kept);
	CHECK(!(TAKES_LEASE(sig) && LIVES >= CAP), cap_respected);
	same(jb);
	att = att + (TAKES_LEASE(sig) -> 1 : 0);
	endholds(jb);
	write(jb, sig);
	if
	:: TAKES_LEASE(sig) ->
		H.doing = Work; H.job = jb; H.id = row[jb].id; H.attempt = att; H.gen = gen; H.valid = 1;
#ifndef NO_ATTEMPT_LIMIT
		H.last = (att >= lim);
#endif
		H.reached = Downloading; H.confirmed = Downloading; H.inlog = Downloading
	:: else
	fi
}

/* leave makes worker w idle. A copy of its write goes on without it. */
inline leave(w) {
	if
	:: net.sent && net.own && net.who == w ->
		net.own = 0; net.who = 0; net.inlog = H.inlog; net.endlog = H.endlog; net.valid = H.valid
	:: else
	fi;
	H.doing = Idle; H.job = 0; H.id = 0; H.attempt = 0; H.gen = 0; H.last = 0; H.reached = 0; H.confirmed = 0; H.inlog = 0;
	H.ends = 0; H.endlog = 0; H.lost = Kept; H.valid = 0
#ifdef NO_ATOMIC_FINISH
	; half[w] = 0
#endif
}

/* heard takes in that a write or a sign of life was answered with Stale or Refused: Attempt.lose. */
inline heard(w) {
	if
	:: res == Stale ->
		printf("@ stale %d\n", w);
		CHECK(!H.valid && !H.endlog, answers_true);
		H.lost = Gone
	:: res == Refused ->
		printf("@ refused %d\n", w);
		H.lost = Asked
	:: else
	fi
}

/* moves writes up to k of the queued moves of w that are not yet in the log, in one commit. */
inline moves(w) {
	res = Made;
	do
	:: res == Made && H.inlog < H.reached && k > 0 ->
		sig = DONE(H.inlog); from = H.inlog;
		apply(H.job, H.id, H.attempt, H.gen, sig, H.valid);
		H.inlog = H.inlog + (res == Made -> 1 : 0);
		k--
	:: else -> break
	od
}

/* ending writes the end of the attempt of w, from the given stage. */
inline ending(w, s) {
	sig = H.ends; from = s;
	apply(H.job, H.id, H.attempt, H.gen, sig, H.valid);
	H.endlog = (res == Made)
}

/* send leaves a copy of a write of w under way: k of its moves, and its end if e. */
inline send(w, e) {
	printf("@ sends %d %d %d\n", w, k, e);
	net.sent = 1; net.own = 1; net.who = w; net.job = H.job; net.id = H.id; net.attempt = H.attempt; net.gen = H.gen;
	net.first = H.confirmed;
	net.upto = (H.confirmed + k > H.reached -> H.reached : H.confirmed + k);
	net.ends = (e -> H.ends : 0)
}

#define BUSY   ((H.doing == Work || H.doing == Ending) && H.lost == Kept)
#define QUEUED (H.confirmed < H.reached)
#define HOLDS  (MAY_RENEW(H.job, H.id, H.attempt))

#ifdef NO_SETTLE          /* the last write does not wait for those before it */
#define SETTLED   true
#define LAST_FROM H.reached
#else
#define SETTLED   !QUEUED
#define LAST_FROM H.confirmed
#endif

#ifdef NO_ATOMIC_FINISH
#define READY (H.ends != Stored || half[w])
#else
#define READY true
#endif

/* What a renewal would tell worker w: something new, or the lease had run out. */
#define NEWS (!HOLDS || row[H.job].lease == Expired || row[H.job].cancel && !(H.doing == Ending && H.ends == Cancel))

proctype worker(byte w) {
end:	do
	/* Claim: Store.Claim. */
#ifdef NO_CLAIM_LOCK      /* what to do is read in one transaction and written in another */
	:: d_step { GOES_ON && H.doing == Idle && seen[w] == 0 && CLAIMABLE(0) -> decide(0); seen[w] = 1 + sig; printf("@ looks %d\n", w) }
	:: d_step { GOES_ON && H.doing == Idle && seen[w] > 0 -> sig = seen[w] - 1; seen[w] = 0; take(w, 0) }
#else
	:: d_step { GOES_ON && H.doing == Idle && CLAIMABLE(0) -> decide(0); take(w, 0) }
#if JOBS > 1
	:: d_step { GOES_ON && H.doing == Idle && CLAIMABLE(1) -> decide(1); take(w, 1) }
#endif
#endif
#if NET
	/* The answer is lost. The claim repeated, by its ID, gives the same job if it has not moved since. */
	:: d_step { FAULT && H.doing == Work && !QUEUED && H.confirmed == Downloading && H.lost == Kept && !(net.sent && net.own && net.who == w) ->
		FAULTY; printf("@ unheard %d\n", w); H.doing = Asking }
	:: d_step { H.doing == Asking ->
		printf("@ asks %d\n", w);
		if
		:: HOLDS && !row[H.job].cancel ->
			CHECK(H.valid, stale_changes_nothing);
			row[H.job].lease = Live;
			H.doing = Work
		:: else -> leave(w)
		fi }
#endif

	/* The work goes on, beside the writes: Attempt.Advance and Proceed. */
	:: d_step { GOES_ON && H.doing == Work && H.lost == Kept && H.reached < Storing -> H.reached++; printf("@ reaches %d %d\n", w, H.reached) }

	/* The first of the queued writes is answered: Attempt.drain. It may have been made before. */
	:: d_step { GOES_ON && BUSY && QUEUED ->
		printf("@ writes %d\n", w);
		if
		:: IN_LOG(H.inlog > H.confirmed) -> res = Made
		:: else ->
			sig = DONE(H.confirmed); from = H.confirmed;
			apply(H.job, H.id, H.attempt, H.gen, sig, H.valid);
			H.inlog = H.inlog + (res == Made -> 1 : 0)
		fi;
		H.confirmed = H.confirmed + (res == Made -> 1 : 0);
		heard(w) }

	/* How the work ended: runner.one and giveUp. */
	:: d_step { GOES_ON && H.doing == Work && H.lost == Kept && H.reached == Storing -> H.doing = Ending; H.ends = Stored; printf("@ ends %d %d\n", w, H.ends) }
	:: d_step { GOES_ON && FAULT && H.doing == Work && H.lost == Kept && !H.last -> FAULTY; H.doing = Ending; H.ends = Retry; printf("@ ends %d %d\n", w, H.ends) }
	:: d_step { GOES_ON && FAULT && H.doing == Work && H.lost == Kept -> FAULTY; H.doing = Ending; H.ends = Fail; printf("@ ends %d %d\n", w, H.ends) }
	:: d_step { GOES_ON && FAULT && H.doing == Work && H.lost == Kept && row[H.job].limit < LIMIT -> FAULTY; H.doing = Ending; H.ends = Release; printf("@ ends %d %d\n", w, H.ends) }
	/* The database refuses the chunks for good: the job is failed instead. */
	:: d_step { GOES_ON && FAULT && BUSY && H.ends == Stored && !H.endlog && !(net.sent && net.own && net.who == w && net.ends) ->
		FAULTY; H.ends = Fail; printf("@ ends %d %d\n", w, H.ends) }

	/* The last write: Attempt.end. */
#ifdef NO_ATOMIC_FINISH
	:: d_step { BUSY && H.doing == Ending && SETTLED && !READY ->
		from = LAST_FROM;
		if
		:: FENCED(H.job, H.id, H.attempt, H.gen) && !CANCEL_REFUSES(H.job, Stored) ->
			printf("@ chunks %d\n", w); replace(H.job, H.gen); inv(H.job)
		:: else
		fi;
		half[w] = 1 }
#endif
	:: d_step { GOES_ON && BUSY && H.doing == Ending && SETTLED && READY ->
		printf("@ writes %d\n", w);
		if
		:: IN_LOG(H.endlog) -> res = Made
		:: else -> ending(w, LAST_FROM)
		fi;
		if
		:: res == Made -> leave(w)
		:: else -> heard(w)
		fi }

	/* The hold was lost. A request to cancel is acknowledged, from where the log stands: Attempt.AcknowledgeCancel. */
	:: d_step { GOES_ON && H.lost == Asked ->
		H.doing = Ending; H.ends = Cancel; H.lost = Kept;
#ifndef NO_CANCEL_SETTLE
		H.confirmed = H.inlog;
#endif
		H.reached = H.confirmed;
		printf("@ ends %d %d\n", w, H.ends) }
	:: d_step { GOES_ON && H.lost == Gone -> leave(w); printf("@ leaves %d\n", w) }

	/* A sign of life: Store.Beat and Driver.Renew. */
	:: d_step { GOES_ON && BUSY && NEWS ->
		printf("@ renews %d\n", w);
		if
		:: HOLDS ->
			CHECK(H.valid, stale_changes_nothing);
			row[H.job].lease = Live;
			res = (row[H.job].cancel && !(H.doing == Ending && H.ends == Cancel) -> Refused : Made)
		:: else -> res = Stale
		fi;
		/* The end may be in the log already, unheard. */
		if
		:: res == Stale && H.endlog -> H.lost = Gone
		:: else -> heard(w)
		fi }

	/* It dies, or gives up at the end of its time. */
	:: d_step { GOES_ON && FAULT && H.doing != Idle -> FAULTY; leave(w); printf("@ dies %d\n", w) }

#if NET
	/* The answer to a commit is lost: to one move, to all, to the end, or to all with the end. */
	:: d_step { FAULT && BUSY && H.inlog < H.reached -> FAULTY; printf("@ unheard %d\n", w); k = 1; moves(w); k = 0 }
	:: d_step { FAULT && BUSY && H.inlog + 1 < H.reached -> FAULTY; printf("@ unheard %d\n", w); k = 3; moves(w); k = 0 }
	:: d_step { FAULT && BUSY && H.doing == Ending && READY && !H.endlog ->
		FAULTY; printf("@ unheard %d\n", w); k = 3; moves(w);
		if
		:: res == Made -> ending(w, H.reached)
		:: else
		fi }

	/* A copy stays under way. */
	:: d_step { FAULT && BUSY && QUEUED && !net.sent -> FAULTY; k = 1; send(w, false) }
	:: d_step { FAULT && BUSY && H.confirmed + 1 < H.reached && !net.sent -> FAULTY; k = 3; send(w, false) }
	:: d_step { FAULT && BUSY && H.doing == Ending && READY && !net.sent -> FAULTY; k = 3; send(w, true) }
#endif

#ifndef FAULTS
	/* A program that has lost its way: it claims to be done with everything. The database knows better. */
	:: d_step { GOES_ON && BUSY && !QUEUED && H.doing == Work && H.confirmed < Storing &&
		DATABASE_ALLOWS(H.confirmed, Completed, Stored) ->
		from = H.confirmed; apply(H.job, H.id, H.attempt, H.gen, Stored, H.valid) }
#endif
	od
}

/* ---- The rest of the world ----------------------------------------------------- */

/* network delivers the copy that is under way. Nobody hears the answer. */
proctype network() {
end:	do
	:: d_step { net.sent ->
		printf("@ arrives\n");
		if
		:: net.own -> net.inlog = hold[net.who].inlog; net.endlog = hold[net.who].endlog; net.valid = hold[net.who].valid
		:: else
		fi;
		res = Made; k = net.first;
		do
		:: res == Made && k < net.upto ->
			if
			:: IN_LOG(net.inlog > k)
			:: else ->
				sig = DONE(k); from = k;
				apply(net.job, net.id, net.attempt, net.gen, sig, net.valid);
				net.inlog = (res == Made -> k + 1 : net.inlog)
			fi;
			k++
		:: else -> break
		od;
		if
		:: res == Made && net.ends && !IN_LOG(net.endlog) ->
			sig = net.ends; from = net.upto;
			apply(net.job, net.id, net.attempt, net.gen, sig, net.valid);
			net.endlog = (res == Made)
		:: else
		fi;
		if
		:: net.own -> hold[net.who].inlog = net.inlog; hold[net.who].endlog = net.endlog
		:: else
		fi;
		net.sent = 0; net.own = 0; net.who = 0; net.job = 0; net.id = 0; net.attempt = 0; net.gen = 0; net.first = 0; net.upto = 0;
		net.ends = 0; net.inlog = 0; net.endlog = 0; net.valid = 0 }
	od
}

/* RENEWED: a worker is there that will renew the lease of job j. */
#define RENEWS(jb, w) (hold[w].doing >= Work && hold[w].lost == Kept && hold[w].job == jb && hold[w].id == row[jb].id && hold[w].attempt == row[jb].attempt)
#define RENEWED(jb)   (RENEWS(jb, 0) || RENEWS(jb, 1))

/* clock ends leases. That a worker who is there does not renew in time is a fault. */
proctype clock() {
end:	do
	:: d_step { GOES_ON && row[0].lease == Live && !RENEWED(0) -> row[0].lease = Expired; printf("@ expires 0\n") }
	:: d_step { GOES_ON && FAULT && row[0].lease == Live && RENEWED(0) -> FAULTY; row[0].lease = Expired; printf("@ expires 0\n") }
#if JOBS > 1
	:: d_step { row[1].lease == Live && !RENEWED(1) -> row[1].lease = Expired; printf("@ expires 1\n") }
	:: d_step { FAULT && row[1].lease == Live && RENEWED(1) -> FAULTY; row[1].lease = Expired; printf("@ expires 1\n") }
#endif
	od
}

/* person cancels, asks again and deletes: Store.Cancel, Requeue and Delete. */
proctype person(byte jb) {
end:	do
	:: d_step { GOES_ON && DEMAND && PRESENT(jb) && ACTIVE(row[jb].stage) && !row[jb].cancel ->
		DEMANDED; printf("@ person\n"); same(jb); write(jb, RequestCancel) }
	:: d_step { GOES_ON && DEMAND && PRESENT(jb) && row[jb].stage == Pending ->
		DEMANDED; printf("@ person\n"); same(jb); write(jb, Cancel) }
	:: d_step { GOES_ON && DEMAND && PRESENT(jb) && ENDED(jb) && row[jb].attempt + ATTEMPTS <= LIMIT ->
		DEMANDED; printf("@ person\n"); same(jb); lim = att + ATTEMPTS; write(jb, Requeue) }
#if IDS > 1
	:: d_step { DEMAND && PRESENT(jb) && ids[jb] < IDS ->
		DEMANDED; printf("@ deletes %d\n", jb);
		endholds(jb);
		i = 1;
		do
		:: i <= GENS -> row[jb].chunks[i] = 0; i++
		:: else -> break
		od;
		row[jb].id = 0; row[jb].stage = None; row[jb].attempt = 0; row[jb].limit = 0; row[jb].gen = 0; row[jb].lease = Free; row[jb].cancel = 0;
		fold[jb].stage = None; fold[jb].attempt = 0; fold[jb].limit = 0; fold[jb].gen = 0; fold[jb].cancel = 0; fold[jb].searchable = 0; fold[jb].stopped = 0 }
#endif
	od
}

/* source tells of generation g of the bytes of job j, any number of times: Store.Enqueue. */
proctype source(byte jb; byte g) {
end:	do
#ifdef TRACE
	:: d_step { GOES_ON && TOLD != g -> g = TOLD }
#endif
	:: d_step { GOES_ON && DEMAND && !PRESENT(jb) ->
		DEMANDED; printf("@ tells %d\n", g);
#if IDS > 1
		ids[jb]++; row[jb].id = ids[jb];
#else
		row[jb].id = 1;
#endif
		from = None; att = 0; gen = g; lim = ATTEMPTS;
		write(jb, Enqueue) }
	:: d_step { GOES_ON && DEMAND && PRESENT(jb) && NEWER(jb, g) ->
		DEMANDED; printf("@ tells %d\n", g); same(jb); gen = g; lim = att + ATTEMPTS; write(jb, Supersede) }
#ifdef NO_DUPLICATE_IGNORED
	:: d_step { DEMAND && PRESENT(jb) && g == row[jb].gen && ENDED(jb) && row[jb].attempt + ATTEMPTS <= LIMIT ->
		DEMANDED; printf("@ tells %d\n", g); same(jb); CHECK(false, duplicate_noop); lim = att + ATTEMPTS; write(jb, Requeue) }
#endif
	od
}

#if JOBS > 1
#define ALL_ENDED (ENDED(0) && ENDED(1))
#else
#define ALL_ENDED ENDED(0)
#endif

#ifdef LIVENESS
/* Every job ends, and a request to cancel is answered. */
ltl ends    { <>[] ALL_ENDED }
ltl answers { [] (row[0].cancel -> <> !row[0].cancel) }

/* time goes on when nothing else does. Without it a run that comes to rest would have no end to judge. */
active proctype time() {
	do
	:: faults <= FAULTS
	od
}
#else
#ifndef TRACE
/* rest looks at what is left when nothing can happen any more. */
active proctype rest() {
	timeout;
	CHECK(ALL_ENDED, every_job_ends)
}
#endif
#endif

init {
	byte a, b;
	atomic {
#ifdef TRACE
		CHOOSE;
#endif
		do
		:: a < WORKERS -> run worker(a); a++
		:: else -> break
		od;
		run clock();
#if NET
		run network();
#endif
		a = 0;
		do
		:: a < JOBS ->
			run person(a);
#ifdef TRACE
			run source(a, 0);
#else
			b = 1;
			do
			:: b <= GENS -> run source(a, b); b++
			:: else -> break
			od;
#endif
			a++
		:: else -> break
		od;
		a = 0; b = 0
	}
}
