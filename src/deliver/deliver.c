#include "deliver/deliver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "acl/acl.h"
#include "base/time.h"
#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "deliver/logline.h"
#include "deliver/report.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "queue/retry.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "transport/event.h"
#include "transport/transport.h"

/* --- waiting --- */

static int64_t sooner(int64_t a, int64_t b) { return b > 0 && (a == 0 || b < a) ? b : a; }

int64_t deliver_next_event(const struct config *config, const struct message *m) {
  const struct main_options *o = main_options(config);
  int64_t arrived = m->received_time.tv_sec, at = 0;
  if (!m->frozen)
    return delivery_next_warning(o, m);
  if (o->timeout_frozen_after > 0)
    at = sooner(at, arrived + o->timeout_frozen_after);
  if (!m->reverse_path.len)
    at = sooner(at, arrived + o->ignore_bounce_errors_after);
  if (o->auto_thaw > 0 && !m->manual_thaw)
    at = sooner(at, m->frozen_time + o->auto_thaw);
  return at;
}

static bool waits_for_time(const struct delivery *d) {
  if (d->duplicates || d->m->deliver_bypassed)
    return false;
  for (const struct address *a = d->deferred; a; a = a->next) {
    bool retry = a->basic_errno == ERROR_ROUTING_RETRY || a->basic_errno == ERROR_LOCAL_RETRY || a->basic_errno == ERROR_HOST_RETRY;
    if (a->waits || a->panic || (a->basic_errno <= ERROR_RETRY_BASE && !retry))
      return false;
  }
  return true;
}

/* --- frozen messages --- */

static int64_t age_of(const struct message *m) { return time(NULL) - m->received_time.tv_sec; }

static void unfreeze(struct delivery *d, const char *why) {
  log_write(LOG_MAIN, d->m, "Unfrozen by %s", why);
  msglog_add(&d->log, "Unfrozen by %s", why);
  d->m->frozen = false;
  d->m->manual_thaw = false;
  d->rewrite_header = true;
}

/* A frozen message may be thawed, or given up. False: it stays as it is. */
static bool thaw(struct delivery *d, struct deliver_how *how) {
  const struct main_options *o = main_options(d->c->config);
  struct message *m = d->m;
  int64_t frozen_for = time(NULL) - m->frozen_time;
  if (how->force_frozen) {
    unfreeze(d, "forced delivery");
    m->manual_thaw = true; /* for filters: a forced delivery counts as one */
    return true;
  }
  if (how->give_up)
    return true;
  if (o->timeout_frozen_after > 0 && age_of(m) >= o->timeout_frozen_after) {
    log_write(LOG_MAIN, m, "cancelled by timeout_frozen_after");
    how->give_up = true;
    return true;
  }
  if (!m->reverse_path.len && age_of(m) >= o->ignore_bounce_errors_after) {
    unfreeze(d, "errmsg timer");
    return true;
  }
  if (o->auto_thaw > 0 && frozen_for >= o->auto_thaw && !m->manual_thaw) {
    unfreeze(d, "auto-thaw");
    return true;
  }
  if (log_selected(LOGSEL_skip_delivery))
    log_write(LOG_MAIN, m, "Message is frozen");
  return false;
}

/* Begins the note about a frozen message for those whom freeze_tell names. False: there is nobody. */
static bool start_note(struct ctx *c, const struct message *m, const char *subject, struct submit *s) {
  const struct main_options *o = main_options(c->config);
  struct str text = o->freeze_tell.text;
  if (!str_is_set(text) || !text.len || m->local_error_message)
    return false;
  submit_init(s, c->arena, m);
  for (struct str rest = text; str_is_set(rest) && rest.len;) {
    struct str to = str_trim(str_cut(&rest, ','));
    if (!to.len)
      continue;
    if (str_find_byte(to, '@') < 0)
      to = str_printf(c->arena, "%.*s@%.*s", STRF(to), STRF(o->qualify_domain));
    vec_push(c->arena, &s->recipients, to);
  }
  struct str references = report_references(c, m);
  buf_printf(&s->header, "Auto-Submitted: auto-replied\nFrom: %.*s\nTo: %.*s\n%.*sSubject: %s\n", STRF(submit_from(c)),
      STRF(text), STRF(str_is_set(references) ? references : STR_EMPTY), subject);
  return true;
}

void deliver_tell_frozen_on_arrival(struct ctx *c, const struct message *m) {
  struct submit s;
  if (!start_note(c, m, "Message frozen on arrival", &s))
    return;
  buf_printf(&s.body, "Message %s was frozen on arrival by ACL.\nThe sender is <%.*s>.\n", m->id, STRF(m->reverse_path));
  submit_message(c, &s);
}

static void tell_frozen(struct delivery *d) {
  struct submit s;
  if (!start_note(d->c, d->m, "Message frozen", &s))
    return;
  buf_printf(&s.body, "Message %s has been frozen%.*s.\n", d->m->id, STRF(d->freeze_reason));
  for (struct str rest = d->freeze_detail; str_is_set(rest) && rest.len;) {
    struct str line = str_cut(&rest, '\n');
    buf_printf(&s.body, str_is_set(rest) ? "%.*s \n" : "%.*s.\n", STRF(line));
  }
  buf_printf(&s.body, "The sender is <%.*s>.\n", STRF(d->m->reverse_path));
  if (d->deferred)
    buf_add_c(&s.body, "\nThe following address(es) have yet to be delivered:\n");
  for (const struct address *a = d->deferred; a; a = a->next) {
    buf_printf(&s.body, "  %.*s", STRF(a->address));
    if (str_is_set(a->message) && a->message.len)
      buf_printf(&s.body, ": %.*s", STRF(a->message));
    buf_add_byte(&s.body, '\n');
  }
  submit_message(d->c, &s);
}

static void freeze(struct delivery *d) {
  d->m->frozen = true;
  d->m->frozen_time = time(NULL);
  d->m->manual_thaw = false;
  d->rewrite_header = true;
  struct str why = d->freeze_reason;
  if (str_is_set(d->freeze_detail) && d->freeze_detail.len)
    why = str_cat(d->c->arena, why, str_cat(d->c->arena, STR(": "), log_printable(d->c->arena, d->freeze_detail)));
  tell_frozen(d);
  log_write(LOG_MAIN, d->m, "Frozen%.*s", STRF(why));
  msglog_add_plain(&d->log, str_printf(d->c->arena, "*** Frozen%.*s", STRF(why)));
}

int deliver_freeze(struct ctx *c, struct message *m, struct str reason) {
  struct msglog log;
  msglog_init(&log, c->arena);
  m->frozen = true;
  m->frozen_time = time(NULL);
  log_write(LOG_MAIN, m, "%.*s", STRF(reason));
  msglog_add(&log, "%.*s", STRF(reason));
  msglog_write(&log, c, m);
  return spool_write_header(c, m, true);
}

/* --- after all attempts --- */

/* Temporary failures write their retry records; those whose time is up become permanent. */
static void update_retry(struct delivery *d) {
  for (struct address **link = &d->deferred, *a; (a = *link);) {
    bool unset = a->kind != ADDRESS_MAIL && !a->transport; /* of the configuration: looked at again each time */
    if (a->waits || unset || a->panic || a->basic_errno <= ERROR_RETRY_BASE || d->m->deliver_bypassed || !retry_address_deferred(d->c, a)) {
      link = &a->next;
      continue;
    }
    *link = a->next;
    struct str shown = (a->pass_message || a->host_used) && str_is_set(a->message) ? a->message : a->user_message;
    if (a->transport && ((const struct transport_def *)a->transport->driver)->local && !str_is_set(shown))
      shown = a->basic_errno == ERROR_QUOTA || a->basic_errno == EDQUOT ? STR("mailbox is full") : a->basic_errno == 0 ? STR("local delivery failed") : STR_UNSET;
    log_write(LOG_MAIN, d->m, "** %.*s: retry timeout exceeded", STRF(logline_address(d->c, a, false)));
    msglog_add(&d->log, "%.*s: retry timeout exceeded", STRF(logline_address(d->c, a, false)));
    struct str told = str_is_set(a->message) && a->message.len ? str_printf(d->c->arena, "%.*s: retry timeout exceeded", STRF(a->message))
                                                               : STR("retry timeout exceeded");
    event_address(d->c, a, a->transport ? "msg:fail:delivery" : "msg:fail:internal", told, 0);
    a->message = str_is_set(shown) && shown.len ? str_printf(d->c->arena, "%.*s: retry timeout exceeded", STRF(shown))
                                                : STR("retry timeout exceeded");
    a->pass_message = a->retry_timed_out = true;
    a->result = OUTCOME_FAIL;
    a->next = d->failed;
    d->failed = a;
  }
}

/* Addresses that were delivered together with another one. Some may depend on others of them. */
static void settle_duplicates(struct delivery *d) {
  bool progress = true;
  while (progress) {
    progress = false;
    for (struct address **link = &d->duplicates, *a; (a = *link);) {
      if (!a->duplicate_of->done) {
        link = &a->next;
        continue;
      }
      *link = a->next;
      a->next = NULL;
      delivery_done(d, a);
      progress = true;
    }
  }
}

/* one_time: what is left of a list's members become recipients, in the order in which they were put off, and the list is done. */
static void keep_one_time(struct delivery *d) {
  struct message *m = d->m;
  VEC(struct address *) kept = {0};
  for (struct address *a = d->deferred; a; a = a->next)
    if (a->one_time && a->kind == ADDRESS_MAIL && a != address_top(a))
      vec_push(d->c->arena, &kept, a);
  while (kept.n) {
    struct address *a = kept.v[--kept.n];
    struct recipient r = {.address = str_dup(m->arena, a->address), .errors_to = str_dup(m->arena, a->prop.errors_address),
        .orcpt = STR_UNSET, .parent = a->recipient};
    if (!str_is_set(a->prop.errors_address))
      r.errors_to = STR_UNSET;
    vec_push(m->arena, &m->recipients, r);
    delivery_done(d, (struct address *)address_top(a));
    d->rewrite_header = true;
  }
}

static void log_completed(struct delivery *d) {
  if (!log_selected(LOGSEL_queue_time_overall)) {
    log_write(LOG_MAIN, d->m, "Completed");
    return;
  }
  bool millis = log_selected(LOGSEL_millisec);
  const struct timeval *from = log_selected(LOGSEL_queue_time_exclusive) ? &d->m->received_complete : &d->m->received_time;
  int64_t queued = time_now_usec() - (from->tv_sec * 1000000LL + from->tv_usec);
  log_write(LOG_MAIN, d->m, "Completed QT=%.*s", STRF(time_format_duration(d->c->arena, queued < 0 ? 0 : queued, millis)));
}

int deliver_write_patience = 20;

/* What was crossed off must not be forgotten because the disk is full: the message stays locked, and in memory, until it
can be written down. Only then may others look at it. */
static int write_at_last(struct delivery *d, bool must) {
  int rc = spool_write_header(d->c, d->m, must);
  usec_t deadline = deadline_in(deliver_write_patience);
  if (!rc || !d->done.n)
    return rc;
  log_write(LOG_MAIN | LOG_PANIC, d->m, "failed to update spool file: %s (trying again)", strerror(-rc));
  while (rc && loop_now_fresh() < deadline && !fiber_sleep(USEC_PER_SEC / 4))
    rc = spool_write_header(d->c, d->m, must);
  return rc;
}

/* A message that stays frozen: with move_frozen_messages it leaves the queue. */
static enum deliver_result stays_frozen(struct delivery *d) {
  if (!main_options(d->c->config)->move_frozen_messages)
    return DELIVER_FROZEN;
  int rc = spool_set_aside(d->c, d->m);
  if (rc)
    log_write(LOG_MAIN | LOG_PANIC, d->m, "failed to move the frozen message: %s", strerror(-rc));
  return rc ? DELIVER_FROZEN : DELIVER_COMPLETE;
}

static bool any_busy(const struct delivery *d) {
  const struct address *a = d->deferred;
  while (a && (a->put_off || a->basic_errno != ERROR_HOST_BUSY))
    a = a->next;
  return a && d->m->next_attempt > 0;
}

static enum deliver_result finish(struct delivery *d) {
  struct message *m = d->m;
  bool first = m->deliver_first_time;
  if (!d->deferred && !d->duplicates && !d->freeze) {
    struct str unused;
    log_completed(d);
    (void)event_raise(d->c, NULL, "msg:complete", STR_EMPTY, 0, &unused);
    /* A message that never waited has no message log. */
    if (!first || !d->how->first)
      msglog_remove(d->c, m);
    int rc = spool_remove(d->c, m);
    if (rc)
      log_write(LOG_MAIN | LOG_PANIC, m, "failed to remove spool files: %s", strerror(-rc));
    return DELIVER_COMPLETE;
  }
  if (d->freeze)
    freeze(d);
  if (!d->how->over)
    m->deliver_first_time = false;
  msglog_write(&d->log, d->c, m);
  /* What was crossed off must survive; that an attempt was made need not. */
  bool must = d->done.n || d->rewrite_header;
  if (must || (first && !d->how->over)) {
    int rc = write_at_last(d, must);
    if (rc) {
      log_write(LOG_MAIN | LOG_PANIC, m, "failed to update spool file: %s", strerror(-rc));
      delivery_journal(d);
      return DELIVER_TROUBLE;
    }
  }
  if (m->frozen)
    return stays_frozen(d);
  if (any_busy(d))
    return DELIVER_BUSY;
  /* A queue run before that time has nothing to do if each address waits for a retry record's time. */
  if (m->next_attempt > 0 && !waits_for_time(d))
    m->next_attempt = -m->next_attempt;
  return DELIVER_DEFERRED;
}

/* --- the whole --- */

static struct ctx *delivery_ctx(struct ctx *c, struct arena *a, struct message *m) {
  struct ctx *own = ctx_new(a, c->config);
  own->client = &m->client;
  own->message = m;
  own->acl_m = m->acl_m;
  return own;
}

static enum deliver_result deliver(struct delivery *d, struct deliver_how *how) {
  if (d->m->frozen && !thaw(d, how))
    return stays_frozen(d);
  if (debug_on(DEBUG_deliver) || log_is_verbose())
    fprintf(stderr, "delivering %s\n", d->m->id);
  delivery_recipients(d);
  if (!delivery_system_filter(d))
    return DELIVER_TROUBLE;
  delivery_route(d);
  if (d->m->header_rewritten)
    d->rewrite_header = true;
  if (delivery_is_wrapper(d)) {
    d->tried = delivery_wrapper_fits(d);
    if (d->tried)
      delivery_run_remote(d);
    delivery_wrapper_settle(d);
    settle_duplicates(d);
    d->freeze = false;
    enum deliver_result result = finish(d);
    return d->wrapper_failed && result == DELIVER_COMPLETE ? DELIVER_FAILED : result;
  }
  delivery_run_local(d);
  delivery_run_remote(d);
  update_retry(d);
  delivery_bounce(d);
  delivery_notify_success(d);
  settle_duplicates(d);
  keep_one_time(d);
  if (!d->how->over)
    delivery_warn(d);
  return finish(d);
}

enum deliver_result deliver_message(struct ctx *c, struct message *m, const struct deliver_how *how) {
  struct arena *arena = arena_new("delivery");
  struct deliver_how own = *how;
  if (main_options(c->config)->mua_wrapper) { /* nothing is put off, whoever wants it */
    own.force = own.force_frozen = true;
    own.queue_smtp = own.local_only = own.follows = false;
    m->frozen = false;
  }
  m->deliver_forced = how->force;
  m->deliver_bypassed = how->dont_deliver || m->dont_deliver;
  struct delivery d = {.c = delivery_ctx(c, arena, m), .m = m, .how = &own, .freeze_reason = STR_EMPTY, .freeze_detail = STR_UNSET};
  d.c->queue_running = how->queue_run;
  d.seen = map_new(arena);
  msglog_init(&d.log, arena);
  m->over = how->over;
  m->follows = own.follows || how->over;
  unsigned outer, debug = acl_debug_resume(m, &outer);
  enum deliver_result result = deliver(&d, &own);
  acl_debug_pause(debug, outer);
  if (m->over && !m->over->reversed) { /* nothing went over it; its end is an event all the same */
    m->over->user = d.c;
    smtp_use(d.c, m->over);
    smtp_disconnect(m->over, true);
  }
  m->over = NULL;
  arena_free(arena);
  return result;
}
