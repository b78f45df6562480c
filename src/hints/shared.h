/* Facts that several machines share: on a Redis (or Valkey) server, beside the hints of each machine. */
#pragma once

#include "base/str.h"

struct ctx;

/* `servers`: a list as the option redis_servers is. All names are below "martlet:". [suspends]
OUTCOME_OK with *ret in c->arena (tainted), OUTCOME_FAIL: it is not there, OUTCOME_DEFER (c->error). */
int hints_shared_get(struct ctx *c, struct str servers, struct str name, struct str *ret);
/* Keeps `value` for so many seconds, unless another machine was faster: *ret is what holds. [suspends] OUTCOME_OK, OUTCOME_DEFER. */
int hints_shared_agree(struct ctx *c, struct str servers, struct str name, struct str value, int64_t seconds, struct str *ret);
