/* One message over a connection: MAIL, RCPT …, DATA or BDAT, and what the
answers mean for each recipient (RFC 5321 4.1.1, 2920 3.1). */

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/build.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "transport/event.h"
#include "transport/plan.h"
#include "tls/tls.h"
#include "transport/options.h"

#define SIGNATURES_IN_CHUNK 32768

struct transaction {
  struct ctx *c;
  struct smtp_connection *n;
  const struct smtp_client_options *o;
  struct address *chain;
  const struct transport_message *m;
  struct str mail_command;
  struct tls_info *tls; /* a copy: the log line is written when the connection may be gone */
  int sent, accepted;
  bool pipelining, chunking, prdr;
  bool early;      /* it began before the server's banner or answer to EHLO (PIPECONNECT) */
  enum smtp_utf8 utf8;
  struct str return_path; /* in the form that the server gets */
  bool early_data; /* the whole message went out with MAIL and RCPT */
  int64_t max;     /* recipients at a time */
  struct str only_domain; /* RCPTDOMAINMAX: set when only recipients of this domain go into the transaction */
  bool all_or_none; /* mua_wrapper: nothing is sent when a recipient is refused */
  bool prepared;   /* text is ready */
  struct smtp_text text;
  int text_error;  /* it could not be made */
};

struct str smtp_rcpt_address(struct ctx *c, const struct instance *t, const struct address *a) {
  return transport_options(t)->rcpt_include_affixes ? a->address : address_without_affixes(c->arena, a);
}

static struct str rcpt_address(struct transaction *t, const struct address *a) {
  struct str as_sent, error;
  (void)smtp_utf8_address(t->c, t->utf8, smtp_rcpt_address(t->c, t->c->transport, a), &as_sent, &error);
  return as_sent;
}

static bool pending(const struct address *a) { return a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING; }

static void set_host(struct transaction *t, struct address *a) {
  a->host_used = t->c->host;
  a->host_used_port = t->n->port;
  a->continued = t->n->messages > 1;
  if (!t->tls)
    t->tls = tls_info_copy(t->c->arena, t->n->tls_info);
  a->tls_out = t->tls;
  if (!t->n->passed_on) { /* who we were is told once for a connection */
    a->auth_out = str_dup(t->c->arena, t->n->auth_name);
    a->auth_id_out = str_dup(t->c->arena, t->n->auth_id);
    a->protocol_steps = str_dup(t->c->arena, str_c(t->n->steps));
  } else if (t->tls && str_is_set(t->tls->peer_dn)) {
    t->tls->peer_dn = STR_EMPTY;
  }
  a->proxy = t->n->proxy ? str_dup(t->c->arena, t->n->proxy->local_address) : STR_UNSET;
  a->proxy_port = t->n->proxy ? t->n->proxy->local_port : 0;
  uint64_t port = 0;
  a->sending_address = t->c->vars.sending_ip_address;
  a->sending_port = str_to_u64(t->c->vars.sending_port, &port) ? (int)port : 0;
  a->smtp_greeting = str_dup(t->c->arena, t->n->greeting);
  a->helo_response = str_dup(t->c->arena, t->n->ehlo_reply);
}

static void settle(struct transaction *t, struct address *a, enum outcome result, int error, struct str text) {
  a->result = result;
  a->basic_errno = error;
  a->message = text;
  a->user_message = t->n->reply.text;
  set_host(t, a);
}

/* Settles all that still wait with the failure noted in the connection. */
static void settle_all(struct transaction *t, enum outcome result, int error) {
  for (struct address *a = t->chain; a; a = a->next)
    if (pending(a))
      settle(t, a, result, error, t->n->error_text);
}

/* authenticated_sender: only when the session is authenticated, unless forced (RFC 4954 5). */
struct str smtp_auth_parameter(struct ctx *c, const struct smtp_connection *n) {
  const struct smtp_client_options *o = smtp_client_options(n->transport);
  struct str who = c->client->authenticated_sender;
  if (str_is_set(o->authenticated_sender.text)) {
    struct str other; /* empty or a forced failure: as if it were not set */
    if (expand_option(c, &o->authenticated_sender, &other) == 0 && str_is_set(other) && other.len > 0)
      who = other;
  }
  if (!str_is_set(who) || !who.len || !(n->authenticated || o->authenticated_sender_force))
    return STR_EMPTY;
  struct buf b;
  buf_init(&b, c->arena, 2048);
  buf_add_c(&b, " AUTH=");
  for (size_t i = 0; i < who.len; i++) {
    unsigned char ch = (unsigned char)who.p[i];
    if (ch <= 32 || ch >= 127 || ch == '+' || ch == '=')
      buf_printf(&b, "+%02X", ch);
    else
      buf_add_byte(&b, (char)ch);
  }
  return buf_str(&b);
}

/* Is this one for the present transaction? */
static bool wanted_now(const struct transaction *t, const struct address *a) {
  return pending(a) && (!str_is_set(t->only_domain) || str_ieq(a->domain, t->only_domain));
}

/* What the server's LIMITS (RFC 9422) and our options leave for one transaction. PRDR is worth asking for when there are
several recipients. */
static void choose_limits(struct transaction *t) {
  const struct smtp_offers *f = &t->n->offers;
  int64_t wanted = 0;
  if (expand_option_int(t->c, &t->o->max_rcpt, "max_rcpt", &t->max) || t->max <= 0)
    t->max = INT32_MAX;
  if (t->all_or_none) {
    t->max = INT32_MAX;
    t->prdr = false;
    t->only_domain = STR_UNSET;
    return;
  }
  if (f->limit_rcpts > 0 && f->limit_rcpts < t->max)
    t->max = f->limit_rcpts;
  t->only_domain = STR_UNSET;
  for (const struct address *a = t->chain; (f->limit_domains > 0 || t->n->dane.in_effect) && a; a = a->next)
    if (pending(a)) {
      t->only_domain = a->domain;
      break;
    }
  for (const struct address *a = t->chain; a && wanted < t->max; a = a->next)
    wanted += wanted_now(t, a);
  t->prdr = f->prdr && wanted > 1 && !t->o->lmtp;
}

static enum smtp_stage_result send_mail(struct transaction *t) {
  struct ctx *c = t->c;
  char size[40] = "";
  if (t->n->offers.size)
    snprintf(size, sizeof size, " SIZE=%lld", (long long)(t->m->size + t->o->size_addition + (int64_t)c->message->lines));
  struct str auth = smtp_auth_parameter(c, t->n);
  enum smtp_stage_result r = smtp_command(c, t->n, !t->pipelining, "MAIL FROM:<%.*s>%s%s%s%s%.*s%.*s", STRF(t->return_path), size,
      t->prdr ? " PRDR" : "", t->n->offers.requiretls && message_requires_tls(c->message) ? " REQUIRETLS" : "", t->utf8 == SMTP_UTF8_SEND ? " SMTPUTF8" : "", STRF(auth), STRF(smtp_dsn_mail(c, t->n)));
  t->mail_command = t->n->command;
  return r;
}

/* The answer to MAIL decides for all. */
static enum smtp_stage_result take_mail_reply(struct transaction *t) {
  t->n->command = t->mail_command;
  t->n->command_pipelined = t->pipelining;
  enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->command_timeout, '2');
  t->n->mail_answered = r != SMTP_BROKEN;
  if (r == SMTP_REFUSED || r == SMTP_TEMPORARY) {
    if (t->early_data)
      t->n->command = STR("end of data");
    smtp_note_refusal(t->c, t->n, r == SMTP_TEMPORARY ? ERROR_MAIL_4XX : 0);
    settle_all(t, r == SMTP_REFUSED ? OUTCOME_FAIL : OUTCOME_DEFER, t->n->error);
  }
  return r;
}

/* The number says the last digits of the code, and how the host was found. */
static void raise_deferred(struct transaction *t, struct address *a) {
  int number = t->n->reply.code % 100 * 256 + (t->c->host && t->c->host->mx >= 0 ? 'M' : 'A');
  event_address(t->c, a, "msg:rcpt:host:defer", a->message, number);
  if (!t->c->host || !t->c->host->next) /* else the next one may take it */
    event_address(t->c, a, "msg:rcpt:defer", a->message, number);
}

/* Who is silent about one recipient may have trouble with that one only: no error of the host's. */
static void note_slow_rcpt(struct transaction *t, struct address *slow) {
  t->n->command_pipelined = false;
  smtp_note_broken(t->c, t->n, -ETIMEDOUT);
  t->n->address_error = true;
  bool asked = true;
  for (struct address *a = t->chain; a; a = a->next) {
    if (!pending(a))
      continue;
    settle(t, a, OUTCOME_DEFER, ETIMEDOUT, t->n->error_text);
    a->retry_address = a == slow;
    if (!asked)
      a->host_used = NULL;
    asked &= a != slow;
  }
}

static enum smtp_stage_result take_rcpt_reply(struct transaction *t, struct address *a) {
  t->n->command = str_printf(t->c->arena, "RCPT TO:<%.*s>", STRF(rcpt_address(t, a)));
  t->n->command_pipelined = t->pipelining;
  enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->command_timeout, '2');
  if (r == SMTP_BROKEN && t->n->error == ETIMEDOUT)
    note_slow_rcpt(t, a);
  if (r == SMTP_BROKEN)
    return r;
  if (r == SMTP_OK) {
    t->accepted++;
    return SMTP_OK;
  }
  if (t->n->reply.code == 452 && t->accepted && t->pipelining) { /* too many for one transaction: another one follows */
    a->smtp_in_transaction = false;
    return SMTP_OK;
  }
  t->n->command_pipelined = false; /* a refused recipient is logged the same way either way */
  smtp_note_refusal(t->c, t->n, r == SMTP_TEMPORARY ? ERROR_RCPT_4XX : 0);
  settle(t, a, r == SMTP_REFUSED ? OUTCOME_FAIL : OUTCOME_DEFER, t->n->error, t->n->error_text);
  if (r == SMTP_TEMPORARY)
    raise_deferred(t, a);
  return SMTP_OK;
}

static bool in_transaction(const struct address *a) { return pending(a) && a->smtp_in_transaction; }

static enum smtp_stage_result send_rcpts(struct transaction *t) {
  for (struct address *a = t->chain; a && t->sent < t->max; a = a->next) {
    if (!wanted_now(t, a))
      continue;
    a->smtp_in_transaction = true;
    t->sent++;
    enum smtp_stage_result r = smtp_command(t->c, t->n, !t->pipelining, "RCPT TO:<%.*s>%.*s%s", STRF(rcpt_address(t, a)),
        STRF(smtp_dsn_rcpt(t->c, t->n, a)), t->o->lmtp && t->o->lmtp_ignore_quota ? " IGNOREQUOTA" : "");
    if (!r && !t->pipelining)
      r = take_rcpt_reply(t, a);
    if (r)
      return r;
  }
  return SMTP_OK;
}

/* A reply that does not matter any more, nor does it if the other side hangs up instead. */
static void read_and_ignore(struct transaction *t, int64_t timeout) {
  struct str text = t->n->error_text;
  int error = t->n->error;
  t->n->gone = t->n->gone || smtp_read_reply(t->c, t->n, timeout) == SMTP_BROKEN;
  t->n->error_text = text;
  t->n->error = error;
}

/* With pipelining: all answers to MAIL and RCPT come now. */
static enum smtp_stage_result take_pipelined(struct transaction *t) {
  enum smtp_stage_result mail = take_mail_reply(t), r;
  if (mail == SMTP_BROKEN)
    return mail;
  for (struct address *a = t->chain; a; a = a->next) {
    if (!a->smtp_in_transaction)
      continue;
    if (mail == SMTP_OK) {
      if ((r = take_rcpt_reply(t, a)))
        return r;
      continue;
    }
    /* MAIL was refused: what is said to RCPT does not matter. */
    read_and_ignore(t, t->o->command_timeout);
  }
  return mail;
}

static void confirm(struct transaction *t, struct address *a) {
  a->result = OUTCOME_OK;
  a->basic_errno = 0;
  a->message = STR_UNSET;
  a->confirmation = t->n->reply.text;
  if (t->utf8 == SMTP_UTF8_CONVERT) {
    a->sent_as = rcpt_address(t, a);
    a->sent_sender = t->return_path;
  }
  a->used_pipelining = t->pipelining;
  a->used_early = t->early;
  a->used_chunking = t->chunking;
  a->signed_log = a == t->chain ? t->text.log : STR_UNSET;
  set_host(t, a);
}

/* The last answer of a block of PRDR replies decides for all if it refuses; else each recipient has its own. */
static enum smtp_stage_result settle_prdr(struct transaction *t, const struct smtp_reply *answers) {
  struct ctx *c = t->c;
  struct str final = t->n->reply.text;
  for (struct address *a = t->chain; a; a = a->next) {
    if (!in_transaction(a))
      continue;
    t->n->reply = *answers++;
    a->used_prdr = true;
    if (t->n->reply.code / 100 == 2) {
      confirm(t, a);
      a->confirmation = str_tainted(str_printf(c->arena, "%.*s\n%.*s", STRF(t->n->reply.text), STRF(final)));
      continue;
    }
    bool fails = t->n->reply.code / 100 == 5;
    settle(t, a, fails ? OUTCOME_FAIL : OUTCOME_DEFER, 0,
        str_tainted(str_printf(c->arena, "PRDR error after DATA: %.*s", STRF(t->n->reply.text))));
    if (!fails)
      raise_deferred(t, a);
  }
  return SMTP_OK;
}

/* After 353: an answer for each accepted recipient, and one for the message (draft-hall-prdr, 4.6). */
static enum smtp_stage_result take_prdr(struct transaction *t) {
  size_t n = 0, count = (size_t)t->accepted;
  struct smtp_reply *answers = arena_array(t->c->arena, struct smtp_reply, count + 1);
  while (n < count) {
    enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->final_timeout, '2');
    if (r == SMTP_BROKEN)
      return r;
    answers[n++] = t->n->reply;
  }
  enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->final_timeout, '2');
  if (r == SMTP_BROKEN)
    return r;
  if (r == SMTP_OK)
    return settle_prdr(t, answers);
  smtp_note_refusal(t->c, t->n, r == SMTP_TEMPORARY ? ERROR_DATA_4XX : 0);
  for (struct address *a = t->chain; a; a = a->next)
    if (in_transaction(a))
      settle(t, a, r == SMTP_REFUSED ? OUTCOME_FAIL : OUTCOME_DEFER, t->n->error, t->n->error_text);
  return r;
}

/* The first answer to the data: SMTP_OK with reply.code 353 opens a block of PRDR replies. */
static enum smtp_stage_result expect_final(struct transaction *t) {
  if (!t->prdr)
    return smtp_expect(t->c, t->n, t->o->final_timeout, '2');
  enum smtp_stage_result r = smtp_read_reply(t->c, t->n, t->o->final_timeout);
  return r || t->n->reply.code == 353 ? r : smtp_judge_reply(t->c, t->n, '2');
}

/* After the data: one answer for all, or with LMTP and PRDR one for each accepted recipient. */
static enum smtp_stage_result take_final(struct transaction *t) {
  for (struct address *a = t->chain; a; a = a->next) {
    if (!in_transaction(a))
      continue;
    t->n->command = STR("end of data");
    t->n->command_pipelined = t->early_data;
    enum smtp_stage_result r = expect_final(t);
    if (r == SMTP_BROKEN)
      return r;
    if (r == SMTP_OK && t->n->reply.code == 353)
      return take_prdr(t);
    if (r)
      smtp_note_refusal(t->c, t->n, r == SMTP_TEMPORARY ? ERROR_DATA_4XX : 0);
    enum outcome o = r == SMTP_REFUSED ? OUTCOME_FAIL : OUTCOME_DEFER;
    if (t->o->lmtp) {
      if (r)
        settle(t, a, o, 0, str_tainted(str_printf(t->c->arena, "LMTP error after DATA: %.*s", STRF(t->n->reply.text))));
      else
        confirm(t, a);
      continue;
    }
    for (struct address *b = a; b; b = b->next)
      if (in_transaction(b)) {
        if (r)
          settle(t, b, o, t->n->error, t->n->error_text);
        else
          confirm(t, b);
      }
    return r;
  }
  return SMTP_OK;
}

static enum smtp_stage_result note_data_refusal(struct transaction *t, enum smtp_stage_result r) {
  if (r != SMTP_REFUSED && r != SMTP_TEMPORARY)
    return r;
  t->n->command_pipelined = t->pipelining;
  smtp_note_refusal(t->c, t->n, r == SMTP_TEMPORARY ? ERROR_DATA_4XX : 0);
  for (struct address *a = t->chain; a; a = a->next)
    if (in_transaction(a))
      settle(t, a, r == SMTP_REFUSED ? OUTCOME_FAIL : OUTCOME_DEFER, t->n->error, t->n->error_text);
  return r;
}

/* Opens and signs what is to be sent, once. */
static enum smtp_stage_result prepare_text(struct transaction *t) {
  struct ctx *c = t->c;
  if (t->prepared)
    return SMTP_OK;
  t->prepared = true;
  int e = smtp_text_open(c, t->m, &t->text);
  if (e) {
    t->n->error = -e;
    t->n->error_text = str_printf(c->arena, "cannot open the message's body: %s", strerror(-e));
    return SMTP_BROKEN;
  }
  t->text_error = smtp_sign_text(c, t->n->transport, t->chain, &t->text);
  if (t->text_error == -EACCES) {
    t->n->error = EACCES;
    t->n->error_text = str_printf(c->arena, "smtp send to %.*s [%.*s] failed: %.*s", STRF(t->n->host_name), STRF(t->n->host_address),
        STRF(c->error));
    return SMTP_BROKEN;
  }
  return SMTP_OK;
}

/* Sends head and body. */
static enum smtp_stage_result send_text(struct transaction *t) {
  struct ctx *c = t->c;
  int unanswered = 0;
  int64_t sent = 0;
  enum smtp_stage_result prepared = prepare_text(t);
  if (prepared)
    return prepared;
  int e = t->text_error ? t->text_error : smtp_send_body(c, t->n, &t->text, !t->chunking, &sent, &unanswered);
  smtp_text_done(c, &t->text);
  if (e == -EPROTO) {
    (void)note_data_refusal(t, t->n->reply.code >= 500 ? SMTP_REFUSED : SMTP_TEMPORARY);
    return SMTP_BROKEN;
  }
  if (e <= PLAN_FILTER_TIMEOUT) { /* the text is not whole: the connection ends without "." */
    struct plan_result why = {0};
    plan_write_failed(c->arena, &why, e, "");
    t->n->error = (int)why.basic_errno;
    t->n->error_text = str_cat(c->arena, STR("t"), str_from(why.message, 1));
    for (struct address *a = t->chain; a; a = a->next)
      if (a->smtp_in_transaction && a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING) {
        a->basic_errno = t->n->error;
        a->message = t->n->error_text;
        a->host_used = c->host;
        a->host_used_port = c->host ? c->host->port : 0;
      }
    return SMTP_BROKEN;
  }
  if (e) {
    t->n->command = str_printf(c->arena, "sending data block (%lld bytes written)", (long long)sent);
    t->n->command_pipelined = false;
    smtp_note_broken(c, t->n, e);
    return SMTP_BROKEN;
  }
  while (unanswered-- > 0) {
    t->n->command = STR("BDAT");
    enum smtp_stage_result r = smtp_expect(c, t->n, t->o->data_timeout, '2');
    if (r) {
      (void)note_data_refusal(t, r);
      return SMTP_BROKEN;
    }
  }
  return SMTP_OK;
}

static enum smtp_stage_result send_data(struct transaction *t) {
  enum smtp_stage_result r = send_text(t);
  return r ? r : take_final(t);
}

/* MAIL, RCPT … and BDAT LAST are on their way together: their answers in order (RFC 2920, 3030 4.2). */
static enum smtp_stage_result take_early(struct transaction *t) {
  enum smtp_stage_result r = take_pipelined(t);
  if (r == SMTP_BROKEN)
    return r;
  if (r == SMTP_OK && t->accepted)
    return take_final(t);
  /* Nobody was accepted: what is said to BDAT does not matter. */
  read_and_ignore(t, t->o->final_timeout);
  t->n->needs_reset = true;
  return r;
}

/* DATA was sent along with the recipients: its answer comes even if no recipient was accepted. */
static enum smtp_stage_result take_data_reply(struct transaction *t, enum smtp_stage_result mail) {
  t->n->command = STR("DATA");
  t->n->command_pipelined = t->pipelining;
  if (mail || !t->accepted) {
    read_and_ignore(t, t->o->command_timeout);
    if (!t->n->gone && t->n->reply.code / 100 == 3) { /* a server that accepts DATA without recipients gets an empty message */
      struct str text = t->n->error_text;
      int error = t->n->error;
      t->n->gone = smtp_command(t->c, t->n, true, ".") == SMTP_BROKEN;
      t->n->error_text = text;
      t->n->error = error;
      if (!t->n->gone && !t->o->lmtp) /* LMTP: an answer for each recipient, so none */
        read_and_ignore(t, t->o->final_timeout);
    }
    return mail;
  }
  enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->command_timeout, '3');
  if (r == SMTP_BROKEN)
    return r;
  return note_data_refusal(t, r);
}

static bool txn_has(const struct smtp_connection *n, struct str rcpt) {
  for (size_t i = 0; i < n->txn_rcpts.n; i++)
    if (str_eq(n->txn_rcpts.v[i], rcpt))
      return true;
  return false;
}

/* Has a callout left a transaction open that is just what this message needs? Then only the data are to be sent. */
static bool continues_transaction(struct transaction *t) {
  struct smtp_connection *n = t->n;
  size_t waiting = 0;
  /* What routers (errors_to) and rewriting make of this message's sender comes too late: the server knows him already. */
  bool same = str_eq(n->txn_sender, t->return_path) || (n->txn_sender.len && !strcmp(n->txn_id, t->c->message->id));
  if (!n->txn_open || !same || t->o->lmtp || message_requires_tls(t->c->message))
    return false;
  for (const struct address *a = t->chain; a; a = a->next) {
    if (!pending(a))
      continue;
    if (!txn_has(n, rcpt_address(t, a)))
      return false;
    waiting++;
  }
  return waiting == n->txn_rcpts.n;
}

static enum smtp_stage_result continue_transaction(struct transaction *t) {
  t->pipelining = t->early_data = false;
  for (struct address *a = t->chain; a; a = a->next)
    if (pending(a)) {
      a->smtp_in_transaction = true;
      t->accepted++;
    }
  if (!t->chunking) {
    enum smtp_stage_result r = smtp_command(t->c, t->n, true, "DATA");
    if (!r)
      r = smtp_expect(t->c, t->n, t->o->command_timeout, '3');
    if (r) {
      t->n->needs_reset = true;
      return note_data_refusal(t, r);
    }
  }
  return send_data(t);
}

/* One recipient was refused: so are the others, with his reason. */
static void give_up(struct transaction *t) {
  const struct address *refused = t->chain;
  while (refused && pending(refused))
    refused = refused->next;
  for (struct address *a = t->chain; a && refused; a = a->next)
    if (pending(a))
      settle(t, a, refused->result, refused->basic_errno, refused->message);
  t->accepted = 0;
}

enum smtp_stage_result smtp_send_message(struct ctx *c, struct smtp_connection *n, struct address *chain,
    const struct transport_message *m) {
  struct transaction t = {.c = c, .n = n, .o = smtp_client_options(n->transport), .chain = chain, .m = m};
  for (struct address *a = chain; a; a = a->next)
    a->smtp_in_transaction = false;
  t.all_or_none = main_options(c->config)->mua_wrapper;
  choose_limits(&t);
  t.pipelining = n->offers.pipelining && !t.all_or_none;
  t.chunking = n->offers.chunking && !t.o->lmtp;
  t.early = smtp_early_owed(&n->early) || (n->early.used && n->messages == 0);
  t.early_data = t.pipelining && t.chunking && !smtp_early_owed(&n->early) && smtp_fits_chunk(c, m);
  enum smtp_stage_result r = SMTP_OK;
  struct str why = STR_EMPTY;
  int rc = smtp_utf8_mode(c, n, chain->prop.utf8_msg, &t.utf8, &why);
  if (!rc && !smtp_utf8_address(c, t.utf8, m->return_path, &t.return_path, &why))
    rc = OUTCOME_FAIL;
  if (rc) {
    n->error = ERROR_UTF8;
    n->error_text = why;
    settle_all(&t, rc == OUTCOME_FAIL ? OUTCOME_FAIL : OUTCOME_DEFER, ERROR_UTF8);
    return SMTP_OK;
  }
  n->messages++;
  if (t.early_data) { /* the one chunk has to hold the signatures, too */
    if ((r = prepare_text(&t)))
      return r;
    t.early_data = t.text.added.len < SIGNATURES_IN_CHUNK;
  }
  bool continues = continues_transaction(&t), open = n->txn_open;
  n->txn_open = false;
  if (open && !continues && build.no_connection_pool) { /* as a callout's connection that nobody wants */
    n->stale = true;
    return SMTP_BROKEN;
  }
  if (continues) {
    n->needs_reset = false;
    return continue_transaction(&t);
  }
  if (n->needs_reset) {
    r = smtp_command(c, n, true, "RSET");
    if (r || smtp_expect(c, n, t.o->command_timeout, '2'))
      return SMTP_BROKEN;
    n->needs_reset = false;
  }
  r = send_mail(&t);
  if (!r && !t.pipelining)
    r = take_mail_reply(&t);
  if (!r)
    r = send_rcpts(&t);
  if (!r && t.early_data) {
    r = send_text(&t);
    return r ? r : take_early(&t);
  }
  if (!r && t.pipelining) {
    if (!t.chunking)
      r = smtp_command(c, n, true, "DATA");
    else if (stream_flush(n->stream))
      r = SMTP_BROKEN;
    if (!r && (r = smtp_early_settle(c, n)))
      return r;
    if (!r) {
      r = take_pipelined(&t);
      if (r != SMTP_BROKEN && !t.chunking) {
        enum smtp_stage_result d = take_data_reply(&t, r);
        if (r == SMTP_OK && d == SMTP_OK && t.accepted)
          return send_data(&t);
        r = d ? d : r;
        n->needs_reset = true;
        return r;
      }
    }
  }
  if (r == SMTP_BROKEN)
    return r;
  if (!r && t.all_or_none && t.accepted < t.sent)
    give_up(&t);
  if (r || !t.accepted) {
    n->needs_reset = true;
    return r;
  }
  if (!t.chunking) {
    r = smtp_command(c, n, true, "DATA");
    if (!r)
      r = smtp_expect(c, n, t.o->command_timeout, '3');
    if (r) {
      r = note_data_refusal(&t, r);
      n->needs_reset = true;
      return r;
    }
  }
  return send_data(&t);
}
