/* Conditions of ${if …}: reading and evaluating them. */
#include "expand/internal.h"

#include "base/ascii.h"
#include "expand/trace.h"

struct expand_condition {
  const struct expand_condition_def *def;
  struct expand_args args;
  bool negated;
};

static struct str condition_name(struct expand_compiler *k) {
  if (ascii_is_alpha(*k->p))
    return compile_name(k, "_");
  const char *from = k->p++;
  if (k->p != k->end && *k->p == '=')
    k->p++;
  return str_n(from, k->p - from);
}

static bool compile_condition_args(
    struct expand_compiler *k, const struct expand_condition_def *def, struct expand_args *args) {
  VEC(const struct expr *) list = {0};
  while ((int)list.n < def->max_args) {
    if (!expand_accept(k, '{')) {
      if ((int)list.n >= def->min_args)
        break;
      if (list.n == 0)
        return expand_compile_error(k, "missing { after \"%s\"", def->name);
      return expand_compile_error(k, "missing 2nd string in {} after \"%s\"", def->name);
    }
    const struct expr *e = expand_compile_string(k);
    if (e == NULL)
      return false;
    vec_push(k->arena, &list, e);
  }
  args->tree = list.v;
  args->n = (int)list.n;
  if (def->prepare != NULL)
    args->custom = def->prepare(k->arena, args);
  return true;
}

const struct expand_condition *expand_compile_condition(struct expand_compiler *k) {
  struct expand_condition *c = arena_new_of(k->arena, struct expand_condition);
  while (expand_accept(k, '!'))
    c->negated = !c->negated;
  char first = expand_peek(k);
  if (!ascii_is_alpha(first) && first != '=' && first != '<' && first != '>')
    return expand_compile_error(k, "condition name expected, but found \"%.16s\"",
        str_dup(k->arena, str_slice(expand_rest(k), 0, 16)).p);
  if (++k->depth > EXPAND_MAX_DEPTH)
    return expand_compile_error(k, "expansion is nested too deeply");
  struct str name = condition_name(k);
  c->def = find_condition(name);
  if (c->def == NULL)
    return expand_compile_error(k, "unknown condition \"%.*s\"", STRF(name));
  if (c->def->compile != NULL) {
    c->args.custom = c->def->compile(k, c->def);
    if (c->args.custom == NULL)
      return NULL;
  } else if (!compile_condition_args(k, c->def, &c->args)) {
    return NULL;
  }
  k->depth--;
  return c;
}

int expand_condition(struct ctx *c, const struct expand_condition *cond, bool *ret) {
  const struct expand_condition_def *def = cond->def;
  if (def->flags & EXPAND_LATER)
    return ctx_fail(c, OUTCOME_ERROR, "condition \"%s\" is not supported yet", def->name);
  struct expand_args args = cond->args;
  if (args.n > 0 && !(def->flags & EXPAND_LAZY)) {
    args.value = arena_alloc_raw(c->arena, (size_t)args.n * sizeof *args.value);
    for (int i = 0; i < args.n; i++) {
      int rc = expand_arg(c, args.tree[i], &args.value[i]);
      if (rc != 0)
        return rc;
    }
  }
  bool result = false;
  int rc = expand_step(c);
  if (rc == 0)
    rc = def->eval(c, def, &args, &result);
  if (rc == 0) {
    *ret = result != cond->negated;
    if (trace_on())
      trace_condition(c, def->name, cond->negated, &args, *ret);
  }
  return rc;
}
