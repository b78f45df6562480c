/* Cut-through delivery (Exim manual, section "Use of the control modifier",
cutthrough_delivery): a message is passed on before its sender hears that it
was accepted, so that he hears what the next host says, and nothing is queued.

The transaction with the next host is made by callouts (smtp/client/callout.c)
while recipients come in. The data follow when all ACLs have agreed: what they
refuse never leaves this host. */
#include "core/module.h"
#include "deliver/logline.h"
#include "expand/expand.h"
#include "route/router.h"
#include "smtp/client/client.h"
#include "smtp/client/requiretls.h"
#include "smtp/server/internal.h"
#include "transport/options.h"

static struct callout_kept *kept(struct smtp_session *s) { return &acl_session(s->c)->callout; }

void smtp_cutthrough_cancel(struct smtp_session *s) {
  s->cutthrough = NULL;
  s->cutthrough_off = true;
  if (acl_message(s->c))
    acl_message(s->c)->cutthrough = false; /* further callouts hold nothing for it */
  callout_drop(kept(s));
}

/* A signature comes before the text, which is not known yet. */
static bool is_signed(const struct instance *transport) {
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.signs && modules[i]->hooks.signs(transport))
      return true;
  return false;
}

/* Can mail for this address go on over SMTP as it comes in? */
static bool is_possible(const struct address *a) {
  return a && a->transport && !is_signed(a->transport) && strcmp(a->transport->driver->name, "smtp") == 0 && !smtp_client_options(a->transport)->lmtp &&
         !str_is_set(transport_options(a->transport)->transport_filter.text);
}

/* What verification leaves out: header lines of the router. */
static bool complete(struct ctx *c, struct address *a) {
  struct address *address = c->address;
  const struct instance *router = c->router;
  a->verify_recipient = false;
  c->address = a;
  c->router = a->router;
  c->vars.local_part = a->local_part;
  c->vars.domain = a->domain;
  bool ok = router_props(c, a->router, a, &a->prop) == ROUTE_OK;
  c->address = address;
  c->router = router;
  return ok;
}

static size_t recipients(const struct smtp_session *s) {
  size_t n = 0;
  for (const struct address *a = s->cutthrough; a; a = a->next)
    n++;
  return n;
}

/* The RCPT ACL has asked the same host about the same address already. */
static bool asked_before(struct smtp_session *s, const struct address *a) {
  const struct smtp_connection *n = kept(s)->connection;
  if (!n || n->txn_rcpts.n != recipients(s) + 1)
    return false;
  return str_eq(n->txn_rcpts.v[n->txn_rcpts.n - 1], smtp_rcpt_address(s->c, a->transport, a));
}

static enum outcome ask(struct smtp_session *s, struct address *a) {
  const struct acl_message *m = acl_message(s->c);
  struct callout_params p = {.timeout = 30, .connect = -1, .maxwait = -1, .recipient = true, .use_sender = true, .no_cache = true,
      .hold = true, .kept = kept(s), .use_transport_sender = m->cutthrough_transport_sender, .drop_other = true};
  struct callout_outcome out;
  smtp_flush(s);
  enum outcome o = callout_verify(s->c, a, &p, &out);
  s->cutthrough_reply = out.reply;
  return o;
}

/* The next host did not take the recipient. */
static enum acl_result refused(struct smtp_session *s, enum outcome o) {
  struct ctx *c = s->c;
  bool pass = acl_message(c)->cutthrough_pass;
  smtp_cutthrough_cancel(s);
  if (o == OUTCOME_DEFER && !pass)
    return ACL_OK;
  c->user_message = o == OUTCOME_DEFER ? s->cutthrough_reply : STR_UNSET;
  c->log_message = STR_EMPTY;
  return o == OUTCOME_FAIL ? ACL_FAIL : ACL_DEFER;
}

enum acl_result smtp_cutthrough_rcpt(struct smtp_session *s, struct str address) {
  struct ctx *c = s->c;
  const struct acl_message *m = acl_message(c);
  if (m && m->cutthrough_never && s->cutthrough)
    smtp_cutthrough_cancel(s);
  if (!m || !m->cutthrough || s->cutthrough_off || c->is_test)
    return ACL_OK;
  struct policy_vars vars = c->vars;
  struct str user = c->user_message, log = c->log_message;
  struct address *a = NULL;
  struct verify_params p = {0};
  enum outcome o = verify_address(c, address, &p, &a);
  if (o == OUTCOME_OK && is_possible(a) && !asked_before(s, a))
    o = ask(s, a);
  if (o == OUTCOME_OK && (!is_possible(a) || !complete(c, a)))
    a = NULL;
  c->vars = vars;
  c->user_message = user;
  c->log_message = log;
  if (o == OUTCOME_FAIL || (o == OUTCOME_DEFER && a && a->transport))
    return refused(s, o);
  if (o != OUTCOME_OK || !a || !kept(s)->connection || kept(s)->connection->txn_rcpts.n != recipients(s) + 1) {
    DEBUG(transport, "cutthrough cancelled: recipients do not share one connection\n");
    smtp_cutthrough_cancel(s);
    return ACL_OK;
  }
  a->next = s->cutthrough;
  s->cutthrough = a;
  return ACL_OK;
}

/* ---- the data ---- */

/* What the next host said against the message; empty: nothing. */
static struct str reply_of(const struct address *a) {
  struct str text = str_is_set(a->user_message) ? a->user_message : STR_EMPTY;
  return text.len > 3 && (text.p[0] == '4' || text.p[0] == '5') ? text : STR_EMPTY;
}

/* "U=x a@b F=<…> P=<…> tmp-reject from cutthrough after DATA: R=r T=t H=h [1.2.3.4] C="459 no"" */
static void log_refusal(struct smtp_session *s, const struct address *a, const char *what) {
  struct ctx *c = s->c;
  struct str from = c->message->reverse_path;
  acl_log(c, LOG_MAIN, "%.*s %.*s F=<%.*s> P=<%.*s> %s from cutthrough after DATA: R=%.*s T=%.*s H=%.*s [%.*s] C=\"%.*s\"",
      STRF(smtp_who(s)), STRF(logline_address(c, a, true)), STRF(from), STRF(str_is_set(a->return_path) ? a->return_path : from), what,
      STRF(a->router->name), STRF(a->transport->name), STRF(a->host_used ? a->host_used->name : STR_EMPTY),
      STRF(a->host_used ? a->host_used->address : STR_EMPTY), STRF(log_printable(c->arena, reply_of(a))));
}

/* A host for the log lines: the one that the callouts have found. */
static struct host *host_of(struct ctx *c, const struct smtp_connection *n) {
  struct host *h = arena_new_of(c->arena, struct host);
  h->name = str_dup(c->arena, n->host_name);
  h->address = str_dup(c->arena, n->host_address);
  h->ip = n->ip;
  h->port = n->port;
  h->mx = -1;
  return h;
}

static enum outcome pass_on(struct smtp_session *s, struct smtp_connection *n) {
  struct ctx *c = s->c;
  struct address *chain = s->cutthrough, *address = c->address;
  const struct instance *transport = c->transport;
  struct host *host = c->host;
  struct transport_message m = {0};
  c->address = chain;
  c->transport = n->transport = chain->transport;
  c->host = host_of(c, n);
  for (struct address *a = chain; a; a = a->next) {
    a->result = OUTCOME_DEFER;
    a->basic_errno = SMTP_PENDING;
    a->return_path = str_dup(c->arena, n->txn_sender);
  }
  if (transport_message_build(c, c->transport, chain, &m)) {
    m.return_path = chain->return_path;
    enum smtp_stage_result r = smtp_send_message(c, n, chain, &m);
    smtp_disconnect(n, r != SMTP_BROKEN);
  } else {
    smtp_disconnect(n, true);
  }
  for (struct address *a = chain; a; a = a->next)
    a->host_used = a->host_used ? a->host_used : c->host;
  c->address = address;
  c->transport = transport;
  c->host = host;
  return chain->result == OUTCOME_OK || chain->result == OUTCOME_FAIL ? chain->result : OUTCOME_DEFER;
}

/* The recipients were passed on without parameters of RFC 3461, and notices are this host's to send or to pass on. */
static bool asks_for_notices(const struct message *m) {
  bool asks = m->dsn_ret || (str_is_set(m->dsn_envid) && m->dsn_envid.len);
  for (size_t i = 0; i < m->recipients.n; i++)
    asks = asks || m->recipients.v[i].dsn_flags;
  return asks;
}

enum smtp_cutthrough smtp_cutthrough_data(struct smtp_session *s, struct reception *r, struct str *ret_reply) {
  struct ctx *c = s->c;
  const struct acl_message *m = acl_message(c);
  if (!s->cutthrough)
    return CUTTHROUGH_NOT;
  if (!m->cutthrough || recipients(s) != c->message->recipients.n || s->prdr_requested || asks_for_notices(c->message) || message_requires_tls(c->message) || r->p.chunking || c->message->frozen || m->queue_only || m->fakereject ||
      m->fakedefer || s->p->queue_only || !kept(s)->connection) {
    smtp_cutthrough_cancel(s);
    return CUTTHROUGH_NOT;
  }
  struct smtp_connection *n = kept(s)->connection;
  kept(s)->connection = NULL;
  receive_complete(r);
  enum outcome o = pass_on(s, n);
  if (o == OUTCOME_OK) {
    for (const struct address *a = s->cutthrough; a; a = a->next)
      if (!logline_disabled(a))
        log_write(LOG_MAIN, c->message, "%.*s", STRF(logline_success(c, a, ">>")));
    receive_log_arrival(r);
    acl_log(c, LOG_MAIN, "Completed");
    return CUTTHROUGH_DONE;
  }
  *ret_reply = reply_of(s->cutthrough);
  if (ret_reply->len == 0 || ret_reply->p[0] == '4')
    o = OUTCOME_DEFER; /* nobody has refused it: some limit of our own, or a broken connection */
  if (ret_reply->len)
    log_refusal(s, s->cutthrough, o == OUTCOME_FAIL ? "rejected" : "tmp-reject");
  else
    *ret_reply = STR("450 Onward transmission not accepted");
  return o == OUTCOME_FAIL || m->cutthrough_pass ? CUTTHROUGH_REFUSED : CUTTHROUGH_NOT;
}
