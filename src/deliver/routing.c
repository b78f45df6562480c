/* From recipients to addresses with transports (Exim manual, sections
"Delivery in detail" and "Duplicate addresses"). */

#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "log/log.h"
#include "match/match.h"
#include "queue/retry.h"
#include "smtp/client/patience.h"
#include "transport/transport.h"

#define DEPTH_MAX 100

/* --- keys --- */

struct str delivery_key(struct delivery *d, const struct address *a) {
  if (!a->homonym || a->kind != ADDRESS_MAIL)
    return a->unique;
  /* The same address on two ways (unseen): the transport tells which of them is done. */
  struct str transport = a->transport ? a->transport->name : STR_EMPTY;
  return str_printf(d->c->arena, "%.*s/%.*s", STRF(address_plain_key(a)), STRF(transport));
}

static bool already_done(struct delivery *d, struct str key) {
  return d->m->nonrecipients && map_has(d->m->nonrecipients, key);
}

/* --- recipients --- */

static struct address *recipient_address(struct delivery *d, size_t i) {
  struct message *m = d->m;
  const struct recipient *r = &m->recipients.v[i];
  struct address *a = address_new(d->c->arena, r->address, (int)i);
  a->topaddr = a->address;
  a->prop.utf8_msg = m->smtputf8;
  if (str_is_set(r->errors_to) && r->errors_to.len)
    a->prop.errors_address = r->errors_to;
  if (r->parent >= 0 && (size_t)r->parent < m->recipients.n)
    a->onetime_parent = m->recipients.v[r->parent].address;
  a->dsn_flags = r->dsn_flags;
  a->dsn_orcpt = r->orcpt;
  a->started = m->received_time.tv_sec;
  return a;
}

/* With more Received: lines than received_headers_max there is a loop somewhere. The new one is ours. */
static bool looping(struct delivery *d) {
  return d->m->received_count > main_options(d->c->config)->received_headers_max;
}

void delivery_recipients(struct delivery *d) {
  struct address **tail = &d->fresh;
  if (d->how->give_up && str_is_set(d->how->give_up_by))
    log_write(LOG_MAIN, d->m, "cancelled by %.*s", STRF(d->how->give_up_by));
  for (size_t i = 0; i < d->m->recipients.n; i++) {
    struct address *a = recipient_address(d, i);
    if (already_done(d, a->unique))
      continue;
    if (d->how->give_up) {
      a->result = OUTCOME_FAIL; /* why is in the log, once for all of them */
      a->next = d->failed;
      d->failed = a;
      continue;
    }
    if (d->how->wanted && !d->how->wanted(d->how->wanted_arg, d->c, a->domain)) {
      delivery_put_off(d, a);
      continue;
    }
    if (looping(d)) {
      a->result = OUTCOME_FAIL;
      a->message = STR("Too many \"Received\" headers - suspected mail loop"); /* for the log, not for the sender */
      delivery_outcome(d, a, true);
      continue;
    }
    *tail = a;
    tail = &a->next;
  }
}

/* --- before an address is routed --- */

static struct address *take(struct address **list) {
  struct address *a = *list;
  *list = a->next;
  a->next = NULL;
  return a;
}

static void defer(struct delivery *d, struct address *a, int error, struct str text) {
  a->result = OUTCOME_DEFER;
  a->basic_errno = error;
  a->message = text;
  a->waits = error != ERROR_BAD_TRANSPORT;
  delivery_outcome(d, a, true);
}

static int domain_listed(struct delivery *d, struct address *a, const struct option_expr *list) {
  address_set_vars(d->c, a);
  int rc = match_domain(d->c, list, a->domain, NULL);
  address_clear_vars(d->c);
  return rc;
}

/* hold_domains. True: the address waits. */
static bool held(struct delivery *d, struct address *a) {
  const struct main_options *o = main_options(d->c->config);
  if (str_is_set(o->hold_domains.text) && !d->how->force) {
    int rc = domain_listed(d, a, &o->hold_domains);
    if (rc == OUTCOME_OK)
      return defer(d, a, ERROR_HELD, STR("domain is held")), true;
    if (rc != OUTCOME_FAIL)
      return defer(d, a, ERROR_LIST_DEFER, STR("hold_domains lookup deferred")), true;
  }
  return false;
}

/* queue_domains: the last thing before an address is routed. */
static bool queued(struct delivery *d, struct address *a) {
  const struct main_options *o = main_options(d->c->config);
  if (!str_is_set(o->queue_domains.text) || d->how->queue_run || d->how->force)
    return false;
  int rc = domain_listed(d, a, &o->queue_domains);
  if (rc == OUTCOME_FAIL)
    return false;
  a->routing = true;
  if (rc == OUTCOME_OK)
    defer(d, a, ERROR_QUEUE_DOMAIN, STR("domain is in queue_domains"));
  else
    defer(d, a, ERROR_LIST_DEFER, STR("queue_domains lookup deferred"));
  return true;
}

/* An address that is (or will be) delivered for another one too. */
static bool duplicate(struct delivery *d, struct address *a) {
  struct address *other = map_get(d->seen, a->unique);
  if (!other) {
    map_set(d->seen, a->unique, a);
    return false;
  }
  a->duplicate_of = other;
  a->next = d->duplicates;
  d->duplicates = a;
  return true;
}

/* Pipes and files from a forward file are not routed: they have their transport, or a reason why not. */
static void place_special(struct delivery *d, struct address *a) {
  bool allowed = a->kind == ADDRESS_PIPE ? a->af_allow_pipe : a->kind == ADDRESS_FILE ? a->af_allow_file : a->af_allow_reply;
  if (a->result != OUTCOME_DEFER && !allowed) {
    const char *what = a->kind == ADDRESS_PIPE ? "pipe" : a->kind == ADDRESS_FILE ? "file" : "autoreply";
    a->result = OUTCOME_FAIL;
    a->basic_errno = a->kind == ADDRESS_PIPE ? ERROR_FORBID_PIPE : a->kind == ADDRESS_FILE ? ERROR_FORBID_FILE : ERROR_FORBID_REPLY;
    a->message = str_printf(d->c->arena, "delivery to %s forbidden", what);
    delivery_outcome(d, a, true);
    return;
  }
  if (a->result == OUTCOME_DEFER) {
    delivery_outcome(d, a, true);
    return;
  }
  if (a->kind == ADDRESS_FILE && str_eq_c(a->address, "/dev/null")) {
    a->result = OUTCOME_OK;
    a->bypassed = true;
    delivery_outcome(d, a, true);
    return;
  }
  a->next = d->local;
  d->local = a;
}

static unsigned depth_of(const struct address *a) {
  unsigned n = 0;
  for (; a->parent; a = a->parent)
    n++;
  return n;
}

/* All that can be said of a fresh address without routers. The list of those to be routed is built backwards: Exim's order. */
static struct address *choose_fresh(struct delivery *d) {
  struct address *route = NULL;
  while (d->fresh) {
    struct address *a = take(&d->fresh);
    if (already_done(d, delivery_key(d, a))) {
      delivery_done(d, a);
      continue;
    }
    if (route_percent_hack(d->c, a) != ROUTE_OK) {
      delivery_outcome(d, a, true);
      continue;
    }
    /* The same address on another way may go elsewhere from here (loop checks): only what is delivered counts. */
    if (a->kind != ADDRESS_MAIL) {
      if (!duplicate(d, a))
        place_special(d, a);
      continue;
    }
    if (depth_of(a) > DEPTH_MAX) {
      defer(d, a, ERROR_UNKNOWN, STR("address is redirected too often"));
      continue;
    }
    if (held(d, a))
      continue;
    if (d->how->over && !d->how->force && retry_routing_failed(d->c, a)) {
      defer(d, a, ERROR_ROUTING_RETRY, STR("reusing SMTP connection skips previous routing defer"));
      continue;
    }
    if (d->how->queue_run && !d->how->force && !retry_address_ready(d->c, a, true)) {
      a->user_message = str_dup(d->c->arena, d->c->error); /* for warnings */
      defer(d, a, ERROR_ROUTING_RETRY, STR("retry time not reached"));
      continue;
    }
    a->next = route;
    route = a;
  }
  return route;
}

/* --- after it --- */

static void add_children(struct delivery *d, struct address *parent, struct address *children) {
  struct address **tail = &children;
  for (; *tail; tail = &(*tail)->next)
    if ((*tail)->parent == parent)
      parent->child_pending++;
  *tail = d->fresh;
  d->fresh = children;
}

/* What makes two addresses the same delivery: address and transport. The copy that an `unseen` router took stands beside
the original, which goes on: both are wanted, whichever transport they have. */
static struct str delivered_key(struct delivery *d, const struct address *a) {
  struct str transport = a->transport ? a->transport->name : STR_EMPTY, router = a->unseen && a->router ? a->router->name : STR_EMPTY;
  return str_printf(d->c->arena, "%.*s/%.*s%s%.*s", STRF(address_plain_key(a)), STRF(transport), router.len ? "/" : "", STRF(router));
}

/* When all is routed: one delivery for those that go to the same address by the same transport. The first of the list
is it; the others hang on it, and are named in its Envelope-to: line. */
static void remove_duplicates(struct delivery *d, struct address **list) {
  for (struct address **link = list, *a; (a = *link);) {
    struct str key = delivered_key(d, a);
    struct address *other = a->kind == ADDRESS_MAIL ? map_get(d->seen, key) : NULL;
    if (!other) {
      if (a->kind == ADDRESS_MAIL)
        map_set(d->seen, key, a);
      link = &a->next;
      continue;
    }
    *link = a->next;
    a->duplicate_of = other;
    a->next_duplicate = other->its_duplicates;
    other->its_duplicates = a;
    a->next = d->duplicates;
    d->duplicates = a;
  }
}

static void place_taken(struct delivery *d, struct address *list, bool local) {
  while (list) {
    struct address *a = take(&list);
    retry_address_succeeded(d->c, a);
    if (already_done(d, delivery_key(d, a))) {
      delivery_done(d, a);
      continue;
    }
    if (!a->transport) {
      defer(d, a, ERROR_BAD_TRANSPORT, str_printf(d->c->arena, "no transport set by %.*s router", STRF(a->router->name)));
    } else if (local) {
      a->next = d->local;
      d->local = a;
    } else {
      a->next = d->remote;
      d->remote = a;
    }
  }
}

static void route_one(struct delivery *d, struct address *a, struct address **pending) {
  struct route_lists lists = {.mode = ROUTE_FOR_DELIVERY, .pending = *pending};
  struct patience p;
  patience_begin_routing(&p, d->m, a->address);
  enum route_result rc = route_address(d->c, a, &lists);
  patience_end(&p);
  *pending = lists.pending;
  if (lists.children)
    add_children(d, a, lists.children);
  place_taken(d, lists.local, true);
  place_taken(d, lists.remote, false);
  switch (rc) {
  case ROUTE_FAIL:
  case ROUTE_DEFER:
  case ROUTE_ERROR:
    a->next = NULL;
    delivery_outcome(d, a, true);
    break;
  case ROUTE_DISCARD:
    a->next = NULL;
    a->result = OUTCOME_OK;
    a->blackholed = true;
    delivery_outcome(d, a, true);
    break;
  case ROUTE_REROUTED:
    delivery_redirected(d, a);
    if (!a->child_pending)
      delivery_done(d, a);
    break;
  default:
    break;
  }
}

void delivery_route(struct delivery *d) {
  while (d->fresh) {
    struct address *route = choose_fresh(d);
    while (route) {
      struct address *a = take(&route);
      if (!queued(d, a))
        route_one(d, a, &route);
    }
  }
  remove_duplicates(d, &d->local);
  remove_duplicates(d, &d->remote);
}

/* A remote address may have to wait although it is routed. */
static bool waits(struct delivery *d, struct address *a) {
  const struct main_options *o = main_options(d->c->config);
  const struct transport_def *def = (const struct transport_def *)a->transport->driver;
  if ((d->how->route_only || d->how->queue_smtp) && def->waits) {
    address_set_vars(d->c, a);
    def->waits(d->c, a->transport, a);
    address_clear_vars(d->c);
  }
  if (d->how->route_only)
    return delivery_put_off(d, a), true;
  if (d->how->local_only)
    return defer(d, a, ERROR_LOCAL_ONLY, STR("remote deliveries suppressed")), true;
  if (d->how->queue_smtp)
    return defer(d, a, 0, STR("SMTP delivery explicitly queued")), true;
  if (!str_is_set(o->queue_smtp_domains.text) || d->how->queue_run || d->how->force)
    return false;
  if (domain_listed(d, a, &o->queue_smtp_domains) == OUTCOME_FAIL)
    return false;
  defer(d, a, ERROR_UNKNOWN, STR("first-pass only routing due to -odqs, queue_smtp_domains or control=queue"));
  return true;
}

void delivery_hold_remote(struct delivery *d) {
  struct address *list = d->remote, **tail = &d->remote;
  d->remote = NULL;
  while (list) {
    struct address *a = take(&list);
    if (waits(d, a))
      continue;
    *tail = a;
    tail = &a->next;
  }
}
