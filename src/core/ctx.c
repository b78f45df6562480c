#include "core/ctx.h"

#include <stdarg.h>
#include "log/mask.h"

struct ctx *ctx_new(struct arena *arena, struct config *config) {
  struct ctx *c = arena_new_of(arena, struct ctx);
  c->arena = arena;
  c->config = config;
  c->client = arena_new_of(arena, struct client);
  c->client->local = true;
  return c;
}

struct expand_vars ctx_save(const struct ctx *c) { return c->expand; }

void ctx_restore(struct ctx *c, const struct expand_vars *saved) { c->expand = *saved; }

int ctx_fail(struct ctx *c, enum outcome code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  c->error = log_masked(c->arena, str_vprintf(c->arena, fmt, ap));
  va_end(ap);
  return code;
}
