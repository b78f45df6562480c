#include "transport/event.h"

#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "transport/options.h"

#define SECONDS_MAX 5

static const struct option_expr *action(const struct ctx *c, const struct instance *t) {
  return t ? &transport_options(t)->event_action : &main_options(c->config)->event_action;
}

bool event_wanted(const struct ctx *c, const struct instance *t) {
  const struct option_expr *o = action(c, t);
  return str_is_set(o->text) && o->text.len;
}

bool event_is_raised(const struct ctx *c) { return str_is_set(c->vars.event_name) && c->vars.event_name.len > 0; }

struct expansion {
  struct ctx *c;
  const struct option_expr *option;
  struct str *ret;
  int rc;
  bool done;
  struct fiber *waiter;
};

static void expand_action(void *arg) {
  struct expansion *x = arg;
  fiber_set_local(x->c);
  x->rc = expand_option(x->c, x->option, x->ret);
  x->done = true;
  fiber_wake(x->waiter);
}

/* In a fiber of its own, so that it alone can be ended when it takes too long: mail does not wait for what only looks on. */
static int expand_limited(struct ctx *c, const struct option_expr *option, struct str *ret) {
  struct expansion x = {.c = c, .option = option, .ret = ret, .waiter = fiber_self()};
  if (!x.waiter)
    return expand_option(c, option, ret);
  usec_t deadline = deadline_in(SECONDS_MAX);
  struct fiber *f = fiber_spawn_joinable("event", expand_action, &x);
  int waited = 0;
  while (!x.done && !waited)
    waited = fiber_park(deadline);
  bool late = !x.done;
  if (late)
    fiber_cancel(f);
  fiber_join(f);
  if (late && x.rc)
    c->error = str_printf(c->arena, "it takes more than %d seconds", SECONDS_MAX);
  return x.rc;
}

static int raise_event(struct ctx *c, const struct instance *t, const char *name, struct str data, int error, struct str *ret) {
  *ret = STR_EMPTY;
  if (!event_wanted(c, t))
    return 0;
  struct str saved_name = c->vars.event_name, saved_data = c->vars.event_data, saved_errno = c->vars.event_defer_errno;
  struct expand_vars saved = ctx_save(c);
  c->vars.event_name = str_c(name);
  c->vars.event_data = str_is_set(data) ? data : STR_EMPTY;
  c->vars.event_defer_errno = str_printf(c->arena, "%d", error);
  int e = expand_limited(c, action(c, t), ret);
  if (e == OUTCOME_FORCED)
    e = 0;
  else if (e)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand event_action %s in %.*s: %.*s", name,
        t ? (int)t->name.len : 4, t ? t->name.p : "main", STRF(c->error));
  if (e || !str_is_set(*ret))
    *ret = STR_EMPTY;
  ctx_restore(c, &saved);
  c->vars.event_name = saved_name;
  c->vars.event_data = saved_data;
  c->vars.event_defer_errno = saved_errno;
  return e ? OUTCOME_DEFER : 0;
}

int event_raise(struct ctx *c, const struct instance *t, const char *name, struct str data, int error, struct str *ret) {
  return raise_event(c, t, name, str_is_set(data) ? str_tainted(data) : data, error, ret);
}

int event_raise_known(struct ctx *c, const struct instance *t, const char *name, struct str data, struct str *ret) {
  return raise_event(c, t, name, data, 0, ret);
}

void event_address(struct ctx *c, struct address *a, const char *name, struct str data, int error) {
  const struct instance *t = a->transport && event_wanted(c, a->transport) ? a->transport : NULL;
  struct str unused;
  if (!event_wanted(c, t))
    return;
  const struct instance *router = c->router, *transport = c->transport;
  struct host *host = c->host;
  struct policy_vars vars = c->vars;
  struct address *address = c->address, *next = a->next;
  a->next = NULL;
  address_set_vars(c, a);
  if (a->kind == ADDRESS_REPLY) {
    c->vars.local_part = a->address;
    c->vars.domain = a->domain;
  }
  c->router = a->router;
  c->transport = a->transport;
  c->host = a->host_used;
  (void)event_raise(c, t, name, data, error, &unused);
  address_clear_vars(c);
  a->next = next;
  c->address = address;
  c->vars = vars;
  c->router = router;
  c->transport = transport;
  c->host = host;
}
