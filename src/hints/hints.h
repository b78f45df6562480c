/* Hints: small facts that survive restarts and are never needed for
correctness (Exim manual: retry, wait-…, ratelimit, callout, misc). One LMDB
environment under SPOOL/db; a second implementation is a Redis server. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "base/str.h"

struct ctx;
struct config;

/* Opens (lazily) for a spool directory. All calls are short and do not suspend. */
int hints_open(struct config *c);
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
