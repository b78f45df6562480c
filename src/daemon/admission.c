#include "daemon/admission.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/load.h"
#include "acl/acl.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "match/match.h"

static struct worker *self;

void admission_init(struct worker *w) { self = w; }

int admission_connections(void *arg) { return scoreboard_sessions(self->p.board); }

static bool is_reserve_host(struct ctx *c) {
  const struct main_options *o = main_options(c->config);
  return str_is_set(o->smtp_reserve_hosts.text) && match_client_host(c, &o->smtp_reserve_hosts, NULL) == OUTCOME_OK;
}

static bool refuse(struct ctx *c, struct str *reply, struct str *log, const char *to_client, struct str to_log) {
  *reply = str_c(to_client);
  *log = to_log;
  return false;
}

bool admission_check(void *arg, struct ctx *c, struct str *ret_reply, struct str *ret_log) {
  const struct main_options *o = main_options(c->config);
  int64_t now = scoreboard_sessions(self->p.board); /* this one included */
  struct str host = c->client->host_address;
  if (o->smtp_accept_max > 0 && now > o->smtp_accept_max)
    return refuse(c, ret_reply, ret_log, "421 Too many concurrent SMTP connections; please try again later.",
        str_printf(c->arena, "Connection from %.*s refused: too many connections", STRF(c->client->fullhost)));
  int64_t max = o->smtp_accept_max - o->smtp_accept_reserve;
  if (o->smtp_accept_max > 0 && o->smtp_accept_reserve > 0 && now > max && !is_reserve_host(c))
    return refuse(c, ret_reply, ret_log, "421 Too many concurrent SMTP connections; please try again later.",
        str_printf(c->arena, "Connection from %.*s refused: not in reserve list: connected=%lld max=%lld reserve=%lld",
            STRF(c->client->fullhost), (long long)(now - 1), (long long)o->smtp_accept_max, (long long)o->smtp_accept_reserve));
  if (o->smtp_load_reserve >= 0) {
    int64_t load = load_average();
    if (load > o->smtp_load_reserve && !is_reserve_host(c))
      return refuse(c, ret_reply, ret_log, "421 Too much load; please try again later.",
          str_printf(c->arena, "Connection from %.*s refused: not in reserve list and load average = %.2f", STRF(c->client->fullhost),
              (double)load / 1000.0));
  }
  if (str_is_set(o->smtp_accept_max_per_host.text)) {
    int64_t per_host = 0;
    if (expand_option_int(c, &o->smtp_accept_max_per_host, "smtp_accept_max_per_host", &per_host))
      return refuse(c, ret_reply, ret_log, "421 Temporary local problem; please try again later.",
          str_printf(c->arena, "expansion of smtp_accept_max_per_host failed for %.*s: %.*s", STRF(host), STRF(c->error)));
    if (per_host > 0 && scoreboard_sessions_of(self->p.board, &c->client->ip) > per_host)
      return refuse(c, ret_reply, ret_log, "421 Too many concurrent SMTP connections from this IP address; please try again later.",
          str_printf(c->arena, "Connection from %.*s refused: too many connections from that IP address", STRF(c->client->fullhost)));
  }
  return true;
}

bool daemon_queue_only_file(const struct main_options *o, struct arena *a) {
  struct list_iter i;
  struct str item;
  if (!str_is_set(o->queue_only_file))
    return false;
  list_iter_init(&i, a, o->queue_only_file);
  while (list_next(&i, &item)) {
    if (str_starts(item, STR("smtp")))
      item = str_from(item, 4);
    if (access(str_dup_c(a, item), F_OK) == 0)
      return true;
  }
  return false;
}

bool admission_must_queue(void *arg, struct ctx *c, int messages_in_connection, struct str *ret_why) {
  const struct main_options *o = main_options(c->config);
  if (o->queue_only || daemon_queue_only_file(o, c->arena)) {
    *ret_why = STR_EMPTY;
    return true;
  }
  if (o->smtp_accept_queue > 0 && scoreboard_sessions(self->p.board) > o->smtp_accept_queue) {
    *ret_why = str_printf(c->arena, "too many connections (%d, max %lld)", scoreboard_sessions(self->p.board),
        (long long)o->smtp_accept_queue);
    return true;
  }
  if (o->smtp_accept_queue_per_connection > 0 && messages_in_connection > o->smtp_accept_queue_per_connection) {
    *ret_why = str_printf(c->arena, "more than %lld messages received in one connection",
        (long long)o->smtp_accept_queue_per_connection);
    return true;
  }
  if (o->queue_only_load >= 0) {
    struct acl_session *session = acl_session(c);
    bool latched = session && session->load_latched > 0;
    int64_t load = latched ? session->load_latched - 1 : load_average();
    if (latched || load > o->queue_only_load) {
      if (session && o->queue_only_load_latch)
        session->load_latched = load + 1;
      *ret_why = str_printf(c->arena, "load average %.2f", (double)load / 1000.0);
      return true;
    }
  }
  return false;
}

void admission_pause(struct worker *w) {
  w->accept_paused = true;
  w->paused[w->paused_n++] = fiber_self();
  (void)fiber_park(deadline_in(60));
  for (int i = 0; i < w->paused_n; i++)
    if (w->paused[i] == fiber_self())
      w->paused[i] = w->paused[--w->paused_n];
}

void admission_resume(struct worker *w) {
  w->accept_paused = false;
  for (int i = 0; i < w->paused_n; i++)
    fiber_wake(w->paused[i]);
}
