/* What a context remembers while it serves one message: results of lookups
and of named lists. Exim keeps such results for the life of a process, which
serves one message; a worker lives for ever, so they are tied to the context
and forgotten with the message, after a minute, or when there are too many. */
#pragma once

#include "core/ctx.h"

struct memo_value {
  int outcome;
  struct str value; /* unset: none */
};

/* NULL: not known. The value lives until the next memo call: copy it. */
const struct memo_value *memo_get(struct ctx *c, struct str key);
/* seconds < 0: as long as the memo lives. */
void memo_put(struct ctx *c, struct str key, int outcome, struct str value, int seconds);
void memo_forget(struct ctx *c);
