/* Hints: small facts that survive restarts and are never needed for
correctness (Exim manual: retry, wait-…, ratelimit, callout, misc). One LMDB
environment under SPOOL/db; a second implementation is a Redis server. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "base/str.h"

struct ctx;
struct config;

/* Values are text that the caller understands (hints/records.h for those that tools print). The store keeps the time of
each record's last change. Keys and values come back tainted.

Opens (lazily) for a spool directory. All calls are short and do not suspend. After a fork the child opens anew.
OUTCOME_OK, or OUTCOME_DEFER and a line in the panic log. Writes are not forced to disk: after a power failure the store
is checked when it is opened first, and thrown away if it is damaged. */
int hints_open(struct config *c);
/* For tools: a spool directory by name. */
int hints_open_directory(struct str spool);
void hints_close(void);
/* OUTCOME_OK with *ret in `a`, OUTCOME_FAIL: absent, OUTCOME_DEFER: the store is unusable (a line was logged). */
int hints_get(struct ctx *c, const char *db, struct str key, struct arena *a, struct str *ret);
int hints_put(struct ctx *c, const char *db, struct str key, struct str value);
int hints_delete(struct ctx *c, const char *db, struct str key);
/* Read-modify-write in one transaction: fn gets the present value (unset if none), returns 1 to write *value, 0 to leave, -1 to delete. */
int hints_update(struct ctx *c, const char *db, struct str key,
    int (*fn)(struct arena *a, struct str *value, void *arg), void *arg);
/* Each record in key order; fn returns false to stop. */
int hints_each(struct ctx *c, const char *db, bool (*fn)(struct str key, struct str value, void *arg), void *arg);
/* Those whose key is `from` or comes behind it. */
int hints_each_from(struct ctx *c, const char *db, struct str from, bool (*fn)(struct str key, struct str value, void *arg),
    void *arg);
/* The same with the time of the record's last change. */
int hints_each_stamped(struct ctx *c, const char *db, bool (*fn)(struct str key, struct str value, int64_t stamp, void *arg),
    void *arg);
/* Calls fn with the name of each database there is. */
int hints_databases(struct ctx *c, void (*fn)(struct str name, void *arg), void *arg);
