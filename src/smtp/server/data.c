/* DATA and BDAT (RFC 5321 section 4.1.1.4, RFC 3030): bytes into the
reception, then the ACLs, the spool and the final reply. */
#include <errno.h>

#include "base/time.h"
#include "core/module.h"
#include "expand/expand.h"
#include "smtp/server/internal.h"

#define CHUNK_MAX INT32_MAX

void smtp_data_params(struct smtp_session *s, struct receive_params *p, bool chunking) {
  bool local = s->p->peer.family == 0;
  *p = (struct receive_params){
      .dot = chunking ? DOT_PLAIN : DOT_SMTP,
      .smtp = true,
      .refuse_loops = s->p->kind == SESSION_SMTP,
      .chunking = chunking,
      .local = local,
      .allow_from_line = local ? s->o->ignore_fromline_local : smtp_match_host(s, &s->o->ignore_fromline_hosts),
      .qualify_headers = !s->p->no_qualify,
      .submitter = s->p->submitter,
      .bounced_id = s->p->bounced_id,
      .used_pipelining = s->used_pipelining || s->was_early,
      .offered_pipelining = s->ad_pipelining,
      .early = s->ad_early || s->was_early ? s->was_early ? '*' : '.' : 0,
      .prdr = s->prdr_requested && s->message->recipients.n > 1,
      .body_8bit = s->body_8bit,
  };
  if (receive_size_limit(s->c, &p->size_limit) != 0)
    p->size_limit = 0;
}

/* ---- the end of a message ---- */

static struct str fake_text(const struct acl_message *am) {
  if (str_is_set(am->fake_response))
    return am->fake_response;
  return STR("Your message has been rejected but is being kept for evaluation.\n"
             "If it was a legitimate message, it may still be delivered to the target recipient(s).");
}

static enum smtp_next reply_accepted(struct smtp_session *s, const char *id, bool chunked) {
  struct ctx *c = s->c;
  const struct acl_message *am = acl_message(c);
  if (am->fakereject || am->fakedefer) {
    struct str code = am->fakedefer ? STR("450") : STR("550"), extended, text = fake_text(am);
    bool panicked;
    smtp_message_code(s, &code, &extended, &text, &panicked);
    smtp_respond(s, code, extended, text);
    return SMTP_GO_ON;
  }
  struct str user = c->user_message, code = STR("250"), extended;
  bool panicked;
  if (str_is_set(user) && user.len > 0) {
    smtp_message_code(s, &code, &extended, &user, &panicked);
    smtp_respond(s, code, extended, user);
  } else if (id[0]) {
    if (chunked)
      smtp_say(s, "250- %llu byte chunk, total %llu", (unsigned long long)s->chunk_size, (unsigned long long)s->chunk_total);
    smtp_say(s, "250 OK id=%s", id);
    if (s->p->kind == SESSION_TEST)
      stream_printf(s->stream, "\n**** SMTP testing: that is not a real message id!\n\n");
  } else {
    smtp_say(s, "250 OK");
  }
  return SMTP_GO_ON;
}

/* Everyone was discarded: the message is as good as delivered. */
static enum smtp_next discard(struct smtp_session *s, struct reception *r, const char *by) {
  struct ctx *c = s->c;
  char id[24];
  memcpy(id, s->message->id, sizeof id);
  receive_log_arrival(r);
  bool why = str_is_set(c->log_message) && c->log_message.len > 0;
  acl_log(c, LOG_MAIN, "=> blackhole (%s ACL discarded recipients)%s%.*s", by, why ? ": " : "",
      STRF(why ? log_printable(c->arena, c->log_message) : STR_EMPTY));
  acl_log(c, LOG_MAIN, "Completed");
  receive_abandon(r);
  return reply_accepted(s, id, r->p.chunking);
}

void smtp_hand_over(struct smtp_session *s) {
  struct message *m = s->message;
  const struct smtp_hooks *h = s->p->hooks;
  const struct acl_message *am = acl_message(s->c);
  struct str why = STR_EMPTY;
  bool queue = s->p->queue_only || am->queue_only || m->frozen;
  s->c->message = m;
  if (!queue && h && h->must_queue && h->must_queue(h->arg, s->c, s->messages, &why)) {
    queue = true;
    if (log_selected(LOGSEL_delay_delivery) && why.len > 0)
      acl_log(s->c, LOG_MAIN, "no immediate delivery: %.*s", STRF(why));
  }
  if (am->queue_only && !m->frozen && log_selected(LOGSEL_delay_delivery))
    acl_log(s->c, LOG_MAIN, "no immediate delivery: queued by ACL");
  s->message = s->c->message = NULL;
  if (h && h->accepted)
    h->accepted(h->arg, s->c, m, queue);
  else
    message_free(m);
}

void smtp_copy_client(struct smtp_session *s) {
  receive_keep_client(s->c, s->message, s->p->submitter);
}

/* A client that has gone away by now would send the message again: it is not taken. */
static bool peer_is_gone(struct smtp_session *s, const struct reception *r) {
  if (s->p->kind != SESSION_SMTP || r->p.chunking || stream_peek(s->stream).len > 0 || !stream_input_pending(s->stream))
    return false;
  int rc = stream_fill(s->stream, loop_now_fresh());
  if (rc > 0 || rc == -ETIMEDOUT)
    return false;
  const struct client *cl = s->c->client;
  acl_log(s->c, LOG_MAIN, "SMTP connection lost after final dot %.*s P=%.*s", STRF(smtp_who(s)), STRF(cl->protocol));
  return true;
}

enum smtp_next smtp_data_done(struct smtp_session *s, struct reception *r) {
  struct ctx *c = s->c;
  enum smtp_next next = SMTP_GO_ON;
  c->user_message = c->log_message = STR_UNSET;
  int rc = receive_end(r);
  s->chunk_total += (uint64_t)r->mended; /* as Exim counts */
  if (rc < 0) {
    smtp_say(s, "%.*s", STRF(r->reply));
    receive_abandon(r);
    smtp_reset(s);
    return SMTP_GO_ON;
  }
  acl_apply_headers(c, "MAIL or RCPT");
  enum acl_result result = ACL_OK;
  const char *what = "after DATA";
  int where = ACL_DATA;
  if (s->message->recipients.n > 0 || !s->discarded)
    result = receive_module_checks(c, &where, &what);
  char id[24];
  memcpy(id, s->message->id, sizeof id);
  enum prdr_result prdr = result == ACL_OK ? smtp_prdr(s) : PRDR_NONE;
  if (prdr == PRDR_LOST) {
    smtp_data_lost(s, r);
    receive_abandon(r);
    smtp_reset(s);
    return smtp_notquit(s, "connection-lost", NULL, " ");
  }
  if (prdr == PRDR_ALL_DEFERRED || prdr == PRDR_ALL_REFUSED) {
    /* The replies for each recipient are what counts; a last one that refuses says that nobody is to be tried again. */
    if (prdr == PRDR_ALL_REFUSED)
      smtp_say(s, "550 id=%s message rejected for all recipients", id);
    else
      smtp_say(s, "250 id=%s message accepted for some recipients", id);
    receive_abandon(r);
    smtp_reset(s);
    return SMTP_GO_ON;
  }
  const char *discarded_by = s->message->recipients.n == 0 && s->discarded ? s->discarded_by : NULL;
  if (!discarded_by && result == ACL_OK)
    result = smtp_acl(s, where = ACL_DATA, &s->o->acl_smtp_data, ACL_OK);
  acl_apply_headers(c, "DATA");
  if (!discarded_by && result == ACL_OK && where == ACL_DATA) {
    rc = receive_module_accepts(c);
    result = rc == OUTCOME_OK ? ACL_OK : rc == OUTCOME_FAIL ? ACL_FAIL : ACL_DEFER;
  }
  if (result == ACL_DISCARD)
    discarded_by = where == ACL_MIME ? "MIME" : "DATA";
  if (discarded_by) {
    next = discard(s, r, discarded_by);
  } else if (result != ACL_OK) {
    next = smtp_acl_refused(s, (enum acl_where)where, result, str_c(where == ACL_DATA ? "after DATA" : what));
    receive_abandon(r);
  } else {
    struct str user = c->user_message;
    receive_apply_controls(c, s->message);
    smtp_copy_client(s);
    if (peer_is_gone(s, r)) {
      receive_abandon(r);
      smtp_reset(s);
      return smtp_notquit(s, "connection-lost", NULL, " ");
    }
    if (acl_message(c)->fakereject || acl_message(c)->fakedefer)
      smtp_dsn_forget(s); /* its sender was told that it was not accepted */
    struct str refusal;
    enum smtp_cutthrough passed = smtp_cutthrough_data(s, r, &refusal);
    if (passed != CUTTHROUGH_NOT) {
      receive_abandon(r);
      c->user_message = user;
      if (passed == CUTTHROUGH_DONE)
        next = reply_accepted(s, id, false);
      else
        smtp_pass_reply(s, refusal);
    } else if (receive_commit(r) < 0) {
      smtp_say(s, "%.*s", STRF(r->reply));
    } else {
      c->user_message = user;
      if (prdr == PRDR_SOME && (!str_is_set(user) || user.len == 0))
        c->user_message = str_printf(c->arena, "id=%s message accepted for some recipients", id);
      next = reply_accepted(s, id, r->p.chunking);
      /* The peer must know before the delivery starts, and a peer that is gone by now would send it again. */
      if (str_find_byte(stream_peek(s->stream), '\n') < 0)
        smtp_flush(s);
      if (c->is_test) {
        message_free(s->message);
        s->message = c->message = NULL;
      } else {
        callout_release(&acl_session(c)->callout, id); /* the delivery may want the connection */
        smtp_hand_over(s);
      }
    }
  }
  smtp_reset(s);
  return next;
}

void smtp_data_lost(struct smtp_session *s, const struct reception *r) {
  if (!log_selected(LOGSEL_lost_incoming_connection) && !log_selected(LOGSEL_smtp_connection))
    return;
  acl_log(s->c, LOG_MAIN, "%.*s lost while reading message data%s", STRF(smtp_connection_text(s)), r->header_done ? "" : " (header)");
}

enum smtp_next smtp_data_aborted(struct smtp_session *s, struct reception *r, int error) {
  struct ctx *c = s->c;
  struct str duration = time_format_duration(c->arena, time_now_usec() - s->base.start, log_selected(LOGSEL_millisec));
  struct message *m = s->message;
  if (error == -ETIMEDOUT) {
    acl_log(c, LOG_MAIN, "SMTP data timeout (message abandoned) on connection from %.*s F=<%.*s> D=%.*s",
        STRF(str_is_set(c->client->fullhost) ? c->client->fullhost : c->client->ident), STRF(m->reverse_path), STRF(duration));
    receive_abandon(r);
    return smtp_notquit(s, "data-timeout", "421", "%.*s SMTP incoming data timeout - closing connection.", STRF(s->hostname));
  }
  smtp_data_lost(s, r);
  receive_abandon(r);
  return smtp_notquit(s, "connection-lost", "421", "Lost incoming connection");
}

/* ---- the sender of a local caller ---- */

void smtp_check_local_sender(struct smtp_session *s) {
  const struct submitter *sub = s->p->submitter;
  struct message *m = s->message;
  if (!sub || s->p->peer.family != 0)
    return;
  m->sender_local = !sub->trusted;
  if (sub->trusted)
    return;
  /* Unlike -f <>, MAIL FROM:<> is not for everybody. */
  if (m->reverse_path.len > 0 && receive_may_set_sender(s->c, m->reverse_path)) {
    m->reverse_path_set_untrusted = true;
    return;
  }
  m->reverse_path = receive_login_address(s->c, m->arena, sub->login);
  m->reverse_path_before = STR_UNSET; /* what was rewritten is not the sender any more */
  m->reverse_path_local = true;
}

/* ---- DATA ---- */

/* Nobody was accepted: when every RCPT failed alike the reply says why. */
static enum smtp_next no_recipients(struct smtp_session *s, const char *verb) {
  if (s->rcpt_failed + s->rcpt_deferred > 0 && s->rcpt_smtp_response_same && str_is_set(s->rcpt_smtp_response)) {
    struct str rest = s->rcpt_smtp_response;
    smtp_say(s, "503-All RCPT commands were rejected with this error:");
    while (str_is_set(rest)) {
      struct str line = str_cut(&rest, '\n');
      smtp_say(s, "503-%.*s", STRF(line));
    }
  }
  if (s->ad_pipelining && s->last_was_rcpt && (s->txn_state != TXN_NONE || s->rcpt_after_refused_mail)) {
    smtp_say(s, "503 Valid RCPT command must precede %s", verb);
    return SMTP_GO_ON;
  }
  return smtp_synprot(s, true, 503, STR_UNSET, "valid RCPT command must precede %s", verb);
}

static enum smtp_next read_data(struct smtp_session *s, struct reception *r) {
  int64_t timeout = smtp_timeout_of(s);
  while (!r->dot.ended) {
    struct str in = stream_peek(s->stream);
    if (in.len == 0) {
      int rc = smtp_flush(s) < 0 ? -EPIPE : stream_fill(s->stream, deadline_in(timeout));
      if (rc <= 0)
        return smtp_data_aborted(s, r, rc);
      in = stream_peek(s->stream);
    }
    stream_consume(s->stream, receive_push(r, in));
  }
  return smtp_data_done(s, r);
}

enum smtp_next smtp_verb_data(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  if (args.len > 0 && s->p->kind != SESSION_BATCH)
    return smtp_synprot(s, false, 501, STR_UNSET, "unexpected argument data");
  if (!s->discarded && (!s->message || s->message->recipients.n == 0))
    return no_recipients(s, "DATA");
  if (s->too_many_logged && s->o->recipients_max_reject) {
    smtp_say(s, "554 Too many recipients");
    smtp_reset(s);
    return SMTP_GO_ON;
  }
  enum acl_result r = smtp_acl(s, ACL_PREDATA, &s->o->acl_smtp_predata, ACL_OK);
  if (r != ACL_OK) {
    enum smtp_next next = smtp_acl_refused(s, ACL_PREDATA, r, STR("DATA"));
    smtp_reset(s);
    return next;
  }
  smtp_accept_reply(s, "354", "Enter message, ending with \".\" on a line by itself");
  struct receive_params p;
  struct reception *reception = arena_new_of(c->arena, struct reception);
  smtp_check_local_sender(s);
  smtp_data_params(s, &p, false);
  s->reception = reception;
  receive_begin(reception, c, s->message, &p);
  enum smtp_next next = read_data(s, reception);
  s->reception = NULL;
  return next;
}

/* ---- BDAT ---- */

/* Without a reception it is read and forgotten: a chunk that cannot be taken. */
static int read_chunk(struct smtp_session *s, struct reception *r, uint64_t n) {
  int64_t timeout = smtp_timeout_of(s);
  while (n > 0) {
    struct str in = stream_peek(s->stream);
    if (in.len == 0) {
      int rc = smtp_flush(s) < 0 ? -EPIPE : stream_fill(s->stream, deadline_in(timeout));
      if (rc <= 0)
        return rc < 0 ? rc : -EPIPE;
      in = stream_peek(s->stream);
    }
    in = str_slice(in, 0, n > UINT32_MAX ? UINT32_MAX : (size_t)n);
    size_t used = r ? receive_push(r, in) : in.len;
    stream_consume(s->stream, used);
    n -= used;
  }
  return 0;
}

static bool parse_bdat(struct str args, uint64_t *size, bool *last) {
  struct str rest = args, number = str_cut(&rest, ' ');
  *last = false;
  if (!str_to_u64(number, size) || *size > CHUNK_MAX)
    return false;
  if (str_is_set(rest)) {
    if (!str_ieq_c(str_trim(rest), "LAST"))
      return false;
    *last = true;
  }
  return true;
}

enum smtp_next smtp_verb_bdat(struct smtp_session *s, struct str args) {
  uint64_t size;
  bool last;
  if (!s->ad_chunking)
    return smtp_synprot(s, true, 503, STR_UNSET, "BDAT command used when CHUNKING not advertised");
  if (!parse_bdat(args, &size, &last))
    return smtp_synprot(s, true, 501, STR_UNSET, "missing size for BDAT command");
  if (size == 0 && !last) {
    if (s->chunk == CHUNK_ACTIVE)
      s->chunk = CHUNK_FAILED;
    return smtp_synprot(s, true, 504, STR_UNSET, "zero size for BDAT command");
  }
  if (s->chunk == CHUNK_FAILED || (!s->discarded && (!s->message || s->message->recipients.n == 0))) {
    if (read_chunk(s, NULL, size) < 0)
      return smtp_notquit(s, "connection-lost", "421", "Lost incoming connection");
    return s->chunk == CHUNK_FAILED ? smtp_synprot(s, true, 503, STR_UNSET, "only RSET accepted now") : no_recipients(s, "BDAT");
  }
  if (!s->reception) {
    struct receive_params p;
    s->reception = arena_new_of(s->c->arena, struct reception);
    smtp_check_local_sender(s);
    smtp_data_params(s, &p, true);
    receive_begin(s->reception, s->c, s->message, &p);
    s->chunk = CHUNK_ACTIVE;
    s->chunk_total = 0;
  }
  struct reception *r = s->reception;
  int rc = read_chunk(s, r, size);
  if (rc < 0) {
    s->reception = NULL;
    return smtp_data_aborted(s, r, rc);
  }
  s->chunk_total += size;
  s->chunk_size = size;
  if (last) {
    s->reception = NULL;
    s->chunk = CHUNK_NONE;
    return smtp_data_done(s, r);
  }
  if (r->error) {
    smtp_say(s, "%.*s", STRF(r->reply));
    s->chunk = CHUNK_FAILED;
    return SMTP_GO_ON;
  }
  smtp_say(s, "250 %llu byte chunk received", (unsigned long long)size);
  return SMTP_GO_ON;
}
