/* testdb: answers with the query itself, for tests of a configuration (manual, "Query-style lookup types"); "fail" is not
found, "defer" cannot be looked up now, "nocache" is not remembered. */
#include "lookup/types.h"

static int testdb_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  if (str_eq_c(key, "fail"))
    return ctx_fail(c, OUTCOME_FAIL, "testdb lookup forced FAIL");
  if (str_eq_c(key, "defer"))
    return ctx_fail(c, OUTCOME_DEFER, "testdb lookup forced DEFER");
  if (str_eq_c(key, "nocache"))
    *ret_seconds = 0;
  *ret = str_dup(c->arena, key);
  return OUTCOME_OK;
}

const struct lookup_def lookup_testdb = {.name = "testdb", .flags = LOOKUP_QUERY, .find = testdb_find};
