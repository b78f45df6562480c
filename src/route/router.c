/* Takes an address through the routers (Exim manual, sections "Running an
individual router" and "Router preconditions"). */

#include "base/map.h"
#include "deliver/errors.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/message.h"
#include "route/router.h"

/* Has this router already handled the same address further up, or (without repeat_use) any ancestor? */
static bool looped(const struct instance *r, const struct address *a) {
  bool repeat_use = router_repeat_use(r);
  for (const struct address *up = a->parent; up; up = up->parent)
    if (up->router == r && (!repeat_use || str_ieq(up->address, a->address)))
      return true;
  return false;
}

/* `set`: the $r_… variables. They go on with the address, so its map is copied before it changes. */
static enum route_result set_variables(struct ctx *c, const struct instance *r, struct address *a) {
  const struct router_options *o = router_options(r);
  if (!o->set.n)
    return ROUTE_OK;
  struct map *vars = map_new(c->arena);
  struct str key, value, *stored;
  void *p;
  size_t i = 0;
  while (a->prop.set_vars && map_next(a->prop.set_vars, &i, &key, &p))
    map_set(vars, key, p);
  a->prop.set_vars = c->router_vars = vars;
  for (i = 0; i < o->set.n; i++) {
    int rc = expand_option(c, &o->set.v[i].value, &value);
    if (rc == OUTCOME_FORCED)
      return ROUTE_DECLINE;
    if (rc)
      return router_defer(c, a, ERROR_EXPAND_FAIL, "expansion of \"%.*s\" failed in %.*s router: %.*s",
          STRF(o->set.v[i].value.text), STRF(r->name), STRF(c->error));
    stored = arena_new_of(c->arena, struct str);
    *stored = value;
    map_set(vars, o->set.v[i].name, stored);
  }
  return ROUTE_OK;
}

static enum route_result set_address_data(struct ctx *c, const struct instance *r, struct address *a) {
  const struct router_options *o = router_options(r);
  struct str value;
  if (!str_is_set(o->address_data.text))
    return ROUTE_OK;
  int rc = expand_option(c, &o->address_data, &value);
  if (rc == OUTCOME_FORCED)
    return ROUTE_DECLINE;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "expansion of \"%.*s\" failed in %.*s router: %.*s", STRF(o->address_data.text),
        STRF(r->name), STRF(c->error));
  a->prop.address_data = c->vars.address_data = value;
  return ROUTE_OK;
}

/* A boolean option that is expanded; a forced failure leaves the default. */
static enum route_result bool_option(struct ctx *c, const struct instance *r, struct address *a, const struct option_expr *option,
    const char *name, bool *value) {
  struct str text;
  if (!str_is_set(option->text))
    return ROUTE_OK;
  int rc = expand_option(c, option, &text);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "failed to expand \"%s\" in %.*s router: %.*s", name, STRF(r->name),
        STRF(c->error));
  if (str_ieq_c(text, "yes") || str_ieq_c(text, "true"))
    *value = true;
  else if (str_ieq_c(text, "no") || str_ieq_c(text, "false"))
    *value = false;
  else
    return router_defer(c, a, ERROR_UNKNOWN, "\"%.*s\" is not a valid value for the \"%s\" option in the %.*s router",
        STRF(text), name, STRF(r->name));
  return ROUTE_OK;
}

/* With `unseen` the address becomes the parent of two: itself, as this router took it, and a clone that goes on
behind this router, without header changes. */
static void add_clone(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  struct address *parent = arena_new_of(c->arena, struct address);
  *parent = *a;
  parent->next = NULL;
  parent->transport = NULL;
  parent->hosts = NULL;
  parent->child_pending = 2;
  struct address *clone = address_child(c->arena, parent, a->address);
  clone->prop.extra_headers = clone->prop.remove_headers = STR_UNSET;
  clone->prop.errors_address = a->original_errors_address;
  clone->start_router = r->next;
  clone->dsn_flags = 0;
  clone->next = lists->children;
  lists->children = clone;
  a->parent = parent;
  a->unique = clone->unique;
  a->homonym = true;
  a->unseen = true;
}

/* No router took it: the message of the last one that was considered. */
static enum route_result unrouteable(struct ctx *c, const struct instance *last, struct address *a) {
  struct str text;
  a->result = OUTCOME_FAIL;
  a->basic_errno = ERROR_UNKNOWN;
  if (last && str_is_set(router_options(last)->cannot_route_message.text)) {
    int rc = expand_option(c, &router_options(last)->cannot_route_message, &text);
    if (!rc) {
      a->message = a->user_message = text;
      return ROUTE_FAIL;
    }
    if (rc != OUTCOME_FORCED)
      log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand cannot_route_message in %.*s router: %.*s",
          STRF(last->name), STRF(c->error));
  }
  if (!str_is_set(a->message) || !a->message.len)
    a->message = STR("Unrouteable address");
  /* Who sent the message is not told of mistakes in somebody's file. */
  if (!str_eq(a->message, STR(ROUTE_SYNTAX_ERROR)))
    a->user_message = a->message;
  return ROUTE_FAIL;
}

/* fail_verify_…: taken, but that is no good sign. */
static enum route_result forced_verify_fail(struct ctx *c, const struct instance *r, struct address *a) {
  const struct router_options *o = router_options(r);
  if (!(a->verify_sender && o->fail_verify_sender) && !(a->verify_recipient && o->fail_verify_recipient))
    return ROUTE_OK;
  return router_fail(c, a, "%.*s router forced verify failure", STRF(r->name));
}

static enum route_result skip_by_module(struct ctx *c, struct address *a) {
  for (size_t i = 0; modules[i]; i++) {
    int rc = modules[i]->hooks.before_router ? modules[i]->hooks.before_router(c, a) : OUTCOME_OK;
    if (rc == OUTCOME_FAIL)
      return ROUTE_SKIP;
    if (rc == OUTCOME_DEFER)
      return router_defer(c, a, 0, "%.*s", STRF(a->message));
  }
  return ROUTE_OK;
}

/* Preconditions and the driver itself. */
static enum route_result run_router(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists,
    bool *more, bool *unseen) {
  const struct router_options *o = router_options(r);
  enum route_result rc;
  if (looped(r, a)) {
    DEBUG(route, "%.*s router skipped: previously routed %.*s\n", STRF(r->name), STRF(a->address));
    return ROUTE_SKIP;
  }
  rc = router_check(c, r, a, lists);
  if (rc != ROUTE_OK)
    return rc;
  if ((rc = skip_by_module(c, a)))
    return rc;
  if ((rc = bool_option(c, r, a, &o->unseen, "unseen", unseen)))
    return rc;
  /* A router that declines because its data say so still has a `more`. */
  if ((rc = set_variables(c, r, a)) == ROUTE_OK && (rc = set_address_data(c, r, a)) == ROUTE_OK) {
    const struct router_def *d = (const struct router_def *)r->driver;
    DEBUG(route, "calling %.*s router\n", STRF(r->name));
    a->message = STR_UNSET;
    a->hosts = NULL; /* of a router that passed it on */
    rc = d->route(c, r, a, lists);
  }
  if (rc == ROUTE_DECLINE) {
    enum route_result failed = bool_option(c, r, a, &o->more, "more", more);
    if (failed)
      return failed;
  }
  return rc;
}

static void forget_local_user(struct address *a) {
  a->local_user = a->uid_set = a->gid_set = false;
  a->home = STR_UNSET;
}

static const struct instance *next_router(const struct instance *r, enum route_result rc, bool more) {
  if (rc == ROUTE_PASS && router_options(r)->pass_router)
    return router_options(r)->pass_router;
  return rc == ROUTE_DECLINE && !more ? NULL : r->next;
}

static enum route_result take(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists,
    enum route_result rc, bool unseen) {
  a->router = (struct instance *)r;
  if (rc == ROUTE_OK || rc == ROUTE_REROUTED) {
    enum route_result forced = forced_verify_fail(c, r, a);
    if (forced != ROUTE_OK)
      return forced;
    a->result = OUTCOME_OK;
  }
  if (rc == ROUTE_ERROR)
    rc = ROUTE_DEFER;
  if (rc == ROUTE_DEFER)
    a->result = OUTCOME_DEFER;
  if (unseen && r->next && rc != ROUTE_DEFER)
    add_clone(c, r, a, lists);
  return rc;
}

/* Outcomes leave the address on one of the lists: taken ones by the driver, the others here. */
static enum route_result list_outcome(struct address *a, struct route_lists *lists, enum route_result rc) {
  struct address **list = rc == ROUTE_FAIL ? &lists->failed : rc == ROUTE_DEFER ? &lists->deferred
                          : rc == ROUTE_DISCARD ? &lists->succeed : NULL;
  if (list) {
    a->next = *list;
    *list = a;
  }
  return rc;
}

static enum route_result route(struct ctx *c, struct address *a, struct route_lists *lists) {
  const struct instance *r = a->start_router ? a->start_router : c->config->drivers[DRIVER_ROUTER], *last = NULL;
  a->original_errors_address = a->prop.errors_address;
  while (r) {
    bool more = true, unseen = false;
    c->router = last = r;
    router_reset_local_part(r, a);
    DEBUG(route, "--------> %.*s router <--------\n", STRF(r->name));
    enum route_result rc = run_router(c, r, a, lists, &more, &unseen);
    if (rc != ROUTE_SKIP && rc != ROUTE_DECLINE && rc != ROUTE_PASS)
      return take(c, r, a, lists, rc, unseen);
    forget_local_user(a);
    if (rc == ROUTE_SKIP) {
      a->message = STR_UNSET;
      r = r->next;
    } else {
      r = next_router(r, rc, more);
    }
  }
  a->router = NULL;
  return unrouteable(c, last, a);
}

enum route_result route_address(struct ctx *c, struct address *a, struct route_lists *lists) {
  struct policy_vars saved = c->vars;
  struct address *saved_address = c->address;
  struct map *saved_router_vars = c->router_vars;
  const struct instance *saved_router = c->router;
  address_set_vars(c, a);
  enum route_result rc = list_outcome(a, lists, route(c, a, lists));
  saved.address_data = a->prop.address_data;
  c->vars = saved;
  c->address = saved_address;
  c->router_vars = saved_router_vars;
  c->router = saved_router;
  return rc;
}
