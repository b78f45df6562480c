/* Ready-made getters, and the variables that have no table entry: $acl_…, $r_…. */
#include "base/map.h"
#include "core/main_options.h"
#include "expand/internal.h"
#include "message/message.h"

static struct str at_offset(const void *base, size_t offset) {
  struct str s;
  memcpy(&s, (const char *)base + offset, sizeof s);
  return str_is_set(s) ? s : STR_EMPTY;
}

int variable_get_ctx(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = at_offset(c, def->offset);
  return 0;
}

int variable_get_client(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = at_offset(c->client, def->offset);
  return 0;
}

int variable_get_message(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->message != NULL ? at_offset(c->message, def->offset) : STR_EMPTY;
  return 0;
}

int variable_get_empty(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = STR_EMPTY;
  return 0;
}

static const struct str *find_in(const struct map *m, struct str name) { return m != NULL ? map_get(m, name) : NULL; }

int variable_acl(struct ctx *c, struct str name, struct str *ret) {
  const struct str *s = NULL;
  bool connection = name.p[4] == 'c';
  if (connection && c->session != NULL)
    s = find_in(c->session->acl_c, name);
  if (s == NULL && c->message != NULL)
    s = find_in(connection ? c->message->acl_c : c->message->acl_m, name);
  if (s == NULL)
    s = find_in(c->acl_m, name);
  if (s == NULL) {
    if (c->config != NULL && main_options(c->config)->strict_acl_vars)
      return ctx_fail(c, OUTCOME_ERROR, "unknown variable name \"%.*s\" (strict_acl_vars is set)", STRF(name));
    *ret = STR_EMPTY;
    return 0;
  }
  /* A connection's variable may be overwritten in place by the next `set`: a copy. */
  *ret = connection ? str_dup(c->arena, *s) : *s;
  ret->taint = s->taint;
  return 0;
}

int variable_router(struct ctx *c, struct str name, struct str *ret) {
  const struct str *s = find_in(c->router_vars, name);
  *ret = s != NULL ? *s : STR_EMPTY;
  return 0;
}
