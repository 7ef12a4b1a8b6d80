/*
 * With -DTRACE the model replays logs: it goes on only while the events that it
 * writes are those of one log. A log of which it can write the whole is one that
 * the model allows.
 *
 * The logs are read from the file that MODEL_TRACES names: how many there are,
 * and for each the number of its events and, for each event, signal, from, to,
 * attempt, generation, limit of attempts and worker. When the search ends, the file that
 * MODEL_VERDICTS names has, for each log, how many of its events could be written.
 */

c_decl {

	typedef struct Line { int on, from, to, attempt, gen, limit, worker; } Line;
	typedef struct Log { int n, best; Line *line; } Log;
	static Log *logs;
	static int nlogs;
}

c_code {
	static void verdicts(void)
	{	FILE *f = fopen(getenv("MODEL_VERDICTS"), "w");
		int i;
		for (i = 0; f && i < nlogs; i++)
			fprintf(f, "%d\n", logs[i].best);
		if (!f || fclose(f)) perror("MODEL_VERDICTS");
	}

	static void readlogs(void)
	{	FILE *f;
		int i, k;
		if (logs) return;
		f = fopen(getenv("MODEL_TRACES"), "r");
		if (!f || fscanf(f, "%d", &nlogs) != 1) { perror("MODEL_TRACES"); exit(1); }
		logs = calloc(nlogs, sizeof(Log));
		for (i = 0; i < nlogs; i++)
		{	if (fscanf(f, "%d", &logs[i].n) != 1) exit(1);
			logs[i].line = calloc(logs[i].n, sizeof(Line));
			for (k = 0; k < logs[i].n; k++)
			{	Line *l = &logs[i].line[k];
				if (fscanf(f, "%d %d %d %d %d %d %d", &l->on, &l->from, &l->to, &l->attempt, &l->gen, &l->limit, &l->worker) != 7) exit(1);
			}
		}
		fclose(f);
		atexit(verdicts);
	}
}

short log;      /* which log is replayed */
short written;  /* how many of its events the model has written */
bit astray;     /* the model wrote another event */
byte who;       /* the worker in the row: of the last claim */
byte nextgen;   /* the generation of the next event */
hidden byte takes;

/* GOES_ON: the model has written nothing but the log so far, and has not yet been seen to write the whole. */
#define GOES_ON (!astray && c_expr { logs[now.log].best < logs[now.log].n })

#define TOLD nextgen

#define CHOOSE \
	c_code { readlogs(); }; \
	do \
	:: c_expr { now.log + 1 < nlogs } -> log++ \
	:: break \
	od; \
	c_code { now.nextgen = logs[now.log].n ? logs[now.log].line[0].gen : 0; }

#define RECORD \
	sig = on; takes = TAKES_LEASE(on); \
	c_code { \
		Log *l = &logs[now.log]; \
		Line *e = &l->line[now.written]; \
		if (now.written == l->n || e->on != sig || e->from != from || e->to != to || e->attempt != att || e->gen != gen || \
			e->limit != lim || (e->worker != now.who && !takes)) \
			now.astray = 1; \
		else { \
			now.who = e->worker; \
			if (++now.written > l->best) l->best = now.written; \
			now.nextgen = now.written < l->n ? l->line[now.written].gen : 0; \
		} \
	}
