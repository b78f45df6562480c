#include "hints/shared.h"

#include "core/ctx.h"
#include "lookup/types.h"

static struct str full_name(struct ctx *c, struct str name) { return str_cat(c->arena, STR("martlet:"), name); }

int hints_shared_get(struct ctx *c, struct str servers, struct str name, struct str *ret) {
  const struct str args[] = {STR("GET"), full_name(c, name)};
  int r = redis_call(c, servers, args, 2, ret);
  if (r == OUTCOME_OK)
    *ret = str_tainted(*ret);
  return r == OUTCOME_OK || r == OUTCOME_FAIL ? r : OUTCOME_DEFER;
}

int hints_shared_agree(struct ctx *c, struct str servers, struct str name, struct str value, int64_t seconds, struct str *ret) {
  int r = hints_shared_get(c, servers, name, ret);
  if (r != OUTCOME_FAIL)
    return r;
  const struct str args[] = {STR("SET"), full_name(c, name), value, STR("NX"), STR("EX"), str_printf(c->arena, "%lld", (long long)seconds)};
  struct str reply;
  r = redis_call(c, servers, args, 6, &reply);
  if (r == OUTCOME_OK || r == OUTCOME_FAIL) /* not set: it has been there for a moment */
    r = hints_shared_get(c, servers, name, ret);
  if (r == OUTCOME_FAIL)
    return ctx_fail(c, OUTCOME_DEFER, "the Redis server does not keep what it is given");
  return r;
}
