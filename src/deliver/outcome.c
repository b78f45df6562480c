/* What became of an address: log lines, and what is crossed off. */

#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "deliver/logline.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "log/log.h"
#include "queue/retry.h"
#include "queue/spool.h"
#include "transport/event.h"
#include "transport/header.h"
#include "transport/options.h"
#include "transport/transport.h"

/* --- crossing off --- */

static void cross_off(struct delivery *d, struct address *a) {
  struct message *m = d->m;
  /* A homonym that only led to others has no key of its own: its children have theirs. */
  if (a->homonym && a->kind == ADDRESS_MAIL && !a->transport)
    return;
  struct str key = delivery_key(d, a);
  if (!m->nonrecipients)
    m->nonrecipients = map_new(m->arena);
  if (map_has(m->nonrecipients, key))
    return;
  map_set(m->nonrecipients, key, m);
  vec_push(d->c->arena, &d->done, key);
}

void delivery_done(struct delivery *d, struct address *a) {
  if (a->done)
    return;
  a->done = true;
  cross_off(d, a);
  struct address *parent = a->parent;
  if (!parent || (parent->child_pending && --parent->child_pending))
    return;
  msglog_add(&d->log, "%.*s: children all complete", STRF(parent->address));
  delivery_done(d, parent);
}

void delivery_journal(struct delivery *d) {
  size_t from = d->journalled;
  if (from >= d->done.n)
    return;
  size_t to = d->done.n;
  if (spool_journal(d->c, d->m, d->done.v + from, to - from))
    log_write(LOG_MAIN | LOG_PANIC, d->m, "failed to update journal: deliveries may be repeated after a crash");
  else if (d->journalled < to)
    d->journalled = to;
}

/* --- the three outcomes --- */

static void succeeded(struct delivery *d, struct address *a, bool first) {
  const char *flag = d->m->deliver_bypassed ? "*>" : first ? "=>" : "->";
  if (a->transport)
    retry_address_succeeded(d->c, a);
  if (!logline_disabled(a))
    log_write(LOG_MAIN, d->m, "%.*s", STRF(logline_success(d->c, a, flag)));
  if (a->transport)
    msglog_add(&d->log, "%.*s: %.*s transport succeeded", STRF(logline_address(d->c, a, false)), STRF(a->transport->name));
  if (a->transport)
    event_address(d->c, a, "msg:delivery", a->confirmation, 0);
  if (a->dsn_flags & DSN_NOTIFY_SUCCESS && !a->used_dsn && !d->m->deliver_bypassed)
    delivery_tell(d, a, a->transport && !((const struct transport_def *)a->transport->driver)->local ? "relayed" : "delivered");
  delivery_done(d, a);
}

static void deferred(struct delivery *d, struct address *a) {
  if (a->put_off) {
    a->next = d->deferred;
    d->deferred = a;
    return;
  }
  struct str line = logline_deferred(d->c, a);
  bool tried = a->basic_errno > ERROR_RETRY_BASE;
  if (a->special_action_freeze)
    d->freeze = true;
  if (!logline_disabled(a) && (tried || log_selected(LOGSEL_retry_defer)))
    log_write(LOG_MAIN | (a->panic ? LOG_PANIC : 0), d->m, "== %.*s", STRF(line));
  if (tried || d->m->deliver_first_time)
    msglog_add(&d->log, "%.*s", STRF(line));
  a->next = d->deferred;
  d->deferred = a;
}

static struct str reason(const struct address *a) { return str_is_set(a->message) && a->message.len ? a->message : a->user_message; }

static void failed(struct delivery *d, struct address *a) {
  struct str line = logline_failed(d->c, a);
  if (a->special_action_freeze)
    d->freeze = true;
  if (!a->transport)
    event_address(d->c, a, "msg:fail:internal", reason(a), 0);
  if (!logline_disabled(a))
    log_write(LOG_MAIN, d->m, "** %.*s", STRF(line));
  if (a->transport)
    event_address(d->c, a, "msg:fail:delivery", reason(a), 0);
  msglog_add(&d->log, "%s%.*s", a->router || a->kind != ADDRESS_MAIL ? "" : "routing failed for ", STRF(line));
  a->next = d->failed;
  d->failed = a;
}

void delivery_outcome(struct delivery *d, struct address *a, bool first) {
  a->next = NULL;
  if (a->result == OUTCOME_OK)
    succeeded(d, a, first);
  else if (a->result == OUTCOME_FAIL)
    failed(d, a);
  else
    deferred(d, a);
}

void delivery_put_off(struct delivery *d, struct address *a) {
  a->result = OUTCOME_DEFER;
  a->waits = a->put_off = true;
  delivery_outcome(d, a, true);
}

void delivery_outcomes(struct delivery *d, struct address *chain) {
  bool first = true;
  struct address *next;
  for (struct address *a = chain; a; a = a->next)
    for (struct str rest = a->host_errors; str_is_set(rest) && rest.len;) {
      struct str line = str_cut(&rest, '\n');
      msglog_add(&d->log, "%.*s", STRF(line));
    }
  int transaction = 0;
  const struct host *host = NULL;
  for (struct address *a = chain; a; a = next) {
    next = a->next;
    /* A later transaction begins anew, and so does another host; an earlier one of the same connection does not. */
    delivery_outcome(d, a, first || a->transaction > transaction || (a->transaction != transaction && a->host_used != host));
    if (a->result == OUTCOME_OK) {
      transaction = a->transaction > transaction || a->host_used != host ? a->transaction : transaction;
      host = a->host_used;
      first = false;
    }
  }
}

bool delivery_slot_enter(struct delivery *d, struct ctx *c, struct address *chain, struct str *ret_key) {
  const struct option_expr *o = &transport_options(chain->transport)->max_parallel;
  int64_t max = 0;
  *ret_key = STR_UNSET;
  if (!str_is_set(o->text) || d->m->deliver_bypassed)
    return true;
  if (expand_option_int(c, o, "max_parallel", &max)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "failed to expand max_parallel option in %.*s transport: %.*s", STRF(chain->transport->name), STRF(c->error)));
    return false;
  }
  if (max <= 0)
    return true;
  struct str key = str_printf(c->arena, "tpt-serialize-%.*s", STRF(chain->transport->name));
  if (hint_count_enter(c, key, max)) {
    *ret_key = key;
    return true;
  }
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_CONCURRENCY, STR("concurrency limit reached for transport"));
  return false;
}

void delivery_slot_leave(struct ctx *c, struct str key) {
  if (str_is_set(key))
    hint_count_leave(c, key);
}

void delivery_pretend(struct delivery *d, struct address *chain) {
  for (struct address *a = chain; a; a = a->next) {
    a->result = OUTCOME_OK;
    a->basic_errno = 0;
  }
}
