/* The dialogue of a callout: MAIL and RCPT to the hosts of an address, until
one of them has a definite answer (Exim manual, section "Callout
verification"). */
#include <stdio.h>
#include <errno.h>

#include "acl/acl.h"
#include "base/time.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "smtp/client/callout.h"
#include "smtp/client/client.h"
#include "transport/options.h"
#include "transport/transport.h"

#define KEPT_RCPTS_MAX 1000
#define QUIT_SECONDS 2

extern const struct transport_def transport_smtp;

struct callout {
  struct ctx *c;
  const struct address *a;
  const struct callout_params *p;
  struct callout_outcome *out;
  struct callout_facts facts;
  struct instance *t;             /* the transport with the callout's time limits */
  const struct smtp_client_options *o;
  struct str from;                /* sender of the main check */
  bool ask_random, ask_postmaster;
  enum smtp_utf8 utf8;
  struct host *host;
  int port;
  bool one_host;
  struct str problem;             /* of the last host that gave no answer */
};

/* What one host's part of it came to. */
enum host_answer { HOST_YES, HOST_NO, HOST_NEXT, HOST_AGAIN /* the same, without the random check */ };

/* A copy of the transport whose time limits are the callout's. It lives in `a`. */
static struct instance *transport_for(struct callout *k, struct arena *a) {
  const struct instance *t = k->a->transport;
  struct instance *copy = arena_new_of(a, struct instance);
  struct smtp_client_options *o = arena_new_of(a, struct smtp_client_options);
  if (t) {
    *copy = *t;
    *o = *smtp_client_options(t);
  } else { /* a router that only verifies needs no transport */
    *copy = (struct instance){.name = STR("callout"), .driver = &transport_smtp.driver,
        .generic = arena_new_of(a, struct transport_options)};
    o->data_timeout = o->final_timeout = k->p->timeout;
  }
  o->callout = true;
  o->command_timeout = k->p->timeout;
  o->connect_timeout = k->p->connect >= 0 ? k->p->connect : k->p->timeout;
  copy->options = o;
  return copy;
}

static struct str tainted(struct str s) {
  s.taint = STR_TAINTED;
  return s;
}

static enum outcome failed(struct callout *k, const char *word, struct str user, struct str log) {
  k->out->failure = str_c(word);
  k->out->user = user;
  k->out->log = log;
  return OUTCOME_FAIL;
}

/* --- what is said about refusals --- */

/* Text for the client: what lies behind a byte that is no ASCII is cut off, since replies are ASCII. */
static struct str ascii_only(struct ctx *c, struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if ((unsigned char)s.p[i] > 126 || ((unsigned char)s.p[i] < 32 && s.p[i] != '\n' && s.p[i] != '\t'))
      return tainted(str_printf(c->arena, "%.*s(truncated)", STRF(str_slice(s, 0, i))));
  return s;
}

/* A command was refused with 5xx. */
static void note_refusal(struct callout *k, const char *word, struct str command, struct str reply) {
  struct ctx *c = k->c;
  struct str who = str_printf(c->arena, "%.*s [%.*s] : ", STRF(k->host->name), STRF(k->host->address));
  bool rcpt = str_starts(command, STR("RCPT"));
  k->out->failure = str_c(word);
  k->out->log = tainted(rcpt ? str_printf(c->arena, "%.*sSMTP error from remote mail server after %.*s: %.*s", STRF(who), STRF(command),
                                   STRF(reply))
                             : str_printf(c->arena, "%.*sresponse to \"%.*s\" was: %.*s", STRF(who), STRF(command), STRF(reply)));
  struct str shown = ascii_only(c, reply);
  k->out->user = tainted(k->p->recipient
                             ? str_printf(c->arena, "Callout verification failed:\n%.*s", STRF(shown))
                             : str_printf(c->arena, "Called:   %.*s\nSent:     %.*s\nResponse: %.*s", STRF(k->host->address),
                                   STRF(command), STRF(shown)));
}

static enum host_answer no_answer(struct callout *k, struct str text) {
  k->problem = tainted(str_printf(k->c->arena, "%.*s [%.*s] : %.*s", STRF(k->host->name), STRF(k->host->address), STRF(text)));
  return HOST_NEXT;
}

/* --- transactions --- */

static enum smtp_stage_result expect(struct callout *k, struct smtp_connection *n, struct str command) {
  n->command = command;
  n->command_pipelined = false;
  return smtp_expect(k->c, n, k->p->timeout, '2');
}

static enum smtp_stage_result simple(struct callout *k, struct smtp_connection *n, const char *command) {
  enum smtp_stage_result r = smtp_command(k->c, n, true, "%s", command);
  return r ? r : expect(k, n, n->command);
}

/* The address as it is sent; that it can be converted was seen before. */
static struct str in_form(struct callout *k, struct str address) {
  struct str as_sent, error;
  (void)smtp_utf8_address(k->c, k->utf8, address, &as_sent, &error);
  return as_sent;
}

static enum smtp_stage_result rcpt(struct callout *k, struct smtp_connection *n, struct str address) {
  address = in_form(k, address);
  enum smtp_stage_result r = smtp_command(k->c, n, true, "RCPT TO:<%.*s>", STRF(address));
  return r ? r : expect(k, n, n->command);
}

/* MAIL and RCPT, together where the server can take that. *ret_mail: MAIL was accepted. n->command says what the result
is about. */
static enum smtp_stage_result transaction(struct callout *k, struct smtp_connection *n, struct str from, struct str to, bool with_size,
    bool *ret_mail) {
  struct ctx *c = k->c;
  from = in_form(k, from);
  struct str size = STR_EMPTY, auth = smtp_auth_parameter(c, n), mail = str_printf(c->arena, "MAIL FROM:<%.*s>", STRF(from));
  *ret_mail = false;
  if (with_size && n->offers.size && c->message && c->message->size > 0)
    size = str_printf(c->arena, " SIZE=%lld", (long long)c->message->size + (long long)k->o->size_addition);
  enum smtp_stage_result r = smtp_command(c, n, !n->offers.pipelining, "%.*s%.*s%s%.*s", STRF(mail), STRF(size),
      k->utf8 == SMTP_UTF8_SEND ? " SMTPUTF8" : "", STRF(auth));
  if (r)
    return r;
  if (!n->offers.pipelining) {
    r = expect(k, n, mail);
    *ret_mail = r == SMTP_OK;
    return r ? r : rcpt(k, n, to);
  }
  r = smtp_command(c, n, true, "RCPT TO:<%.*s>", STRF(in_form(k, to)));
  if (r)
    return r;
  struct str rcpt_command = n->command;
  r = expect(k, n, mail);
  if (r) {
    if (r != SMTP_BROKEN) { /* what is said to RCPT does not matter now */
      struct str command = n->command, text = n->error_text;
      struct smtp_reply reply = n->reply;
      (void)smtp_read_reply(c, n, k->p->timeout);
      n->command = command;
      n->error_text = text;
      n->reply = reply;
    }
    return r;
  }
  *ret_mail = true;
  return expect(k, n, rcpt_command);
}

static void know_domain(struct callout *k, enum hint_answer answer) {
  k->facts.domain = answer;
  k->facts.changed_domain = true;
}

static void know_address(struct callout *k, enum hint_answer answer) {
  k->facts.address = answer;
  k->facts.changed_address = true;
}

/* MAIL or RCPT of the address in question was not accepted. */
static enum host_answer judge(struct callout *k, struct smtp_connection *n, enum smtp_stage_result r, bool mail_ok) {
  if (mail_ok)
    know_domain(k, HINT_ACCEPT);
  if (r == SMTP_REFUSED && mail_ok) {
    know_address(k, HINT_REJECT);
    note_refusal(k, "recipient", n->command, n->reply.text);
    return HOST_NO;
  }
  if (r == SMTP_REFUSED) {
    /* A sender that is refused says nothing about the domain, but for the empty one. */
    know_domain(k, k->from.len ? HINT_ACCEPT : HINT_REJECT_MAIL);
    note_refusal(k, "mail", n->command, n->reply.text);
    return HOST_NO;
  }
  k->out->reply = r == SMTP_TEMPORARY ? n->reply.text : STR_UNSET;
  return no_answer(k, n->error_text);
}

/* Is any address of the domain accepted? *ret_go_on: no, or it cannot be told, and the connection can be used. */
static enum host_answer check_random(struct callout *k, struct smtp_connection *n, bool *ret_go_on) {
  struct ctx *c = k->c;
  struct str local;
  bool mail_ok;
  *ret_go_on = false;
  if (expand_option(c, &main_options(c->config)->callout_random_local_part, &local) || local.len == 0) {
    *ret_go_on = true;
    return HOST_NEXT;
  }
  k->ask_random = false;
  enum smtp_stage_result r = transaction(k, n, k->from, str_printf(c->arena, "%.*s@%.*s", STRF(local), STRF(k->a->domain)), false,
      &mail_ok);
  if (!mail_ok || r == SMTP_BROKEN)
    return judge(k, n, r, mail_ok);
  know_domain(k, HINT_ACCEPT);
  if (r == SMTP_OK || r == SMTP_REFUSED) {
    k->facts.random = r == SMTP_OK ? HINT_ACCEPT : HINT_REJECT;
    k->facts.random_stamp = time_now_usec() / 1000000;
  }
  if (r == SMTP_OK) {
    k->out->failure = STR("random");
    return HOST_YES;
  }
  *ret_go_on = simple(k, n, "RSET") == SMTP_OK;
  return HOST_AGAIN; /* over a new connection, if this one broke */
}

static enum host_answer check_postmaster(struct callout *k, struct smtp_connection *n) {
  struct ctx *c = k->c;
  bool mail_ok;
  enum smtp_stage_result r = simple(k, n, "RSET");
  if (r)
    return no_answer(k, n->error_text);
  r = transaction(k, n, k->p->postmaster_mailfrom, str_printf(c->arena, "postmaster@%.*s", STRF(k->a->domain)), false, &mail_ok);
  if (r == SMTP_REFUSED && mail_ok && k->p->full_postmaster)
    r = rcpt(k, n, STR("postmaster"));
  if (r == SMTP_OK || r == SMTP_REFUSED) {
    k->facts.postmaster = r == SMTP_OK ? HINT_ACCEPT : HINT_REJECT;
    k->facts.postmaster_stamp = time_now_usec() / 1000000;
    k->facts.changed_domain = true;
  }
  if (r == SMTP_OK)
    return HOST_YES;
  if (r != SMTP_REFUSED)
    return no_answer(k, n->error_text);
  note_refusal(k, "postmaster", n->command, n->reply.text);
  return HOST_NO;
}

/* Does the server know SMTPUTF8, if that is needed? What must be converted has an ASCII form? Else *ret is the answer. */
static bool speaks_utf8(struct callout *k, struct smtp_connection *n, enum host_answer *ret) {
  struct ctx *c = k->c;
  struct str why = STR_EMPTY, unused;
  bool international = k->a->prop.utf8_msg || (c->message && c->message->smtputf8);
  int rc = smtp_utf8_mode(c, n, international, &k->utf8, &why);
  if (rc == OUTCOME_DEFER) {
    *ret = no_answer(k, why);
    return false;
  }
  if (rc)
    why = STR("response to \"EHLO\" did not include SMTPUTF8");
  else if (smtp_utf8_address(c, k->utf8, k->from, &unused, &why) &&
           smtp_utf8_address(c, k->utf8, smtp_rcpt_address(c, k->t, k->a), &unused, &why))
    return true;
  bool in_rcpt = c->acl && c->acl->where == ACL_RCPT;
  k->out->failure = STR("recipient");
  k->out->log = tainted(str_printf(c->arena, "%.*s [%.*s] : %.*s", STRF(k->host->name), STRF(k->host->address), STRF(why)));
  k->out->user = in_rcpt ? STR("533 no support for internationalised mailbox name") : STR("550 mailbox unavailable");
  *ret = HOST_NO;
  return false;
}

/* The checks over a connection that is ready. */
static enum host_answer ask(struct callout *k, struct smtp_connection *n) {
  bool mail_ok, go_on = true;
  enum host_answer answer;
  if (!speaks_utf8(k, n, &answer))
    return answer;
  if (k->ask_random) {
    enum host_answer h = check_random(k, n, &go_on);
    if (!go_on)
      return h;
  }
  enum smtp_stage_result r = transaction(k, n, k->from, smtp_rcpt_address(k->c, k->t, k->a), k->p->recipient, &mail_ok);
  if (r || !mail_ok)
    return judge(k, n, r, mail_ok);
  know_domain(k, HINT_ACCEPT);
  know_address(k, HINT_ACCEPT);
  return k->ask_postmaster ? check_postmaster(k, n) : HOST_YES;
}

/* --- connections that are kept --- */

void callout_release(struct callout_kept *k, const char *id) {
  if (!k || !k->connection)
    return;
  struct smtp_connection *n = k->connection;
  k->connection = NULL;
  n->needs_reset = true;
  snprintf(n->txn_id, sizeof n->txn_id, "%s", id);
  smtp_pool_keep(n);
}

void callout_drop(struct callout_kept *k) {
  if (!k || !k->connection)
    return;
  smtp_disconnect(k->connection, true);
  k->connection = NULL;
}

static void note_recipient(struct callout *k, struct smtp_connection *n) {
  vec_push(n->arena, &n->txn_rcpts, str_dup(n->arena, in_form(k, smtp_rcpt_address(k->c, k->t, k->a))));
}

/* Keeps a connection with its open transaction, if the caller wants that and it can be used for more. */
static bool keep(struct callout *k, struct smtp_connection *n) {
  if (!k->p->hold || !k->p->kept)
    return false;
  n->transport = transport_for(k, n->arena); /* the one at hand goes with this evaluation */
  k->p->kept->connection = n;
  n->user = NULL; /* it may outlive this evaluation: its end is nobody's event */
  n->txn_open = true;
  n->txn_sender = str_dup(n->arena, in_form(k, k->from));
  n->txn_rcpts.n = 0;
  note_recipient(k, n);
  DEBUG(verify, "holding verify callout open for further recipients\n");
  return true;
}

/* Do two keys of connections mean the same place? Another name for the same address is as good, but for certificates. */
static bool same_place(const struct smtp_connection *n, struct str key) {
  ptrdiff_t a = str_find_byte(n->key, ' '), b = str_find_byte(key, ' ');
  return n->tls || a < 0 || b < 0 ? str_eq(n->key, key) : str_eq(str_from(n->key, (size_t)a), str_from(key, (size_t)b));
}

/* One more recipient in the transaction that is held open; false: there is none to this host. */
static bool ask_kept(struct callout *k, enum host_answer *ret) {
  struct callout_kept *kept = k->p->kept;
  if (!kept || !kept->connection)
    return false;
  struct smtp_connection *n = kept->connection;
  struct str interface = STR_EMPTY;
  if (str_is_set(k->o->interface.text) && expand_option(k->c, &k->o->interface, &interface))
    return false;
  enum host_answer unused;
  if (!speaks_utf8(k, n, &unused) || !k->p->hold || k->ask_random || k->ask_postmaster || !str_eq(n->txn_sender, in_form(k, k->from)) || n->txn_rcpts.n >= KEPT_RCPTS_MAX ||
      !same_place(n, smtp_pool_key(k->c, k->t, k->port, interface)) || stream_input_pending(n->stream)) {
    if (k->p->drop_other)
      callout_drop(kept);
    else
      callout_release(kept, "");
    return false;
  }
  enum smtp_stage_result r = rcpt(k, n, smtp_rcpt_address(k->c, k->t, k->a));
  if (r == SMTP_BROKEN) {
    callout_drop(kept);
    return false;
  }
  if (r) {
    *ret = judge(k, n, r, true);
    return true;
  }
  note_recipient(k, n);
  know_domain(k, HINT_ACCEPT);
  know_address(k, HINT_ACCEPT);
  *ret = HOST_YES;
  return true;
}

/* Says QUIT and gives the host a moment to answer it. */
static void hang_up(struct callout *k, struct smtp_connection *n) {
  struct str text = n->error_text;
  if (!n->gone && n->error != ETIMEDOUT && smtp_command(k->c, n, true, "QUIT") == SMTP_OK)
    (void)smtp_read_reply(k->c, n, k->p->timeout < QUIT_SECONDS ? k->p->timeout : QUIT_SECONDS);
  n->error_text = text;
  smtp_disconnect(n, false);
}

static enum host_answer call_host(struct callout *k) {
  enum smtp_stage_result why = SMTP_OK;
  enum host_answer h;
  int error = 0;
  struct str text = STR_EMPTY, command = STR_EMPTY, reply = STR_EMPTY;
  if (ask_kept(k, &h))
    return h;
  struct smtp_connection *n = smtp_connect(k->c, k->t, k->port, &why, &error, &text, &command, &reply);
  if (!n && why == SMTP_REFUSED) {
    know_domain(k, HINT_REJECT);
    note_refusal(k, "mail", command, reply);
    return HOST_NO;
  }
  if (!n && error == EADDRNOTAVAIL) /* not the other host's fault */
    log_write(LOG_MAIN | LOG_PANIC, NULL, "recipient verify defer (making callout connection): T=%.*s %.*s", STRF(k->t->name), STRF(text));
  if (!n)
    return no_answer(k, text);
  h = ask(k, n);
  if (h != HOST_YES || !keep(k, n))
    hang_up(k, n);
  return h;
}

/* --- all hosts --- */

static enum outcome unanswered(struct callout *k) {
  const char *what = k->p->recipient ? "recipient" : "sender";
  struct arena *a = k->c->arena;
  k->out->failure = STR_EMPTY;
  k->out->log = k->one_host && str_is_set(k->problem)
                    ? tainted(str_printf(a, "Could not complete %s verify callout: %.*s", what, STRF(k->problem)))
                    : str_printf(a, "Could not complete %s verify callout", what);
  k->out->user = str_printf(a, "Could not complete %s verify callout%s", what,
      main_options(k->c->config)->smtp_return_error_details
          ? " for <"
          : "");
  if (main_options(k->c->config)->smtp_return_error_details)
    k->out->user = tainted(str_printf(a,
        "%.*s%.*s>.\nThe mail server(s) for the domain may be temporarily unreachable, or\n"
        "they may be permanently unreachable from this server. In the latter case,\n"
        "you need to change the address or create an MX record for its domain\n"
        "if it is supposed to be generally accessible from the Internet.\n"
        "Talk to your mail administrator for details.", STRF(k->out->user), STRF(k->a->address)));
  return OUTCOME_DEFER;
}

static enum outcome call_hosts(struct callout *k, struct host *hosts) {
  struct ctx *c = k->c;
  usec_t until = deadline_in(k->p->maxwait >= 0 ? k->p->maxwait : 4 * k->p->timeout);
  for (struct host *h = hosts; h; h = h->next) {
    struct str error;
    if (!smtp_find_address(c, k->t, h, h->port > 0 ? h->port : k->port, &error)) {
      DEBUG(verify, "callout: %.*s\n", STRF(error));
      continue;
    }
    k->host = c->host = h;
    k->one_host = h == hosts && !h->next;
    int port = k->port;
    k->port = h->port > 0 ? h->port : port;
    h->port = k->port;
    enum host_answer answer = call_host(k);
    if (answer == HOST_AGAIN)
      answer = call_host(k);
    k->port = port;
    if (answer == HOST_YES)
      return OUTCOME_OK;
    if (answer == HOST_NO)
      return OUTCOME_FAIL;
    if (loop_now_fresh() >= until) {
      DEBUG(verify, "callout: maxwait has passed\n");
      break;
    }
  }
  return unanswered(k);
}

/* Does the cache know the answer? */
static bool known(struct callout *k, enum outcome *ret) {
  struct callout_facts *f = &k->facts;
  if (f->domain == HINT_REJECT || (f->domain == HINT_REJECT_MAIL && k->from.len == 0)) {
    DEBUG(verify, "callout cache: domain gave initial rejection, or does not accept HELO or MAIL FROM:<>\n");
    *ret = failed(k, "mail", STR("(result of an earlier callout reused)."), STR_UNSET);
    return true;
  }
  if (k->ask_random && f->random == HINT_ACCEPT) {
    DEBUG(verify, "callout cache: domain accepts random addresses\n");
    k->out->failure = STR("random");
    *ret = OUTCOME_OK;
    return true;
  }
  if (f->random == HINT_REJECT)
    k->ask_random = false;
  if (k->ask_postmaster && f->postmaster == HINT_REJECT) {
    DEBUG(verify, "callout cache: domain does not accept RCPT TO:<postmaster@domain>\n");
    *ret = failed(k, "postmaster", STR("(result of earlier verification reused)."), STR_UNSET);
    return true;
  }
  if (f->postmaster == HINT_ACCEPT)
    k->ask_postmaster = false;
  if (f->address == HINT_REJECT) {
    DEBUG(verify, "callout cache: address record is negative\n");
    *ret = failed(k, "recipient", STR("Previous (cached) callout verification failure"), STR_UNSET);
    return true;
  }
  *ret = OUTCOME_OK;
  return f->address == HINT_ACCEPT && !k->ask_postmaster;
}

static struct str sender_of(struct ctx *c, const struct address *a, const struct callout_params *p) {
  if (p->use_transport_sender && a->transport) {
    struct address one = *a;
    one.next = NULL;
    one.prop.errors_address = STR_UNSET;
    if (transport_return_path(c, a->transport, &one) && str_is_set(one.return_path))
      return one.return_path;
  }
  if (!p->recipient)
    return str_is_set(p->mailfrom) ? p->mailfrom : STR_EMPTY;
  if (p->use_sender || p->use_transport_sender)
    return c->message ? c->message->reverse_path : STR_EMPTY;
  if (p->use_postmaster)
    return str_printf(c->arena, "postmaster@%.*s", STRF(main_options(c->config)->qualify_domain));
  return STR_EMPTY;
}

static enum outcome verify(struct callout *k, struct address *a) {
  struct ctx *c = k->c;
  struct host *hosts;
  struct str error;
  enum outcome result;
  if (!k->p->no_cache) {
    callout_cache_read(c, a, k->from, &k->facts);
    if (known(k, &result))
      return result;
  }
  k->t = transport_for(k, c->arena);
  k->o = smtp_client_options(k->t);
  if (!smtp_choose_hosts(c, k->t, a, &hosts, &k->port, &error)) {
    DEBUG(verify, "callout: %.*s\n", STRF(error));
    k->problem = error;
    return unanswered(k);
  }
  c->transport = k->t;
  result = call_hosts(k, hosts);
  if (!k->p->no_cache)
    callout_cache_write(c, &k->facts);
  return result;
}

enum outcome callout_verify(struct ctx *c, struct address *a, const struct callout_params *p, struct callout_outcome *ret) {
  struct callout k = {.c = c, .a = a, .p = p, .out = ret, .ask_random = p->random,
      .ask_postmaster = str_is_set(p->postmaster_mailfrom), .from = sender_of(c, a, p)};
  *ret = (struct callout_outcome){0};
  if (a->transport ? a->transport->driver != &transport_smtp.driver : !a->hosts)
    return OUTCOME_OK;
  DEBUG(verify, "Attempting full verification using callout\n");
  struct policy_vars saved = c->vars;
  struct host *host = c->host;
  const struct instance *transport = c->transport;
  struct address *address = c->address;
  c->address = a;
  c->vars.local_part = a->local_part;
  c->vars.domain = a->domain;
  c->vars.verify_mode = p->recipient ? STR("R") : STR("S");
  enum outcome result = verify(&k, a);
  c->vars = saved;
  c->host = host;
  c->transport = transport;
  c->address = address;
  if (result == OUTCOME_DEFER && p->defer_ok)
    return OUTCOME_OK;
  return result;
}
