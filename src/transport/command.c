#include "transport/command.h"

#include "base/buf.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "transport/header.h"
#include "transport/options.h"
#include "transport/plan.h"

/* Cuts the next argument off *rest: blanks separate, "…" has escapes, '…' has none. False at the end. */
static bool next_argument(struct ctx *c, struct str *rest, struct str *ret) {
  struct str s = str_ltrim(*rest);
  if (!s.len)
    return false;
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE * 16);
  b.taint = s.taint;
  size_t i = 0;
  while (i < s.len && s.p[i] != ' ' && s.p[i] != '\t' && s.p[i] != '\n') {
    char quote = s.p[i];
    if (quote != '"' && quote != '\'') {
      buf_add_byte(&b, s.p[i++]);
      continue;
    }
    for (i++; i < s.len && s.p[i] != quote; i++) {
      if (quote == '"' && s.p[i] == '\\' && i + 1 < s.len)
        i++;
      buf_add_byte(&b, s.p[i]);
    }
    i += i < s.len;
  }
  *ret = buf_str(&b);
  *rest = str_from(s, i);
  return true;
}

static int add(struct ctx *c, struct command *to, struct str arg, struct str whose) {
  if (to->n >= PLAN_ARGS_MAX)
    return ctx_fail(c, OUTCOME_FAIL, "too many arguments to the command of %.*s", STRF(whose));
  if (arg.len && memchr(arg.p, 0, arg.len))
    return ctx_fail(c, OUTCOME_FAIL, "NUL byte in an argument of the command of %.*s", STRF(whose));
  to->argv[to->n++] = arg;
  return 0;
}

int command_build(struct ctx *c, struct str text, bool expand, const struct address *chain, struct str address_pipe, struct str whose,
    struct command *ret) {
  struct str rest = text, arg;
  int e = 0;
  ret->argv = arena_array(c->arena, struct str, PLAN_ARGS_MAX + 1);
  ret->n = ret->tainted = 0;
  while (!e && next_argument(c, &rest, &arg)) {
    if (chain && str_eq_c(arg, "$pipe_addresses")) {
      for (const struct address *a = chain; a && !e; a = a->next)
        e = add(c, ret, a->address, whose);
      continue;
    }
    if (str_is_set(address_pipe) && str_eq_c(arg, "$address_pipe")) {
      while (!e && next_argument(c, &address_pipe, &arg))
        e = add(c, ret, arg, whose);
      continue;
    }
    struct str source = arg;
    if (expand && expand_text(c, arg, &arg))
      return ctx_fail(c, OUTCOME_DEFER, "Expansion of \"%.*s\" from command \"%.*s\" in %.*s failed: %.*s", STRF(source), STRF(text),
          STRF(whose), STRF(c->error));
    if (ret->n && !ret->tainted && str_is_tainted(arg))
      ret->tainted = ret->n;
    e = add(c, ret, arg, whose);
  }
  if (!e && !ret->n)
    e = ctx_fail(c, OUTCOME_FAIL, "empty command");
  return e;
}

bool command_filter(struct ctx *c, const struct instance *t, struct address *chain, struct command *ret) {
  const struct option_expr *o = &transport_options(t)->transport_filter;
  *ret = (struct command){0};
  if (!str_is_set(o->text) || !str_trim(o->text).len)
    return true;
  int e = command_build(c, o->text, true, chain, STR_UNSET, STR("transport filter"), ret);
  if (!e && (ret->tainted || str_is_tainted(ret->argv[0]))) {
    size_t n = str_is_tainted(ret->argv[0]) ? 0 : ret->tainted;
    e = ctx_fail(c, OUTCOME_FAIL, "Tainted arg %zu for transport filter command: '%.*s'", n, STRF(ret->argv[n]));
  }
  if (!e && !ret->argv[0].len)
    ret->n = 0; /* it expanded to nothing: no filter */
  if (e)
    transport_chain_result(chain, (enum outcome)e, ERROR_UNKNOWN, c->error);
  return !e;
}
