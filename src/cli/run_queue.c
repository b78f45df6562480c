/* -q in all its forms, once: each message that is due is delivered by this
process, in order (Exim manual, chapter "The Exim command line", -q, -R, -S). */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/map.h"
#include "base/pcre.h"
#include "base/time.h"
#include "cli/process.h"
#include "cli/queue_modes.h"
#include "core/build.h"
#include "core/load.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "deliver/follow.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/list.h"
#include "queue/spool.h"
#include "smtp/client/client.h"

struct runner {
  struct process *p;
  const struct cli_queue_run *q;
  struct queue_mode_kept kept;
  struct str ages; /* -Tqt: what is left of its list */
  bool forced;     /* -R, -S: the first message has been selected, for which retry times do not count */
};

/* -Tqt: the message has been queued for as long as the list says. Only where such options are allowed. */
static void pretend_age(struct runner *r, struct message *m) {
  if (!str_is_set(r->ages) || !r->ages.len)
    return;
  struct str item = str_cut(&r->ages, '/');
  if (item.len)
    m->received_time.tv_sec = time(NULL) - time_parse_interval(item);
}

static bool selected_by(struct arena *a, struct str wanted, bool regex, struct str text) {
  return regex ? pcre_match_text(a, wanted, text, NULL, 0) > 0 : str_ifind(text, wanted) >= 0;
}

/* -R and -S pick messages by a part of an address that is still to be done, or of the sender. */
static bool selected(struct runner *r, const struct message *m) {
  const struct cli *o = &r->p->cli;
  struct arena *a = r->p->arena;
  if (str_is_set(o->select_sender) && !selected_by(a, o->select_sender, o->select_sender_regex, m->reverse_path))
    return false;
  if (!str_is_set(o->select_recipient))
    return true;
  for (size_t i = 0; i < m->recipients.n; i++)
    if (!map_has(m->nonrecipients, m->recipients.v[i].address) &&
        selected_by(a, o->select_recipient, o->select_recipient_regex, m->recipients.v[i].address))
      return true;
  return false;
}

/* queue_fast_ramp: when the first stage has found as many messages for one host, the daemon is told of some of them. Each of
its workers that owns one opens a connection and takes along what it finds to wait for that host; the run goes on meanwhile. */
#define RAMP_MESSAGES 50
#define RAMP_TOLD 8

struct ramp_host {
  int waiting;
  bool told;
  char ids[RAMP_TOLD][24]; /* the first ones */
};

static struct {
  struct process *p;
  struct map *hosts; /* name -> struct ramp_host */
  struct str queue_name;
} ramp;

static void ramp_noted(const struct message *m, struct str host) {
  struct arena *a = ramp.p->arena;
  struct str name = str_lower(a, host);
  struct ramp_host *h = map_get(ramp.hosts, name);
  if (!h) {
    h = arena_new_of(a, struct ramp_host);
    map_set(ramp.hosts, name, h);
  }
  if (h->waiting < RAMP_TOLD)
    memcpy(h->ids[h->waiting], m->id, sizeof h->ids[0]);
  if (++h->waiting < RAMP_MESSAGES || h->told)
    return;
  h->told = daemon_notify_ramp(ramp.p->config, h->ids[0], ramp.queue_name); /* a busy daemon may hear of the next one */
  if (!h->told)
    return;
  for (int i = 1; i < RAMP_TOLD; i++)
    (void)daemon_notify(ramp.p->config, h->ids[i], ramp.queue_name);
}

static void ramp_begin(struct process *p, struct str queue_name) {
  if (!main_options(p->config)->queue_fast_ramp || p->cli.no_delivery)
    return;
  ramp.p = p;
  ramp.hosts = map_new(p->arena);
  ramp.queue_name = queue_name;
  smtp_wait_noted = ramp_noted;
}

static void run_one(struct runner *r, const char *id, bool route_only) {
  struct smtp_connection *held = NULL;
  struct deliver_how how = {.queue_run = true, .force = r->q->force, .force_frozen = r->q->force_frozen, .local_only = r->q->local_only,
      .route_only = route_only, .follows = !route_only, .dont_deliver = r->p->cli.no_delivery, .give_up_by = STR_UNSET,
      .select_recipient = r->p->cli.select_recipient};
  struct arena *a = arena_new("delivery");
  struct ctx *c = ctx_new(a, r->p->config);
  struct message *m = NULL;
  enum spool_read got = spool_read_message(c, r->q->queue_name, str_c(id), true, &m);
  if (got == SPOOL_LOCKED)
    queue_log_locked(str_c(id));
  if (got == SPOOL_BAD)
    log_write(LOG_MAIN, NULL, "%s %.*s", id, STRF(c->error));
  if (got == SPOOL_OK && selected(r, m) && !(r->q->first_only && !m->deliver_first_time)) {
    pretend_age(r, m);
    if ((str_is_set(r->p->cli.select_recipient) || str_is_set(r->p->cli.select_sender)) && !r->forced)
      how.force = r->forced = true;
    (void)deliver_message(c, m, &how);
    held = deliver_held(m);
  }
  if (got == SPOOL_OK)
    message_free(m);
  deliver_follow(r->p->config, held, &how);
  arena_free(a);
  (void)queue_mode_deliver_kept(&r->kept); /* bounces that it made */
}

static struct str describe(struct runner *r) {
  const struct cli_queue_run *q = r->q;
  const struct cli *o = &r->p->cli;
  struct arena *a = r->p->arena;
  struct str s = str_printf(a, "%s%s%s%s%s", q->two_stage ? "q" : "", q->first_only ? "i" : "", q->force ? "f" : "",
      q->force_frozen ? "f" : "", q->local_only ? "l" : "");
  if (s.len)
    s = str_printf(a, " -q%.*s", STRF(s));
  if (str_is_set(o->select_recipient))
    s = str_printf(a, "%.*s -R%s %.*s", STRF(s), o->select_recipient_regex ? "r" : "", STRF(o->select_recipient));
  if (str_is_set(o->select_sender))
    s = str_printf(a, "%.*s -S%s %.*s", STRF(s), o->select_sender_regex ? "r" : "", STRF(o->select_sender));
  return s;
}

static bool in_range(struct process *p, const char *id) {
  struct str from = p->cli.args.n > 0 ? p->cli.args.v[0] : STR_UNSET, to = p->cli.args.n > 1 ? p->cli.args.v[1] : STR_UNSET;
  return !(str_is_set(from) && str_cmp(str_c(id), from) < 0) && !(str_is_set(to) && str_cmp(str_c(id), to) > 0);
}

/* deliver_queue_load_max */
static bool too_busy(struct process *p, struct str what) {
  int64_t max = main_options(p->config)->deliver_queue_load_max, load = max >= 0 ? load_average() : 0;
  if (max < 0 || load <= max)
    return false;
  log_write(LOG_MAIN, NULL, "Abandon queue run: pid=%d%.*s (load %.2f, max %.2f)", (int)getpid(), STRF(what), (double)load / 1000.0,
      (double)max / 1000.0);
  return true;
}

static int run_queue(struct process *p, const struct cli_queue_run *q) {
  struct runner r = {.p = p, .q = q, .ages = build.allow_test_options ? p->cli.queue_times : STR_UNSET};
  struct spool_entry *v;
  size_t n = 0;
  struct str what = describe(&r);
  queue_mode_keep_submitted(&r.kept, p);
  if (log_selected(LOGSEL_queue_run))
    log_write(LOG_MAIN, NULL, "Start %s%.*squeue run: pid=%d%.*s", q->queue_name.len ? "'" : "",
      STRF(q->queue_name.len ? str_printf(p->arena, "%.*s' ", STRF(q->queue_name)) : STR_EMPTY), (int)getpid(), STRF(what));
  bool abandoned = false;
  if (spool_scan(p->ctx, q->queue_name, p->arena, &v, &n) == 0)
    for (int stage = q->two_stage ? 1 : 2; stage <= 2; stage++) {
      if (stage == 1)
        ramp_begin(p, q->queue_name);
      else
        smtp_wait_noted = NULL;
      for (size_t i = 0; i < n && !abandoned; i++)
        if (in_range(p, v[i].id) && !(abandoned = too_busy(p, what)))
          run_one(&r, v[i].id, stage == 1);
    }
  if (!p->served)
    smtp_pool_close_all();
  if (!abandoned && log_selected(LOGSEL_queue_run))
    log_write(LOG_MAIN, NULL, "End %s%.*squeue run: pid=%d%.*s", q->queue_name.len ? "'" : "",
      STRF(q->queue_name.len ? str_printf(p->arena, "%.*s' ", STRF(q->queue_name)) : STR_EMPTY), (int)getpid(), STRF(what));
  return 0;
}

int mode_run_queue(struct process *p) {
  if (main_options(p->config)->prod_requires_admin && !process_require_admin(p))
    return 1;
  int status = 0;
  for (size_t i = 0; i < p->cli.queue_runs.n; i++)
    status |= run_queue(p, &p->cli.queue_runs.v[i]);
  return status;
}

/* --- messages that deliveries of this process write --- */

struct queue_mode_item {
  struct message *message;
  struct queue_mode_item *next;
};

static struct queue_mode_kept *keeper;

static void take_over(struct ctx *c, struct message *m) {
  struct queue_mode_item *i = xcalloc(1, sizeof *i);
  i->message = m;
  *keeper->last = i;
  keeper->last = &i->next;
}

void queue_mode_keep_submitted(struct queue_mode_kept *k, struct process *p) {
  *k = (struct queue_mode_kept){.p = p};
  k->last = &k->first;
  if (p->served)
    return; /* the worker delivers them */
  keeper = k;
  deliver_take_over = take_over;
}

struct message *queue_mode_take_kept(struct queue_mode_kept *k) {
  struct queue_mode_item *i = k->first;
  if (!i)
    return NULL;
  struct message *m = i->message;
  k->first = i->next;
  if (!k->first)
    k->last = &k->first;
  free(i);
  return m;
}

bool queue_mode_deliver_kept(struct queue_mode_kept *k) {
  struct message *m;
  bool good = true;
  while ((m = queue_mode_take_kept(k))) {
    struct arena *a = arena_new("delivery");
    struct ctx *c = ctx_new(a, k->p->config);
    struct deliver_how how = {.first = true, .dont_deliver = k->p->cli.no_delivery,
        .queue_smtp = k->p->cli.delivery_given && k->p->cli.delivery == DELIVER_QUEUE_SMTP, .give_up_by = STR_UNSET, .select_recipient = STR_UNSET};
    how.follows = true;
    good &= deliver_message(c, m, &how) != DELIVER_FAILED;
    struct smtp_connection *held = deliver_held(m);
    message_free(m);
    deliver_follow(k->p->config, held, &how);
    arena_free(a);
  }
  return good;
}
