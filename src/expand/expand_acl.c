/* ${acl{name}{arg}…} and the condition acl. */
#include "acl/acl.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"

/* Calls the ACL. OUTCOME_OK or FAIL with its message in *ret; forced failure for defer; else ERROR. */
static int call_acl(struct ctx *c, struct str name, const struct str *args, int n, struct str *ret) {
  if (str_is_tainted(name)) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "attempt to use tainted ACL text \"%.*s\"", STRF(name));
    return ctx_fail(c, OUTCOME_ERROR, "ERROR from acl \"%.*s\"", STRF(name));
  }
  if (c->depth >= EXPAND_MAX_DEPTH)
    return ctx_fail(c, OUTCOME_ERROR, "expansion is nested too deeply");
  struct str user = c->user_message, log = c->log_message;
  c->user_message = c->log_message = STR_UNSET;
  c->depth++;
  enum acl_result result = acl_check_text(c, c->acl_where > 0 ? c->acl_where - 1 : ACL_UNKNOWN, name, args, n);
  c->depth--;
  *ret = str_is_set(c->user_message) ? c->user_message : STR_EMPTY;
  c->user_message = user;
  c->log_message = log;
  switch (result) {
  case ACL_OK:
    return OUTCOME_OK;
  case ACL_FAIL:
    return OUTCOME_FAIL;
  case ACL_DEFER:
    return ctx_fail(c, OUTCOME_FORCED, "DEFER from acl \"%.*s\"", STRF(name));
  case ACL_DROP:
  case ACL_FAIL_DROP:
    return ctx_fail(c, OUTCOME_ERROR, "FAIL_DROP from acl \"%.*s\"", STRF(name));
  default:
    return ctx_fail(c, OUTCOME_ERROR, "ERROR from acl \"%.*s\"", STRF(name));
  }
}

static int eval_acl_item(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str message = STR_EMPTY;
  int rc = call_acl(c, args->value[0], args->value + 1, args->n - 1, &message);
  if (rc != OUTCOME_OK && rc != OUTCOME_FAIL)
    return rc;
  buf_add(out, message);
  return 0;
}

/* {{name}{arg}…} */
struct acl_condition {
  const struct expr *arg[ACL_ARGS_MAX + 1];
  int n;
};

static const void *compile_condition(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct acl_condition *a = arena_new_of(k->arena, struct acl_condition);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"acl\"");
  if (expand_peek(k) != '{')
    return expand_compile_error(k, "too few arguments or bracketing error for acl");
  while (a->n <= ACL_ARGS_MAX && expand_accept(k, '{'))
    if ((a->arg[a->n++] = expand_compile_string(k)) == NULL)
      return NULL;
  if (expand_accept(k, '}'))
    return a;
  if (expand_peek(k) == '{')
    return expand_compile_error(k, "Too many arguments for 'acl' (max is %d)", ACL_ARGS_MAX + 1);
  return expand_compile_error(k, "missing '}' after 'acl'");
}

static int eval_condition(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct acl_condition *a = args->custom;
  struct str v[ACL_ARGS_MAX + 1], message = STR_EMPTY;
  for (int i = 0; i < a->n; i++) {
    int rc = expand_arg(c, a->arg[i], &v[i]);
    if (rc != 0)
      return rc;
  }
  int rc = call_acl(c, v[0], v + 1, a->n - 1, &message);
  if (rc != OUTCOME_OK && rc != OUTCOME_FAIL)
    return rc;
  *ret = rc == OUTCOME_OK;
  c->expand.value = message;
  return 0;
}

static const struct expand_item_def items[] = {
  {"acl", 1, ACL_ARGS_MAX + 1, 0, NULL, eval_acl_item},
  {0},
};

static const struct expand_condition_def conditions[] = {
  {"acl", 0, 0, EXPAND_LAZY, compile_condition, eval_condition},
  {0},
};

const struct module expand_acl_module = {
  .name = "expand-acl",
  .summary = "ACLs called by expansions",
  .items = items,
  .conditions = conditions,
};
