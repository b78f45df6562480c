/* The queue of one process, in memory: which messages wait and when each is
due (DESIGN §5). Rebuilt from the names on disk at start, never scanned again:
every operation is O(log n). Messages themselves stay on disk. */
#pragma once

#include "base/str.h"

struct config;
struct ctx;

#define QUEUE_NEVER INT64_MAX

struct queue_entry {
  char id[24];
  struct str queue_name;     /* "" or a named queue */
  int64_t due;               /* wall clock, seconds; QUEUE_NEVER: only when a queue run says so */
  bool active;               /* being delivered now */
  bool run_again;            /* asked for while active */
  bool held;                 /* active, but not being delivered: its files are being written */
  bool frozen;
  bool forced, forced_frozen;/* the run that woke it: -qf, -qff */
  bool first;                /* never tried yet */
  bool timed;                /* before `due` an ordinary queue run finds nothing to do */
  uint32_t touched, seen;    /* of queue_refresh */
  size_t place;              /* in the heap */
  struct queue_entry *next;  /* hash chain */
};

/* Adds a message (or moves one that is there); active ones run again when they are done. */
void queue_add(const char *id, struct str queue_name, int64_t due);
/* The next due message, marked active; NULL: none is due at `now`. */
struct queue_entry *queue_take(int64_t now);
/* Marks a message active without waiting for its time (fresh in memory, -M); NULL: it is active already. */
struct queue_entry *queue_take_now(const char *id, struct str queue_name);
/* The same for one that is not going to be delivered yet: a queue run that comes before queue_put_back counts for it. */
struct queue_entry *queue_hold(const char *id, struct str queue_name, bool frozen);
/* Has it come, but neither its place in the queue nor a delivery yet? */
bool queue_passing(const char *id);
/* After an attempt: due again at `due`, or QUEUE_NEVER (waits for a queue run). Its files must be there. */
void queue_put_back(struct queue_entry *e, int64_t due, bool frozen);
/* Another process has changed the message's files, or removed (`exists` false) or made them: what was known of it is
forgotten, and the next queue run looks at it. */
void queue_changed(const char *id, struct str queue_name, bool exists);
/* The message is complete or gone. */
void queue_remove(struct queue_entry *e);
/* When the next one is due; QUEUE_NEVER: none. */
int64_t queue_next_due(void);

struct queue_run {
  struct str queue_name;
  bool first_only, force, force_frozen;
  bool frozen_too;           /* frozen ones are looked at as well */
  bool all;                  /* those too that are known to wait for a time: retry records have gone since */
};
/* A queue run: all that wait (in that queue) become due, but for those of which is known that their time has not come.
Those being delivered are passed over. O(n), once a run. */
void queue_start_run(const struct queue_run *r, int64_t now);
size_t queue_count(void);
/* Without named queues. */
size_t queue_count_default(void);
void queue_clear(void);

/* Fills the queue with what is on disk and belongs to worker `index` of `count` by owner(id, count). Returns the number. [suspends] */
int queue_load(struct ctx *c, struct str queue_name, int index, int count, int (*owner)(const char *id, int n), int64_t due);
/* The same for a queue that is in memory already: adds what others have put on disk (first tried in the next run), drops
what they have removed. Reads directories, no files. [suspends] */
void queue_refresh(struct ctx *c, struct str queue_name, int index, int count, int (*owner)(const char *id, int n));
