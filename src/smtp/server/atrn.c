/* ATRN (On-Demand Mail Relay, RFC 2645), the provider's side: an authenticated client turns the connection round and takes the
mail that waits for its domains. From then on its stream is a connection of the smtp client's (client.h, smtp_reversed_new). */
#include "smtp/server/atrn.h"

#include <errno.h>
#include <string.h>

#include "base/map.h"
#include "deliver/deliver.h"
#include "deliver/follow.h"
#include "expand/expand.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "smtp/server/internal.h"

#define LOOKS_MAX 100000  /* messages whose headers are read for one command, by the condition and the run each */
#define FORGET_AFTER 256  /* … before what the list's lookups remembered goes */
#define SEARCHES_AT_ONCE 4

/* --- which messages --- */

static bool wanted(const void *arg, struct ctx *c, struct str domain) {
  const struct smtp_atrn *t = arg;
  return match_text(c, LIST_DOMAIN, t->domains, domain, 0, NULL) == OUTCOME_OK;
}

static struct str domain_of(struct str address) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  struct str domain = at < 0 ? STR_EMPTY : str_from(address, (size_t)at + 1);
  domain.taint = STR_TAINTED;
  return domain;
}

static bool has_mail(const struct smtp_atrn *t, struct ctx *c, const struct message *m) {
  if (m->frozen)
    return false;
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    if (!map_has(m->nonrecipients, address) && wanted(t, c, domain_of(address)))
      return true;
  }
  return false;
}

/* Goes through the queue, oldest first. */
struct search {
  const struct smtp_atrn *atrn;
  struct config *config;
  struct arena *arena;   /* of the ids */
  struct spool_entry *v;
  size_t n, at, looked;
  struct arena *scratch;
  struct ctx *c;
};

static int search_begin(struct search *q, const struct smtp_atrn *t, struct config *config) {
  *q = (struct search){.atrn = t, .config = config, .arena = arena_new("atrn")};
  q->c = ctx_new(q->arena, config);
  int rc = spool_scan(q->c, t->queue_name, q->arena, &q->v, &q->n);
  return rc == -ENOENT ? 0 : rc;
}

/* The next message with mail for the domains; NULL: none. [suspends] */
static const char *search_next(struct search *q) {
  while (q->at < q->n && q->looked++ < LOOKS_MAX) {
    const char *id = q->v[q->at++].id;
    struct message *m = NULL;
    if (!q->scratch || q->looked % FORGET_AFTER == 0) {
      if (q->scratch)
        arena_free(q->scratch);
      q->scratch = arena_new("atrn search");
      q->c = ctx_new(q->scratch, q->config);
    }
    if (spool_read_message(q->c, q->atrn->queue_name, str_c(id), false, &m) != SPOOL_OK)
      continue;
    bool found = has_mail(q->atrn, q->c, m);
    message_free(m);
    if (found)
      return id;
  }
  return NULL;
}

static void search_end(struct search *q) {
  if (q->scratch)
    arena_free(q->scratch);
  arena_free(q->arena);
}

/* --- the ACL --- */

static struct smtp_session *session_of(struct ctx *c) {
  return c->session && c->session->kind != SESSION_STDIN ? (struct smtp_session *)c->session : NULL;
}

int smtp_acl_atrn_domains(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  static int searches;
  struct smtp_session *s = session_of(c);
  struct smtp_atrn t = {.domains = arg, .queue_name = STR_EMPTY};
  struct search q;
  if (!s)
    return OUTCOME_FAIL;
  if (str_is_tainted(arg)) {
    c->log_message = str_printf(c->arena, "attempt to use tainted list '%.*s' in atrn_domains", STRF(log_printable(c->arena, arg)));
    return OUTCOME_ERROR;
  }
  if (str_is_set(acl_session(c)->queue_name))
    t.queue_name = acl_session(c)->queue_name;
  if (searches >= SEARCHES_AT_ONCE) {
    c->log_message = STR("too many ATRN commands at once");
    return OUTCOME_DEFER;
  }
  searches++;
  int rc = search_begin(&q, &t, c->config);
  bool found = rc == 0 && search_next(&q);
  search_end(&q);
  searches--;
  if (rc) {
    c->log_message = str_printf(c->arena, "the queue cannot be read: %s", strerror(-rc));
    return OUTCOME_DEFER;
  }
  s->atrn.domains = found ? str_dup(s->arena, arg) : STR_UNSET;
  s->atrn.queue_name = str_dup(s->arena, t.queue_name);
  s->atrn.host = str_is_set(c->client->host_address) ? str_printf(s->arena, "[%.*s]:%d", STRF(c->client->host_address), c->client->host_port)
                                                     : STR_EMPTY;
  s->atrn.host.taint = 0; /* what the kernel says, or a proxy that is trusted */
  return found ? OUTCOME_OK : OUTCOME_FAIL;
}

static const char *customer_mode; /* in a process that is the customer's side, while it looks for its provider */
void smtp_atrn_customer(bool on) { customer_mode = on ? "C" : NULL; }

static const struct smtp_connection *reversed_of(const struct ctx *c) {
  const struct smtp_connection *n = c->message ? c->message->over : NULL;
  return n && n->reversed ? n : NULL;
}

int smtp_atrn_mode(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct smtp_session *s = session_of(c);
  *ret = reversed_of(c) || (s && s->atrn.running) ? STR("P") : customer_mode && !s ? str_c(customer_mode) : STR_EMPTY;
  return 0;
}

int smtp_atrn_host(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct smtp_connection *n = reversed_of(c);
  const struct smtp_session *s = session_of(c);
  *ret = n                        ? str_printf(c->arena, "[%.*s]:%d", STRF(n->host_address), n->port)
         : s && s->atrn.running && str_is_set(s->atrn.host) ? s->atrn.host
                                  : STR_EMPTY;
  ret->taint = 0;
  return 0;
}

/* --- the run --- */

/* A message of another worker is this one's as long as it holds the lock; of our own the queue must know. */
static void deliver_one(const struct smtp_atrn *t, struct smtp_connection *n, struct config *config, const char *id) {
  bool ours = !smtp_wait_is_ours || smtp_wait_is_ours(id);
  void *claim = ours && deliver_claims ? deliver_claims->claim(t->queue_name, id) : NULL;
  if (ours && deliver_claims && !claim)
    return; /* it is being delivered */
  struct arena *a = arena_new("delivery");
  struct ctx *c = ctx_new(a, config);
  struct message *m = NULL;
  enum deliver_result end = DELIVER_TROUBLE;
  struct deliver_how how = {.queue_run = true, .force = true, .over = n, .wanted = wanted, .wanted_arg = t,
      .select_recipient = STR_UNSET};
  if (spool_read_message(c, t->queue_name, str_c(id), true, &m) == SPOOL_OK && has_mail(t, c, m)) {
    end = deliver_message(c, m, &how);
    m->over = NULL;
    if (!ours && spool_changed)
      spool_changed(m);
  }
  if (claim)
    deliver_claims->release(claim, m, end);
  if (m)
    message_free(m);
  n->user = NULL;
  arena_free(a);
}

static bool stopping(const struct smtp_session *s) {
  const struct smtp_hooks *h = s->p->hooks;
  return h && h->stopping && h->stopping(h->arg);
}

static void run_queue(struct smtp_session *s) {
  const struct client *cl = s->c->client;
  struct smtp_connection *n = smtp_reversed_new(s->stream, &cl->ip, cl->host_port, cl->tls);
  struct search q;
  const char *id;
  int rc = search_begin(&q, &s->atrn, s->p->config);
  if (rc)
    acl_log(s->c, LOG_MAIN | LOG_PANIC, "ATRN: the queue cannot be read: %s", strerror(-rc));
  while (!rc && !n->ended && !stopping(s) && (id = search_next(&q)))
    deliver_one(&s->atrn, n, s->p->config, id);
  n->user = NULL;
  smtp_reversed_free(q.c, n);
  search_end(&q);
}

static enum smtp_next turn_round(struct smtp_session *s) {
  if (s->p->kind == SESSION_TEST) {
    smtp_accept_reply(s, "250", "OK now reversing the connection");
    return SMTP_GO_ON;
  }
  stream_discard_input(s->stream); /* who has said more before our answer has not waited for it */
  smtp_accept_reply(s, "250", "OK now reversing the connection");
  s->mail_seen = true; /* a connection that has done something */
  if (smtp_flush(s) == 0) {
    void *saved = fiber_local();
    fiber_set_local(NULL); /* what is delivered is no part of the session */
    run_queue(s);
    fiber_set_local(saved);
  }
  smtp_log_closed(s, "ATRN");
  return SMTP_CLOSE;
}

enum smtp_next smtp_verb_atrn(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  if (!smtp_acl_offered(s, &s->o->acl_smtp_atrn))
    return smtp_unknown_command(s);
  if (s->message)
    return smtp_synprot(s, true, 503, STR_UNSET, "ATRN is not permitted inside a transaction");
  if (!str_is_set(c->client->host_authenticated) || c->client->host_authenticated.len == 0) {
    smtp_say(s, "530 Authentication required");
    acl_log(c, LOG_MAIN | LOG_REJECT, "%.*s rejected ATRN: not authenticated", STRF(smtp_who(s)));
    return SMTP_GO_ON;
  }
  if (log_selected(LOGSEL_etrn))
    acl_log(c, LOG_MAIN, "ATRN %.*s received from %.*s", STRF(log_printable(c->arena, args)),
        STRF(client_log_text(c->arena, c->client, false)));
  acl_session(c)->queue_name = STR_UNSET;
  s->atrn = (struct smtp_atrn){.domains = STR_UNSET, .queue_name = STR_EMPTY, .host = STR_UNSET, .running = true};
  enum acl_result r = smtp_acl(s, ACL_ATRN, &s->o->acl_smtp_atrn, ACL_FAIL);
  s->atrn.running = false;
  acl_session(c)->queue_name = STR_UNSET;
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_ATRN, r, args.len ? str_printf(c->arena, "ATRN %.*s", STRF(args)) : STR("ATRN"));
  /* The condition has found nothing, or was not asked: nobody has said what the client may have. */
  if (!str_is_set(s->atrn.domains) || c->client->ip.family == 0) {
    smtp_say(s, "453 You have no mail");
    return SMTP_GO_ON;
  }
  return turn_round(s);
}
