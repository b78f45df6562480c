#include "expand/expand.h"

#include "config/config.h"

static void compile_one(struct config *c, struct option_expr *e, enum option_type type, enum list_kind list, void *arg) {
  struct str error;
  if (e->tree != NULL)
    return;
  e->tree = expr_compile(c->arena, e->text, &error);
  if (!str_is_set(error))
    return;
  struct str where = config_where_text(c, c->arena, e->where);
  vec_push(c->arena, &c->warnings,
      str_printf(c->arena, "%.*s: expansion of \"%.*s\" will fail: %.*s", STRF(where), STRF(e->text), STRF(error)));
}

void expand_compile_config(struct config *c) { config_each_expr(c, compile_one, NULL); }
