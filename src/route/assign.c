/* What happens when a router takes an address: who delivers it how, and on
which list it waits (Exim manual, chapter "Generic options for routers"). */

#include "base/buf.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "route/user.h"
#include "match/match.h"
#include "message/message.h"
#include "route/router.h"
#include "transport/transport.h"

#define HEADERS_MAX (1u << 20)

__attribute__((format(printf, 5, 0))) static void set_message(struct ctx *c, struct address *a, enum outcome result, int error,
    const char *fmt, va_list ap) {
  a->result = result;
  a->basic_errno = error;
  a->message = str_vprintf(c->arena, fmt, ap);
}

enum route_result router_defer(struct ctx *c, struct address *a, int error, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  set_message(c, a, OUTCOME_DEFER, error, fmt, ap);
  va_end(ap);
  return ROUTE_DEFER;
}

enum route_result router_fail(struct ctx *c, struct address *a, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  set_message(c, a, OUTCOME_FAIL, ERROR_UNKNOWN, fmt, ap);
  va_end(ap);
  return ROUTE_FAIL;
}

enum route_result router_transport(struct ctx *c, const struct instance *r, struct address *a,
    const struct option_expr *option, const char *what, struct instance **ret) {
  struct str name;
  *ret = NULL;
  if (!str_is_set(option->text)) {
    if (!what)
      return ROUTE_OK;
    return router_defer(c, a, ERROR_BAD_TRANSPORT, "%s unset in %.*s router", what, STRF(r->name));
  }
  if (expand_option(c, option, &name))
    return router_defer(c, a, ERROR_BAD_TRANSPORT, "failed to expand transport \"%.*s\" in %.*s router: %.*s",
        STRF(option->text), STRF(r->name), STRF(c->error));
  if (str_is_tainted(name)) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "attempt to use tainted value '%.*s' from '%.*s' for transport", STRF(name),
        STRF(option->text));
    return router_defer(c, a, ERROR_BAD_TRANSPORT, "internal configuration error");
  }
  *ret = config_driver(c->config, DRIVER_TRANSPORT, name);
  if (!*ret)
    return router_defer(c, a, ERROR_BAD_TRANSPORT, "transport \"%.*s\" not found in %.*s router", STRF(name), STRF(r->name));
  return ROUTE_OK;
}

/* --- errors_to, headers_add, headers_remove --- */

/* An errors address that could not be delivered to would only make a second bounce: it is verified with the
null sender, and ignored when it does not verify. */
static bool errors_address_good(struct ctx *c, struct str address) {
  struct message *m = c->message;
  struct ctx *inner = arena_new_of(c->arena, struct ctx); /* may be remembered by what it looks up */
  struct verify_params p = {.success_on_redirect = true, .quick = true};
  struct str saved = m ? m->reverse_path : STR_EMPTY;
  if (c->depth > 20)
    return false;
  *inner = *c;
  inner->depth++;
  if (m)
    m->reverse_path = STR_EMPTY;
  enum outcome result = verify_address(inner, address, &p, NULL);
  if (m)
    m->reverse_path = saved;
  return result == OUTCOME_OK;
}

static enum route_result expand_errors_to(struct ctx *c, const struct instance *r, struct address *a, struct str *errors) {
  const struct router_options *o = router_options(r);
  struct str value;
  if (!str_is_set(o->errors_to.text))
    return ROUTE_OK;
  int rc = expand_option(c, &o->errors_to, &value);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router failed to expand \"%.*s\": %.*s", STRF(r->name),
        STRF(o->errors_to.text), STRF(c->error));
  value = str_trim(value);
  if (value.len && str_find_byte(value, '@') < 0)
    value = str_printf(c->arena, "%.*s@%.*s", STRF(value), STRF(main_options(c->config)->qualify_domain));
  if (!value.len || errors_address_good(c, value))
    *errors = value;
  return ROUTE_OK;
}

/* Each item is expanded by itself; one that is empty or forced to fail has no effect. */
static int expand_items(struct ctx *c, struct str list, char separator, const char *option, const struct instance *r,
    struct address *a, struct buf *out) {
  struct list_iter it;
  struct str item, value;
  list = str_untainted(list);
  if (separator == '\n' && !(str_ltrim(list).len && str_ltrim(list).p[0] == '<'))
    list = str_cat(c->arena, STR("<\n "), list);
  list_iter_init(&it, c->arena, list);
  while (list_next(&it, &item)) {
    /* Several settings are joined with colons; one of them may have a separator of its own. */
    if (separator == ':' && item.len > 1 && item.p[0] == '<' && item.p[1] != ':') {
      if (expand_items(c, item, separator, option, r, a, out))
        return OUTCOME_DEFER;
      continue;
    }
    int rc = expand_text(c, item, &value);
    if (rc == OUTCOME_FORCED)
      continue;
    if (rc) {
      router_defer(c, a, ERROR_UNKNOWN, "%.*s router failed to expand %s item \"%.*s\": %.*s", STRF(r->name), option,
          STRF(item), STRF(c->error));
      return OUTCOME_DEFER;
    }
    if (!value.len)
      continue;
    if (separator == ':') {
      if (out->len)
        buf_add_c(out, ":");
      buf_add(out, value);
    } else {
      buf_add(out, value);
      if (value.p[value.len - 1] != '\n')
        buf_add_c(out, "\n");
    }
  }
  return 0;
}

static enum route_result expand_headers(struct ctx *c, const struct instance *r, struct address *a, struct address_props *p) {
  const struct router_options *o = router_options(r);
  struct buf b;
  if (str_is_set(o->headers_add)) {
    buf_init(&b, c->arena, HEADERS_MAX);
    if (str_is_set(p->extra_headers))
      buf_add(&b, p->extra_headers);
    if (expand_items(c, o->headers_add, '\n', "add_headers", r, a, &b))
      return ROUTE_DEFER;
    p->extra_headers = b.len ? buf_str(&b) : STR_UNSET;
  }
  if (str_is_set(o->headers_remove)) {
    buf_init(&b, c->arena, HEADERS_MAX);
    if (str_is_set(p->remove_headers))
      buf_add(&b, p->remove_headers);
    if (expand_items(c, o->headers_remove, ':', "remove_headers", r, a, &b))
      return ROUTE_DEFER;
    p->remove_headers = b.len ? buf_str(&b) : STR_UNSET;
  }
  return ROUTE_OK;
}

enum route_result router_props(struct ctx *c, const struct instance *r, struct address *a, struct address_props *props) {
  /* Verification delivers nothing. (An errors address is itself being verified then, which must not loop.) */
  if (route_verifying(a))
    return ROUTE_OK;
  enum route_result rc = expand_errors_to(c, r, a, &props->errors_address);
  return rc ? rc : expand_headers(c, r, a, props);
}

/* --- uid and gid --- */

/* The number behind an option that is expanded: its text, or -1 with the address deferred. */
static bool expand_owner(struct ctx *c, const struct instance *r, struct address *a, const struct option_user *o, const char *what,
    struct str *ret) {
  if (!str_is_set(o->expr.text))
    return true;
  if (!expand_option(c, &o->expr, ret))
    return true;
  router_defer(c, a, ERROR_UNKNOWN, "Failed to expand %s string \"%.*s\" for the %.*s router: %.*s", what,
      STRF(o->expr.text), STRF(r->name), STRF(c->error));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(a->message));
  return false;
}

static bool owner_not_found(struct ctx *c, const struct instance *r, struct address *a, const struct option_user *o, const char *what,
    struct str value) {
  router_defer(c, a, ERROR_UNKNOWN, "Failed to find %s \"%.*s\" from expanded string \"%.*s\" for the %.*s router", what,
      STRF(value), STRF(o->expr.text), STRF(r->name));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(a->message));
  return false;
}

static bool set_uid(struct ctx *c, const struct instance *r, struct address *a) {
  const struct option_user *o = &router_options(r)->user;
  struct user_info user;
  struct str value = STR_UNSET;
  uint64_t n;
  if (!o->set)
    return true;
  if (!expand_owner(c, r, a, o, "user", &value))
    return false;
  a->uid_set = true;
  a->gid_set = false;
  if (!str_is_set(value)) {
    a->uid = o->id;
    a->gid = o->gid;
    a->gid_set = o->gid_set;
    return true;
  }
  if (str_to_u64(value, &n) && n <= UINT32_MAX) {
    a->uid = (uint32_t)n;
    return true;
  }
  if (user_find(c->arena, value, &user) <= 0)
    return owner_not_found(c, r, a, o, "user", value);
  a->uid = user.uid;
  a->gid = user.gid;
  a->gid_set = true;
  return true;
}

static bool set_gid(struct ctx *c, const struct instance *r, struct address *a) {
  const struct option_user *o = &router_options(r)->group;
  struct str value = STR_UNSET;
  uint64_t n;
  if (!o->set)
    return true;
  if (!expand_owner(c, r, a, o, "group", &value))
    return false;
  a->gid_set = true;
  if (!str_is_set(value))
    a->gid = o->id;
  else if (str_to_u64(value, &n) && n <= UINT32_MAX)
    a->gid = (uint32_t)n;
  else if (user_find_group(value, &a->gid) <= 0)
    return owner_not_found(c, r, a, o, "group", value);
  return true;
}

enum route_result router_owner(struct ctx *c, const struct instance *r, struct address *a) {
  a->initgroups = router_options(r)->initgroups;
  if (!set_uid(c, r, a) || !set_gid(c, r, a))
    return ROUTE_DEFER;
  if (a->uid_set && !a->gid_set && router_options(r)->user.set)
    return router_defer(c, a, ERROR_UNKNOWN, "user set without group for %.*s router", STRF(r->name));
  return ROUTE_OK;
}

/* --- the lists --- */

static enum route_result add_fallback_hosts(struct ctx *c, const struct instance *r, struct address *a) {
  const struct router_options *o = router_options(r);
  struct str text;
  if (!str_is_set(o->fallback_hosts.text))
    return ROUTE_OK;
  int rc = expand_option(c, &o->fallback_hosts, &text);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "failed to expand fallback_hosts \"%.*s\" in %.*s router: %.*s",
        STRF(o->fallback_hosts.text), STRF(r->name), STRF(c->error));
  a->fallback_hosts = router_host_list(c, text, false);
  return ROUTE_OK;
}

enum route_result router_accept(struct ctx *c, const struct instance *r, struct address *a, struct instance *transport,
    struct route_lists *lists) {
  enum route_result rc;
  if ((rc = router_props(c, r, a, &a->prop)) || (rc = router_owner(c, r, a)))
    return rc;
  if (!transport && (rc = router_transport(c, r, a, &router_options(r)->transport, NULL, &transport)))
    return rc;
  if (!transport && !router_options(r)->verify_only && !route_verifying(a))
    return router_defer(c, a, ERROR_BAD_TRANSPORT, "transport unset in %.*s router", STRF(r->name));
  a->transport = transport;
  a->router = (struct instance *)r;
  bool local = transport && ((const struct transport_def *)transport->driver)->local;
  if (transport && !local && (rc = add_fallback_hosts(c, r, a)))
    return rc;
  struct address **list = local ? &lists->local : &lists->remote;
  a->next = *list;
  *list = a;
  return ROUTE_OK;
}

void router_copy_routing(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct transport_def *t = a->transport ? (const struct transport_def *)a->transport->driver : NULL;
  if (!t || t->local || str_is_set(a->prop.extra_headers) || str_is_set(a->prop.remove_headers))
    return;
  struct address **place = lists->remote == a ? &a->next : &lists->remote; /* behind it, in their order */
  for (struct address **link = &lists->pending, *other; (other = *link);) {
    if (other->kind != ADDRESS_MAIL || !str_eq(other->domain, a->domain) || other->start_router) {
      link = &other->next;
      continue;
    }
    *link = other->next;
    router_reset_local_part(r, other);
    other->router = a->router;
    other->transport = a->transport;
    other->hosts = a->hosts;
    other->fallback_hosts = a->fallback_hosts;
    other->prop.errors_address = a->prop.errors_address;
    other->prop.domain_data = a->prop.domain_data;
    other->uid = a->uid;
    other->gid = a->gid;
    other->uid_set = a->uid_set;
    other->gid_set = a->gid_set;
    other->initgroups = a->initgroups;
    other->result = OUTCOME_OK;
    other->next = *place;
    *place = other;
    place = &other->next;
  }
}
