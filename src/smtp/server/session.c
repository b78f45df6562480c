/* The session: its start, its loop over commands, its end. */
#include "smtp/server/internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/time.h"
#include "core/module.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "lookup/memo.h"
#include "match/match.h"
#include "smtp/helo.h"
#include "tls/tls.h"

static const struct smtp_verb_def verbs[] = {
    {"HELO", VERB_SYNC, smtp_verb_helo},
    {"EHLO", VERB_SYNC, smtp_verb_ehlo},
    {"MAIL FROM:", VERB_MAIL, smtp_verb_mail},
    {"RCPT TO:", VERB_MAIL, smtp_verb_rcpt},
    {"DATA", VERB_MAIL | VERB_SYNC, smtp_verb_data},
    {"BDAT", VERB_MAIL, smtp_verb_bdat},
    {"RSET", 0, smtp_verb_rset},
    {"NOOP", VERB_SYNC, smtp_verb_noop},
    {"QUIT", VERB_MAIL | VERB_NO_SYNC_CHECK, smtp_verb_quit},
    {"HELP", 0, smtp_verb_help},
    {"VRFY", VERB_SYNC, smtp_verb_vrfy},
    {"EXPN", VERB_SYNC, smtp_verb_expn},
    {"ETRN", VERB_SYNC, smtp_verb_etrn},
    {"AUTH", VERB_SYNC, smtp_verb_auth},
    {"STARTTLS", VERB_SYNC, smtp_verb_starttls},
    {"WELLKNOWN", VERB_SYNC, smtp_verb_wellknown},
    {"XCLIENT", VERB_SYNC, smtp_verb_xclient},
    {"ATRN", VERB_SYNC, smtp_verb_atrn},
    {0},
};

bool smtp_is_tcp(const struct smtp_session *s) { return s->p->kind == SESSION_SMTP || s->p->kind == SESSION_TEST; }

struct str smtp_who(struct smtp_session *s) { return client_log_text(s->c->arena, s->c->client, true); }
struct str smtp_sender_who(struct smtp_session *s) { return client_log_text(s->c->arena, s->c->client, false); }

struct str smtp_name_trouble(const struct smtp_session *s) {
  const struct client *cl = s->c->client;
  if (!cl->host_lookup_failed)
    return STR_EMPTY;
  return str_is_set(s->name_trouble) ? s->name_trouble : STR(" (failed to find host name from IP address)");
}

bool smtp_match_host_option(struct smtp_session *s, const struct option_expr *list, const char *option) {
  const char *name = strrchr(option, '>');
  return smtp_host_in(s, list, name ? name + 1 : option) == OUTCOME_OK;
}

int smtp_host_in(struct smtp_session *s, const struct option_expr *list, const char *name) {
  if (!str_is_set(list->text) || list->text.len == 0) {
    DEBUG(lists, "host in %s? no (option unset)\n", name);
    return OUTCOME_FAIL;
  }
  DEBUG(lists, "host in %s?\n", name);
  struct smtp_names before = smtp_names_now(s);
  int rc = match_client_host(s->c, list, NULL);
  smtp_names_renew(s, &before);
  return rc;
}

struct smtp_names smtp_names_now(const struct smtp_session *s) {
  const struct client *cl = s->c->client;
  return (struct smtp_names){cl->host_name.p, cl->helo_verified || cl->helo_verify_failed};
}

void smtp_names_renew(struct smtp_session *s, const struct smtp_names *before) {
  struct client *cl = s->c->client;
  bool helo = cl->helo_verified || cl->helo_verify_failed;
  if (cl->host_name.p != before->host_name && helo == before->helo_checked)
    client_set_fullhost(s->arena, cl);
}

static struct str duration(struct smtp_session *s) {
  return time_format_duration(s->c->arena, time_now_usec() - s->base.start, log_selected(LOGSEL_millisec));
}

struct str smtp_history(struct smtp_session *s) {
  struct buf b;
  buf_init(&b, s->c->arena, 1024);
  unsigned size = sizeof s->history, n = s->history_n < size ? s->history_n : size;
  buf_add_c(&b, s->history_n ? " C=" : "");
  if (s->history_n > size)
    buf_add_c(&b, "...");
  for (unsigned i = 0; i < n; i++) {
    const char *name = verbs[s->history[(s->history_n - n + i) % size]].name;
    size_t len = strcspn(name, " ");
    buf_printf(&b, "%s%.*s", i ? "," : "", (int)len, name);
  }
  return buf_str(&b);
}

/* "SMTP connection from X", "SMTP connection Ci=… from X" */
struct str smtp_connection_text(struct smtp_session *s) {
  const struct client *cl = s->c->client;
  struct arena *a = s->c->arena;
  struct str ci = STR_EMPTY, host, interface = STR_EMPTY;
  if (log_selected(LOGSEL_connection_id) && str_is_set(cl->connection_id))
    ci = str_printf(a, "Ci=%.*s ", STRF(cl->connection_id));
  if (!smtp_is_tcp(s))
    return str_printf(a, "SMTP connection %.*sfrom %.*s", STRF(ci), STRF(cl->ident));
  host = cl->fullhost;
  if (log_selected(LOGSEL_incoming_interface) && str_is_set(cl->interface_address))
    interface = str_printf(a, " I=[%.*s]:%d", STRF(cl->interface_address), cl->interface_port);
  return str_printf(a, "SMTP connection %.*sfrom %.*s%.*s", STRF(ci), STRF(host), STRF(interface));
}

void smtp_log_closed(struct smtp_session *s, const char *how) {
  s->closed_logged = true;
  if (log_selected(LOGSEL_smtp_connection) && !smtp_match_host(s, &s->o->hosts_connection_nolog))
    acl_log(s->c, LOG_MAIN, "%.*s D=%.*s closed by %s", STRF(smtp_connection_text(s)), STRF(duration(s)), how);
}

static void log_no_mail(struct smtp_session *s) {
  if (s->mail_seen || s->no_mail_logged || s->p->kind == SESSION_BATCH || !log_selected(LOGSEL_smtp_no_mail) ||
      smtp_match_host(s, &s->o->hosts_connection_nolog))
    return;
  s->no_mail_logged = true;
  acl_log(s->c, LOG_MAIN, "no MAIL in SMTP connection from %.*s D=%.*s%.*s%.*s", STRF(smtp_sender_who(s)), STRF(duration(s)),
      STRF(receive_log_client_items(s->c)), STRF(smtp_history(s)));
}

void smtp_log_incomplete(struct smtp_session *s, const char *what) {
  if (!s->message || !log_selected(LOGSEL_smtp_incomplete_transaction))
    return;
  if (s->txn_state == TXN_NONE && s->message->recipients.n == 0)
    return;
  struct buf b;
  buf_init(&b, s->c->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < s->message->recipients.n; i++)
    buf_printf(&b, "%s %.*s", i ? "" : " for", STRF(s->message->recipients.v[i].address));
  acl_log(s->c, LOG_MAIN, "%.*s incomplete transaction (%s) from <%.*s>%.*s", STRF(smtp_who(s)), what,
      STRF(str_is_set(s->message->reverse_path_before) ? s->message->reverse_path_before : s->message->reverse_path), STRF(buf_str(&b)));
}

/* ---- transactions ---- */

void smtp_reset(struct smtp_session *s) {
  struct acl_session *as = acl_session(s->c);
  if (s->reception) {
    receive_abandon(s->reception);
    s->reception = NULL;
  }
  s->chunk = CHUNK_NONE;
  message_free(s->message);
  s->message = s->c->message = NULL;
  s->txn_state = TXN_NONE;
  s->size_given = -1;
  s->prdr_requested = false;
  if (s->utf8 || s->requiretls) {
    s->utf8 = s->requiretls = false;
    smtp_set_protocol(s);
  }
  s->dsn_ret = 0;
  s->dsn_envid = s->rcpt_orcpt = STR_UNSET;
  s->rcpt_dsn_flags = 0;
  s->body_8bit = 0;
  s->discard_all = s->discarded = s->too_many_logged = false;
  s->discarded_by = NULL;
  s->rcpt_count = s->rcpt_failed = s->rcpt_deferred = 0;
  s->rcpt_smtp_response = s->mail_data = s->rcpt_data = STR_UNSET;
  s->used_pipelining = false;
  s->c->client->authenticated_sender = s->authenticated_sender;
  if (s->cutthrough)
    callout_drop(&as->callout);
  callout_release(&as->callout, "");
  s->cutthrough = NULL;
  s->cutthrough_off = false;
  /* What refers to the transaction's arena goes with it. */
  as->sender_verify = (struct acl_sender_verify){0};
  as->recipient = NULL;
  memo_forget(s->c);
  memset(s->c->auth, 0, sizeof s->c->auth);
  memset(&s->c->vars, 0, sizeof s->c->vars);
  memset(&s->c->expand, 0, sizeof s->c->expand);
  s->c->acl_m = NULL;
  s->c->user_message = s->c->log_message = s->c->error = STR_UNSET;
  s->command = s->arguments = STR_UNSET;
  arena_reset(s->txn);
  s->rset_free = s->helo_free = s->starttls_free = true;
}

struct message *smtp_begin_message(struct smtp_session *s) {
  s->message = s->c->message = message_new("message");
  s->message->allow_unqualified_sender = s->allow_unqualified_sender;
  s->message->allow_unqualified_recipient = s->allow_unqualified_recipient;
  s->message->size = 0;
  if (s->p->suppress_fixups)
    acl_message(s->c)->suppress_local_fixups = true;
  return s->message;
}

void smtp_set_protocol(struct smtp_session *s) {
  struct client *cl = s->c->client;
  if (str_is_set(s->p->protocol) && s->p->kind == SESSION_BATCH) {
    cl->protocol = s->p->protocol;
    return;
  }
  static const char *const names[2][2][4] = {
      {{"smtp", "esmtp", "smtps", "esmtps"}, {"smtpa", "esmtpa", "smtpsa", "esmtpsa"}},
      {{"local-smtp", "local-esmtp", "local-smtps", "local-esmtps"},
          {"local-smtpa", "local-esmtpa", "local-smtpsa", "local-esmtpsa"}}};
  bool local = !str_is_set(cl->host_address);
  bool auth = str_is_set(cl->host_authenticated) && cl->host_authenticated.len > 0;
  if (s->p->kind == SESSION_BATCH)
    cl->protocol = STR("local-bsmtp");
  else
    cl->protocol = str_c(names[local][auth][(s->esmtp ? 1 : 0) + (cl->tls ? 2 : 0)]);
  if (s->utf8 || s->requiretls)
    cl->protocol = smtp_protocol_of_message(s, cl->protocol);
}

/* ---- ends ---- */

enum smtp_next smtp_notquit(struct smtp_session *s, const char *reason, const char *code, const char *fmt, ...) {
  struct ctx *c = s->c;
  bool ran = false;
  if (s->end_reason)
    return SMTP_CLOSE;
  s->end_reason = reason;
  struct str text = STR_EMPTY;
  va_list ap;
  va_start(ap, fmt);
  text = str_vprintf(c->arena, fmt, ap);
  va_end(ap);
  if (str_is_set(s->o->acl_smtp_notquit.text)) {
    c->vars.smtp_notquit_reason = str_c(reason);
    enum acl_result r = acl_check(c, ACL_NOTQUIT, &s->o->acl_smtp_notquit);
    if (r == ACL_ERROR)
      acl_log(c, LOG_MAIN | LOG_PANIC, "ACL for not-QUIT returned ERROR: %.*s", STRF(c->log_message));
    ran = true;
  }
  if (!code)
    return SMTP_CLOSE;
  if (ran && str_is_set(c->user_message) && c->user_message.len > 0) {
    struct str with = str_c(code), extended, user = c->user_message;
    bool panicked;
    smtp_message_code(s, &with, &extended, &user, &panicked);
    smtp_respond(s, with, extended, user);
  } else {
    smtp_say(s, "%s %.*s", code, STRF(text));
  }
  smtp_flush(s);
  return SMTP_CLOSE;
}

static void end_of_input(struct smtp_session *s) {
  if (s->tls_broken) {
    smtp_notquit(s, "tls-failed", NULL, " ");
    smtp_log_closed(s, "EOF");
    return;
  }
  smtp_log_incomplete(s, "connection lost");
  smtp_notquit(s, "connection-lost", "421", "%.*s lost input connection", STRF(s->hostname));
  struct ctx *c = s->c;
  if (s->txn_state != TXN_NONE) {
    if (log_selected(LOGSEL_lost_incoming_connection))
      acl_log(c, LOG_MAIN, "unexpected %s while reading SMTP command from %.*s D=%.*s", "disconnection",
          STRF(smtp_sender_who(s)), STRF(duration(s)));
  } else if (log_selected(LOGSEL_smtp_connection)) {
    acl_log(c, LOG_MAIN, "%.*s lost D=%.*s", STRF(smtp_connection_text(s)), STRF(duration(s)));
    s->closed_logged = true;
  }
}

static void command_timeout(struct smtp_session *s) {
  acl_log(s->c, LOG_MAIN, "SMTP command timeout on%s connection from %.*s D=%.*s", s->c->client->tls ? " TLS" : "",
      STRF(smtp_sender_who(s)), STRF(duration(s)));
  smtp_log_incomplete(s, "command timeout");
  smtp_notquit(s, "command-timeout", "421", "%.*s: SMTP command timeout - closing connection", STRF(s->hostname));
}

void smtp_input_ended(struct smtp_session *s, int rc) {
  if (rc == -ETIMEDOUT)
    command_timeout(s);
  else
    end_of_input(s);
}

/* ---- commands ---- */

int64_t smtp_timeout_of(struct smtp_session *s) {
  struct str text;
  if (s->p->timeout >= 0)
    return s->p->timeout;
  if (expand_option(s->c, &s->o->smtp_receive_timeout, &text) != 0)
    return 300;
  int64_t t = str_is_set(text) ? time_parse_interval(str_trim(text)) : 300;
  if (t < 0) {
    acl_log(s->c, LOG_MAIN | LOG_PANIC, "bad value for smtp_receive_timeout: '%.*s'", STRF(text));
    return 300;
  }
  return t;
}

int smtp_read_line(struct smtp_session *s, struct str *ret) {
  /* Replies go out when the client has sent nothing more: one write for a pipelined group. */
  if (str_find_byte(stream_peek(s->stream), '\n') < 0 && smtp_flush(s) < 0)
    return -EPIPE;
  int eol;
  return stream_read_line(s->stream, SMTP_LINE_MAX, deadline_in(smtp_timeout_of(s)), ret, &eol);
}

static const struct smtp_verb_def *match_verb(const struct smtp_verb_def *v, struct str line, struct str *ret_args, size_t *ret_i) {
  for (size_t i = 0; v && v[i].name; i++) {
    struct str name = str_c(v[i].name);
    if (!str_istarts(line, name))
      continue;
    if (name.p[name.len - 1] != ':' && line.len > name.len && line.p[name.len] != ' ' && line.p[name.len] != '\t')
      continue;
    *ret_args = str_trim(str_from(line, name.len));
    *ret_i = i;
    return &v[i];
  }
  return NULL;
}

static const struct smtp_verb_def *find_verb(struct smtp_session *s, struct str line, struct str *ret_args) {
  size_t i;
  const struct smtp_verb_def *v = match_verb(verbs, line, ret_args, &i);
  if (v) {
    const struct smtp_verb_def *before = s->history_n > 0 ? &verbs[s->history[(s->history_n - 1) % sizeof s->history]] : NULL;
    s->last_was_rcpt = before && before->run == smtp_verb_rcpt;
    s->last_was_mail = before && before->run == smtp_verb_mail;
    return v;
  }
  for (size_t m = 0; modules[m] && !v; m++)
    v = match_verb(modules[m]->smtp_verbs, line, ret_args, &i);
  return v;
}

static struct str first_word(struct str line) {
  size_t n = 0;
  while (n < line.len && line.p[n] != ' ' && line.p[n] != '\t')
    n++;
  return str_slice(line, 0, n);
}

/* More input than the protocol allows at this point means that the client does not wait for replies. */
static bool out_of_sync(struct smtp_session *s, const struct smtp_verb_def *v) {
  const struct acl_session *as = acl_session(s->c);
  bool enforce = as->enforce_sync_set ? as->enforce_sync : s->o->smtp_enforce_sync;
  if (!enforce || s->p->kind != SESSION_SMTP || !str_is_set(s->c->client->host_address))
    return false;
  if (v && (v->flags & VERB_NO_SYNC_CHECK))
    return false;
  if (s->ad_pipelining && v && !(v->flags & VERB_SYNC))
    return false;
  /* Who knows our answer need not wait for it. */
  if (s->may_be_early && v && v->run == smtp_verb_ehlo)
    return false;
  if (!stream_input_pending(s->stream))
    return false;
  return stream_peek(s->stream).len > 0 || (stream_fill(s->stream, loop_now_fresh()) > 0);
}

static enum smtp_next sync_failure(struct smtp_session *s) {
  struct str next = log_printable(s->c->arena, str_slice(stream_peek(s->stream), 0, 150));
  if (str_istarts(str_ltrim(s->command), STR("AUTH"))) /* the answer that is not asked for yet may be a password */
    next = STR("****");
  acl_log(s->c, LOG_MAIN | LOG_REJECT,
      "SMTP protocol synchronization error (next input sent too soon: pipelining was%s advertised): rejected \"%.*s\" %.*s next"
      " input=\"%.*s\"%s", s->ad_pipelining ? "" : " not", STRF(log_printable(s->c->arena, smtp_command_shown(s))), STRF(smtp_who(s)),
      STRF(next), stream_peek(s->stream).len > 150 ? "..." : "");
  return smtp_notquit(s, "synchronization-error", "554", "SMTP synchronization error");
}

static bool nonmail_exceeded(struct smtp_session *s, const struct smtp_verb_def *v) {
  if (v && (v->flags & VERB_MAIL))
    return false;
  bool *free_one = v && v->run == smtp_verb_rset                                       ? &s->rset_free
                   : v && (v->run == smtp_verb_helo || v->run == smtp_verb_ehlo)       ? &s->helo_free
                   : v && v->run == smtp_verb_auth                                     ? &s->auth_free
                   : v && v->run == smtp_verb_starttls                                 ? &s->starttls_free
                                                                                       : NULL;
  if (free_one && *free_one) {
    *free_one = false;
    return false;
  }
  if (++s->nonmail <= s->o->smtp_accept_max_nonmail)
    return false;
  if (s->max_nonmail == 0) /* not yet asked */
    s->max_nonmail = smtp_match_host(s, &s->o->smtp_accept_max_nonmail_hosts) ? 1 : -1;
  return s->max_nonmail > 0;
}

enum smtp_next smtp_unknown_command(struct smtp_session *s) {
  if (s->unknown++ >= s->o->smtp_max_unknown_commands) {
    s->orderly_end = true;
    smtp_log_error(s, false, STR("unrecognized command"));
    smtp_log_incomplete(s, "unrecognized command");
    smtp_notquit(s, "bad-commands", "500", "Too many unrecognized commands");
    acl_log(s->c, LOG_MAIN | LOG_REJECT, "SMTP call from %.*s dropped: too many unrecognized commands (last was \"%.*s\")",
        STRF(smtp_sender_who(s)), STRF(log_printable(s->c->arena, smtp_command_shown(s))));
    return SMTP_CLOSE;
  }
  return smtp_synprot(s, false, 500, STR_UNSET, "unrecognized command");
}

static enum smtp_next run_command(struct smtp_session *s, struct str line) {
  struct str args = STR_EMPTY;
  line = str_rtrim(line);
  line.taint = STR_TAINTED;
  /* The line must outlive further reads (BDAT, AUTH). In the transaction's arena it stays until the next reset. */
  s->command = str_dup(s->c->arena, line);
  bool nul = memchr(s->command.p, 0, s->command.len) != NULL;
  const struct smtp_verb_def *v = nul ? NULL : find_verb(s, s->command, &args);
  s->arguments = args;
  s->rcpt_in_progress = false;
  s->c->vars.smtp_command = s->command;
  s->c->vars.smtp_command_argument = args;
  if (s->p->kind == SESSION_SMTP && out_of_sync(s, v))
    return sync_failure(s);
  if (nonmail_exceeded(s, v)) {
    smtp_log_incomplete(s, "too many non-mail commands");
    struct str word = first_word(s->command);
    acl_log(s->c, LOG_MAIN | LOG_REJECT, "SMTP call from %.*s dropped: too many nonmail commands (last was \"%.*s\")",
        STRF(smtp_sender_who(s)), STRF(log_printable(s->c->arena, word)));
    return smtp_notquit(s, "bad-commands", "554", "Too many nonmail commands");
  }
  /* Who wanted TLS shall not go on in clear because it could not be had. */
  if (s->tls_broken && (!v || v->run != smtp_verb_quit)) {
    smtp_say(s, "554 Security failure");
    return SMTP_GO_ON;
  }
  if (s->proxy_failed && (!v || v->run != smtp_verb_quit)) {
    smtp_say(s, "503 Command refused, required Proxy negotiation failed");
    return SMTP_GO_ON;
  }
  if (nul)
    return smtp_synprot(s, false, 501, STR_UNSET, "NUL characters are not allowed in SMTP commands");
  if (!v)
    return smtp_unknown_command(s);
  if (s->chunk != CHUNK_NONE && v->run != smtp_verb_bdat && v->run != smtp_verb_rset && v->run != smtp_verb_quit &&
      v->run != smtp_verb_noop) {
    bool failed = s->chunk == CHUNK_FAILED;
    s->chunk = CHUNK_FAILED;
    return smtp_synprot(s, true, 503, STR_UNSET, failed ? "only RSET accepted now" : "only BDAT permissible after non-LAST BDAT");
  }
  if (v >= verbs && v < verbs + sizeof verbs / sizeof *verbs)
    s->history[s->history_n++ % sizeof s->history] = (uint8_t)(v - verbs);
  return v->run(s, args);
}

static void command_loop(struct smtp_session *s) {
  for (;;) {
    struct str line;
    if (s->p->hooks && s->p->hooks->stopping && s->p->hooks->stopping(s->p->hooks->arg) && s->txn_state == TXN_NONE) {
      smtp_notquit(s, "signal-exit", "421", "%.*s: Service not available - closing connection", STRF(s->hostname));
      return;
    }
    /* Between transactions nothing that a command left in the arena is needed. */
    if (s->txn_state == TXN_NONE && !s->message && arena_used(s->txn) > 4096) {
      bool rset = s->rset_free, helo = s->helo_free, tls = s->starttls_free;
      smtp_reset(s);
      s->rset_free = rset;
      s->helo_free = helo;
      s->starttls_free = tls;
    }
    int rc = smtp_read_line(s, &line);
    if (rc == -EMSGSIZE) {
      s->command = STR("(overlong line)");
      if (smtp_synprot(s, false, 500, STR_UNSET, "unrecognized command") == SMTP_CLOSE)
        return;
      continue;
    }
    if (rc <= 0) {
      smtp_input_ended(s, rc);
      return;
    }
    if (run_command(s, line) == SMTP_CLOSE || s->end_reason)
      return;
  }
}

/* ---- the start ---- */

void smtp_set_client_address(struct smtp_session *s, const struct ip_addr *ip, int port) {
  struct client *cl = s->c->client;
  cl->ip = *ip;
  cl->host_address = ip_text(s->arena, ip);
  cl->host_port = port;
  cl->host_name = cl->host_aliases = STR_UNSET;
  cl->host_name_looked_up = cl->host_lookup_failed = cl->host_lookup_deferred = cl->host_dnssec = false;
  client_set_fullhost(s->arena, cl);
}

static void set_client(struct smtp_session *s) {
  const struct smtp_params *p = s->p;
  struct client *cl = s->c->client;
  if (p->submitter) {
    s->base.caller_known = true;
    s->base.caller_uid = p->submitter->uid;
    s->base.caller_gid = p->submitter->gid;
  }
  cl->local = p->peer.family == 0;
  /* A local caller is named also when -oMa makes a host of it; a host test has nobody behind it. */
  cl->ident = str_is_set(p->ident) || !p->submitter || p->kind == SESSION_TEST ? p->ident : p->submitter->login;
  cl->connection_id = s->base.connection_id;
  if (p->peer.family) /* -oMaa says it of the host */
    cl->host_authenticated = p->host_authenticated;
  cl->authenticated_id = p->authenticated_id;
  cl->authenticated_sender = p->authenticated_sender;
  /* A local caller is as good as authenticated by the system; who is trusted speaks for others. */
  if (cl->local && p->submitter && !p->submitter->trusted && !str_is_set(cl->authenticated_id))
    cl->authenticated_id = p->submitter->login;
  if (p->local.family) {
    cl->interface_address = ip_text(s->arena, &p->local);
    cl->interface_port = p->local_port;
  }
  if (p->peer.family) {
    smtp_set_client_address(s, &p->peer, p->peer_port);
    if (str_is_set(p->host_name)) {
      cl->host_name = p->host_name;
      cl->host_name_looked_up = true;
    }
  }
  if (p->tls) {
    cl->tls = tls_info_copy(s->arena, p->tls);
    cl->tls->server = true;
  }
  client_set_fullhost(s->arena, cl);
  smtp_set_protocol(s);
}

static void set_options(struct smtp_session *s) {
  const struct main_options *o = s->o;
  bool tcp = str_is_set(s->c->client->host_address);
  s->allow_unqualified_sender = (!tcp && !s->p->no_qualify) || smtp_match_host(s, &o->sender_unqualified_hosts);
  s->allow_unqualified_recipient = (!tcp && !s->p->no_qualify) || smtp_match_host(s, &o->recipient_unqualified_hosts);
  s->helo_verify_must = tcp && smtp_match_host(s, &o->helo_verify_hosts);
  s->helo_verify_try = tcp && !s->helo_verify_must && smtp_match_host(s, &o->helo_try_verify_hosts);
  s->helo_accept_junk = smtp_match_host(s, &o->helo_accept_junk_hosts);
  s->helo_required = s->helo_verify_must || smtp_match_host(s, &o->hosts_require_helo);
  if (expand_option_int(s->c, &o->recipients_max, "recipients_max", &s->recipients_max) != 0)
    s->recipients_max = 0;
  if (expand_option_int(s->c, &o->smtp_accept_max_per_connection, "smtp_accept_max_per_connection", &s->max_messages) != 0)
    s->max_messages = 0;
  struct str name;
  if (expand_option(s->c, &o->smtp_active_hostname, &name) == 0 && str_is_set(name) && name.len > 0)
    s->hostname = str_dup(s->arena, name);
  else
    s->hostname = o->primary_hostname;
  s->c->smtp_active_hostname = s->hostname;
}

/* Selectors choose for the main log only. */
unsigned smtp_reject_logs(enum log_selector selector) { return LOG_REJECT | (log_selected(selector) ? LOG_MAIN : 0); }

static bool refused_by_host(struct smtp_session *s) {
  if (!str_is_set(s->c->client->host_address) || !smtp_match_host(s, &s->o->host_reject_connection))
    return false;
  acl_log(s->c, smtp_reject_logs(LOGSEL_connection_reject), "refused connection from %.*s (host_reject_connection)",
      STRF(smtp_sender_who(s)));
  if (!s->p->tls_on_connect)
    smtp_say(s, "554 SMTP service not available");
  return true;
}

static bool refused_by_limits(struct smtp_session *s) {
  struct str reply = STR_UNSET, log = STR_UNSET;
  const struct smtp_hooks *h = s->p->hooks;
  if (!h || !h->admit || h->admit(h->arg, s->c, &reply, &log))
    return false;
  if (str_is_set(log))
    acl_log(s->c, LOG_MAIN | LOG_REJECT, "%.*s", STRF(log));
  if (str_is_set(reply) && !s->p->tls_on_connect)
    smtp_say(s, "%.*s", STRF(reply));
  return true;
}

static void log_connection(struct smtp_session *s) {
  if (!log_selected(LOGSEL_smtp_connection) || smtp_match_host(s, &s->o->hosts_connection_nolog))
    return;
  const struct smtp_hooks *h = s->p->hooks;
  const struct client *cl = s->c->client;
  if (s->p->kind != SESSION_SMTP || !h || !h->connections) {
    acl_log(s->c, LOG_MAIN, "%.*s", STRF(smtp_connection_text(s)));
    return;
  }
  struct str text = client_log_text(s->c->arena, cl, false);
  acl_log(s->c, LOG_MAIN, "SMTP connection from %.*s (TCP/IP connection count = %d)", STRF(text), h->connections(h->arg));
}

/* How long the first words of a client that does not wait may take behind its connection: without it our greeting is often faster. */
#define GREETING_GRACE 2000 /* usec */

/* Input before our greeting: a client that does not wait. [suspends] */
static bool greeting_out_of_sync(struct smtp_session *s) {
  const struct acl_session *as = acl_session(s->c);
  bool enforce = as->enforce_sync_set ? as->enforce_sync : s->o->smtp_enforce_sync;
  s->may_be_early = (s->p->kind == SESSION_SMTP || s->p->kind == SESSION_TEST) &&
      smtp_match_host(s, &s->o->pipelining_connect_advertise_hosts);
  if (s->p->kind != SESSION_SMTP || s->p->tls_on_connect)
    return false;
  s->was_early = s->may_be_early && stream_input_pending(s->stream);
  if (!enforce || s->may_be_early || stream_fill(s->stream, loop_now_fresh() + GREETING_GRACE) <= 0)
    return false;
  struct str input = log_printable(s->c->arena, str_slice(stream_peek(s->stream), 0, 150));
  acl_log(s->c, LOG_MAIN | LOG_REJECT, "SMTP protocol synchronization error (input sent without waiting for greeting): rejected"
                                       " connection from %.*s input=\"%.*s\"", STRF(smtp_who(s)), STRF(input));
  smtp_notquit(s, "synchronization-error", "554", "SMTP synchronization error");
  return true;
}

static bool send_banner(struct smtp_session *s, struct str user) {
  struct str text = user, code = STR("220"), extended = STR_EMPTY;
  bool panicked;
  if (str_is_set(text) && text.len > 0) {
    smtp_message_code(s, &code, &extended, &text, &panicked);
  } else {
    int rc = expand_option(s->c, &s->o->smtp_banner, &text);
    if (rc == OUTCOME_FORCED)
      return false;
    if (rc) {
      acl_log(s->c, LOG_MAIN | LOG_PANIC, "Expansion of \"%.*s\" (smtp_banner) failed: %.*s", STRF(s->o->smtp_banner.text),
          STRF(s->c->error));
      return false;
    }
  }
  struct str rest = str_rtrim(text);
  do {
    struct str line = str_cut(&rest, '\n');
    smtp_say(s, "%.*s%c%.*s%.*s", STRF(code), str_is_set(rest) ? '-' : ' ', STRF(extended), STRF(line));
  } while (str_is_set(rest));
  return true;
}

/* Nothing can be done for this client just now: so it is told, whatever it says, until it leaves. */
static void close_down(struct smtp_session *s, const char *text) {
  struct str line;
  for (;;) {
    smtp_say(s, "421 %s", text);
    if (smtp_read_line(s, &line) <= 0)
      return;
    if (str_ieq_c(str_trim(line), "QUIT")) {
      smtp_verb_quit(s, STR_EMPTY);
      return;
    }
  }
}

/* A limit that cannot be told must not become none. */
static bool size_limit_known(struct smtp_session *s) {
  int64_t limit;
  if (receive_size_limit(s->c, &limit) == 0)
    return true;
  acl_log(s->c, LOG_MAIN | LOG_PANIC, "invalid message_size_limit: %.*s", STRF(s->c->error));
  if (!s->p->tls_on_connect)
    close_down(s, "Temporary local problem - please try later");
  return false;
}

static bool start_session(struct smtp_session *s) {
  struct ctx *c = s->c;
  /* The proxy itself is what is counted, before it may speak for others. */
  if (s->p->kind == SESSION_TEST) {
    stream_printf(s->stream, "\n**** SMTP testing session as if from host %.*s\n", STRF(c->client->host_address));
    stream_printf(s->stream, "**** but without any ident (RFC 1413) callback.\n**** This is not for real!\n\n");
  }
  bool proxied = smtp_is_tcp(s) && smtp_match_host(s, &s->o->hosts_proxy);
  log_connection(s); /* before anything is known but the address */
  if (proxied && (refused_by_limits(s) || !smtp_proxy_negotiate(s)))
    return false;
  if (!str_is_set(c->client->ident))
    smtp_ident(s);
  if (str_is_set(c->client->host_address) && !str_is_set(c->client->host_name) && smtp_match_host(s, &s->o->host_lookup)) {
    if (host_name_lookup(c) == OUTCOME_FAIL && str_find(c->error, STR(" does not match ")) >= 0)
      s->name_trouble = str_printf(s->arena, " (%.*s)", STRF(c->error));
    client_set_fullhost(s->arena, c->client);
  }
  if (refused_by_host(s) || (!proxied && refused_by_limits(s)) || !size_limit_known(s))
    return false;
  set_options(s);
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.session_start && modules[i]->hooks.session_start(c) != OUTCOME_OK)
      return false;
  enum acl_result r = smtp_acl(s, ACL_CONNECT, &s->o->acl_smtp_connect, ACL_OK);
  if (r != ACL_OK) {
    s->mute = s->p->tls_on_connect;
    smtp_acl_refused(s, ACL_CONNECT, r, STR("connection in \"connect\" ACL"));
    return false;
  }
  struct str user = c->user_message;
  c->user_message = STR_UNSET;
  if (greeting_out_of_sync(s))
    return false;
  if (s->p->tls_on_connect && smtp_tls_start(s) < 0) {
    smtp_notquit(s, "tls-failed", NULL, " ");
    return false;
  }
  smtp_tls_authenticate(s);
  return send_banner(s, user);
}

void smtp_restart(struct smtp_session *s) {
  smtp_reset(s);
  smtp_clear_offers(s);
  s->esmtp = s->helo_seen = false;
  s->helo_free = true;
  set_options(s);
  s->helo_required = true;
  smtp_set_protocol(s);
  send_banner(s, STR_UNSET);
}

static void flush_for_acl(struct ctx *c) {
  struct smtp_session *s = (struct smtp_session *)c->session;
  smtp_flush(s);
}

static struct smtp_session *session_new(const struct smtp_params *p) {
  struct arena *a = arena_new("smtp session");
  struct smtp_session *s = arena_new_of(a, struct smtp_session);
  s->arena = a;
  s->txn = arena_new("smtp transaction");
  s->p = p;
  s->o = main_options(p->config);
  s->stream = p->stream;
  s->base.arena = a;
  s->base.kind = p->kind;
  s->base.stream = p->stream;
  s->base.start = time_now_usec();
  static uint32_t connections;
  s->base.connection_id = p->kind == SESSION_SMTP ? str_printf(a, "%d%04u", (int)getpid(), connections++ % 10000)
                                                  : str_printf(a, "%d", (int)getpid());
  s->c = ctx_new(a, p->config);
  s->c->client = &s->base.client;
  s->c->session = &s->base;
  s->c->arena = s->txn;
  s->c->is_test = p->kind == SESSION_TEST;
  s->hostname = s->o->primary_hostname;
  s->size_given = -1;
  s->auth_free = s->rset_free = s->helo_free = s->starttls_free = true;
  acl_session(s->c)->flush = flush_for_acl;
  acl_session(s->c)->observer = p->observer;
  return s;
}

static void session_free(struct smtp_session *s) {
  smtp_reset(s);
  for (size_t i = 0; s->base.module_state && modules[i]; i++)
    if (s->base.module_state[i] && modules[i]->session_state.release)
      modules[i]->session_state.release(&s->base, s->base.module_state[i]);
  arena_free(s->txn);
  arena_free(s->arena);
}

int smtp_server_run(const struct smtp_params *p) {
  struct smtp_session *s = session_new(p);
  int status = 0;
  fiber_set_local(s->c);
  if (s->c->is_test)
    log_set_echo(LOG_ECHO_HOST_CHECK);
  stream_set_write_timeout(p->stream, 300);
  set_client(s);
  if (p->kind == SESSION_BATCH) {
    log_connection(s);
    status = smtp_batch_run(s);
  } else {
    bool started = start_session(s);
    if (started)
      command_loop(s);
    smtp_flush(s);
    if (started)
      log_no_mail(s);
    if (started && !s->quit_seen && (p->reversed || (p->kind == SESSION_LOCAL_SMTP && !s->orderly_end)))
      status = 1;
  }
  fiber_set_local(NULL);
  session_free(s);
  return status;
}
