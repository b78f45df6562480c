/* Local deliveries, one after the other, with batches where a transport
allows them (Exim manual, chapters "Environment for running local transports"
and "Address batching in local transports"). */

#include "base/time.h"
#include "config/option.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "queue/retry.h"
#include "route/options.h"
#include "transport/header.h"
#include "transport/options.h"
#include "transport/transport.h"

#define JOURNAL_AFTER 4 /* deliveries that may be repeated if the machine dies in between */

/* --- may two addresses go together? --- */

static bool same_str(struct str a, struct str b) {
  return str_is_set(a) == str_is_set(b) && (!str_is_set(a) || str_eq(a, b));
}

bool delivery_same_batch(const struct address *a, const struct address *b) {
  if (a->transport != b->transport || a->kind != b->kind)
    return false;
  if (a->kind != ADDRESS_MAIL && !str_eq(a->address, b->address))
    return false;
  if (!same_str(a->prop.errors_address, b->prop.errors_address) || !same_str(a->prop.extra_headers, b->prop.extra_headers) ||
      !same_str(a->prop.remove_headers, b->prop.remove_headers))
    return false;
  if (a->uid_set != b->uid_set || a->gid_set != b->gid_set || (a->uid_set && a->uid != b->uid) || (a->gid_set && a->gid != b->gid) ||
      a->initgroups != b->initgroups)
    return false;
  return a->prop.utf8_msg == b->prop.utf8_msg && a->prop.ignore_error == b->prop.ignore_error;
}

static bool first_host_same(const struct address *a, const struct address *b) {
  if (!a->hosts || !b->hosts)
    return !a->hosts && !b->hosts;
  return str_ieq(a->hosts->name, b->hosts->name) && a->hosts->port == b->hosts->port;
}

/* Does any string option of a table name the variable? */
static bool table_refers(const struct option_def *defs, const void *block, struct str plain, struct str braced) {
  for (const struct option_def *o = defs; o && o->name && block; o++) {
    struct str text = STR_UNSET;
    if (o->flags & OPTION_ALIAS)
      continue;
    if (o->type == OPTION_STRING)
      text = *(const struct str *)((const char *)block + o->offset);
    else if (o->type == OPTION_EXPR || o->type == OPTION_LIST || o->type == OPTION_EXPR_BOOL)
      text = ((const struct option_expr *)((const char *)block + o->offset))->text;
    if (str_is_set(text) && (str_find(text, plain) >= 0 || str_find(text, braced) >= 0))
      return true;
  }
  return false;
}

static bool transport_refers(const struct instance *t, struct str plain, struct str braced) {
  return table_refers(transport_generic_options, t->generic, plain, braced) ||
         table_refers(t->driver->options, t->options, plain, braced);
}

/* batch_id for one address; false: it cannot be told, so no batch. */
static bool batch_id(struct delivery *d, const struct transport_batch *b, const struct address *a, struct str *ret) {
  struct address alone = *a;
  alone.next = NULL;
  *ret = STR_EMPTY;
  if (!str_is_set(b->id.text))
    return true;
  address_set_vars(d->c, &alone);
  int rc = expand_option(d->c, &b->id, ret);
  if (rc)
    log_write(LOG_MAIN | LOG_PANIC, d->m, "Failed to expand batch_id option in %.*s transport (%.*s): %.*s", STRF(a->transport->name),
        STRF(a->address), STRF(d->c->error));
  address_clear_vars(d->c);
  return rc == 0;
}

/* Moves what can go along with `first` from the local list behind it. */
static void collect_batch(struct delivery *d, struct address *first, const struct transport_batch *b) {
  const struct instance *t = first->transport;
  struct str id, other;
  if (!b || b->max <= 1 || !d->local)
    return;
  bool by_local_part = transport_refers(t, STR("$local_part"), STR("${local_part"));
  bool by_domain = transport_refers(t, STR("$domain"), STR("${domain"));
  if (!batch_id(d, b, first, &id))
    return;
  struct address **tail = &first->next;
  int64_t n = 1;
  for (struct address **link = &d->local, *a; (a = *link) && n < b->max;) {
    if (!delivery_same_batch(first, a) || !first_host_same(first, a) || (by_domain && !str_eq(first->domain, a->domain)) ||
        (by_local_part && !str_eq(first->local_part, a->local_part)) ||
        !batch_id(d, b, a, &other) || !str_eq(id, other)) {
      link = &a->next;
      continue;
    }
    *link = a->next;
    a->next = NULL;
    *tail = a;
    tail = &a->next;
    n++;
  }
}

/* --- one delivery --- */

static bool expand_directory(struct delivery *d, struct address *chain, const struct option_expr *o, const char *which, struct str *ret) {
  struct str text, transport = chain->transport->name;
  int error = ERROR_EXPAND_FAIL;
  if (!str_is_set(o->text))
    return true;
  if (expand_option(d->c, o, &text)) {
    text = str_printf(d->c->arena, "%s directory \"%.*s\" failed to expand for %.*s transport: %.*s", which, STRF(o->text), STRF(transport),
        STRF(d->c->error));
  } else if (!str_starts(text, STR("/"))) {
    error = ERROR_NOT_ABSOLUTE;
    text = str_printf(d->c->arena, "%s directory path \"%.*s\" is not absolute for %.*s transport", which, STRF(text), STRF(transport));
  } else {
    *ret = text;
    return true;
  }
  log_write(LOG_MAIN | LOG_PANIC, d->m, "%.*s", STRF(text));
  for (struct address *a = chain; a; a = a->next) {
    a->result = OUTCOME_DEFER;
    a->basic_errno = error;
    a->message = text;
  }
  return false;
}

/* The router's directories, which are expanded now. */
static bool set_directories(struct delivery *d, struct address *chain) {
  if (!chain->router)
    return true;
  const struct router_options *o = router_options(chain->router);
  d->c->vars.home = chain->home;
  return expand_directory(d, chain, &o->transport_home_directory, "home", &chain->home) &&
         expand_directory(d, chain, &o->transport_current_directory, "current", &chain->current_dir);
}

/* What the log says of a shadow: its name, and in parentheses what went wrong. */
static struct str shadow_text(struct delivery *d, const struct instance *shadow, const struct address *copy) {
  struct str text = str_is_set(copy->message) ? copy->message : STR_EMPTY;
  if (copy->result == OUTCOME_OK)
    return shadow->name;
  const char *why = copy->basic_errno > 0 ? strerror(copy->basic_errno) : "";
  return str_printf(d->c->arena, "%.*s (%s%s%.*s)", STRF(shadow->name), why, *why && text.len ? ": " : "", STRF(text));
}

static bool shadow_wanted(struct delivery *d, const struct instance *t) {
  const struct option_expr *o = &transport_options(t)->shadow_condition;
  struct str value;
  if (!str_is_set(o->text))
    return true;
  int rc = expand_option(d->c, o, &value);
  if (rc && rc != OUTCOME_FORCED)
    log_write(LOG_MAIN | LOG_PANIC, d->m, "failed to expand condition \"%.*s\" for %.*s transport: %.*s", STRF(o->text),
        STRF(t->name), STRF(d->c->error));
  return !rc && value.len && !str_eq_c(value, "0") && !str_ieq_c(value, "no") && !str_ieq_c(value, "false");
}

/* shadow_transport: what was delivered goes to another transport as well, whose result is only told in the log. */
static void run_shadow(struct delivery *d, struct address *chain) {
  const struct instance *t = chain->transport;
  struct str name = transport_options(t)->shadow_transport;
  struct address *copies = NULL, **tail = &copies;
  if (!str_is_set(name) || d->m->deliver_bypassed)
    return;
  struct instance *shadow = config_driver(d->c->config, DRIVER_TRANSPORT, name);
  for (struct address *a = chain; a; a = a->next) {
    if (a->result != OUTCOME_OK)
      continue;
    struct address *copy = *tail = arena_memdup(d->c->arena, a, sizeof *a);
    copy->next = NULL;
    copy->transport = shadow;
    copy->result = OUTCOME_DEFER;
    copy->basic_errno = 0;
    copy->message = copy->return_file = STR_UNSET;
    copy->special_action_freeze = false;
    tail = &copy->next;
  }
  if (copies && !shadow)
    log_write(LOG_MAIN | LOG_PANIC, d->m, "shadow transport \"%.*s\" not found ", STRF(name));
  if (!copies || !shadow || !shadow_wanted(d, t))
    return;
  d->c->transport = shadow;
  if (transport_return_path(d->c, shadow, copies))
    ((const struct transport_def *)shadow->driver)->deliver(d->c, shadow, copies);
  d->c->transport = t;
  for (struct address *a = chain; a; a = a->next)
    if (a->result == OUTCOME_OK) {
      a->delivered_to = shadow_text(d, shadow, copies);
      copies = copies->next;
    }
}

static void run(struct delivery *d, struct address *chain) {
  struct ctx *c = d->c;
  const struct transport_def *def = (const struct transport_def *)chain->transport->driver;
  struct host *saved = c->host;
  struct str slot = STR_UNSET;
  int64_t start = time_now_usec();
  address_set_vars(c, chain);
  c->router = chain->router;
  c->transport = chain->transport;
  c->host = chain->hosts;
  if (d->m->deliver_bypassed)
    delivery_pretend(d, chain);
  else if (delivery_slot_enter(d, c, chain, &slot) && set_directories(d, chain) &&
           transport_return_path(c, chain->transport, chain)) {
    def->deliver(c, chain->transport, chain);
    run_shadow(d, chain);
  }
  delivery_slot_leave(c, slot);
  c->host = saved;
  c->transport = c->router = NULL;
  address_clear_vars(c);
  for (struct address *a = chain; a; a = a->next)
    a->time_taken = time_now_usec() - start;
  delivery_outcomes(d, chain);
}

static bool too_early(struct delivery *d, struct address *a) {
  if (!d->how->queue_run || d->how->force || retry_address_ready(d->c, a, false))
    return false;
  a->result = OUTCOME_DEFER;
  a->basic_errno = ERROR_LOCAL_RETRY;
  a->message = STR("Retry time not yet reached");
  delivery_outcome(d, a, true);
  return true;
}

void delivery_run_local(struct delivery *d) {
  while (d->local) {
    struct address *a = d->local;
    d->local = a->next;
    a->next = NULL;
    if (d->how->over) {
      delivery_put_off(d, a);
      continue;
    }
    if (too_early(d, a))
      continue;
    const struct transport_def *def = (const struct transport_def *)a->transport->driver;
    collect_batch(d, a, def->batch ? def->batch(a->transport) : NULL);
    run(d, a);
    if (d->local && d->done.n - d->journalled >= JOURNAL_AFTER)
      delivery_journal(d);
  }
}
