/* Inside the SMTP server: the session and what its verbs share. */
#pragma once

#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "log/log.h"
#include "smtp/server/server.h"

#define SMTP_LINE_MAX 16384
#define SMTP_CODE_DEFAULT_DENY "550"

struct mail_address; /* message/address.h */

/* ATRN: what its ACL has found. */
struct smtp_atrn {
  bool running;                  /* the ACL is */
  struct str domains;            /* a domain list; unset: atrn_domains was not true */
  struct str queue_name, host;   /* host: $atrn_host */
};

enum smtp_transaction { TXN_NONE, TXN_MAIL, TXN_RCPT };
enum smtp_chunk { CHUNK_NONE, CHUNK_ACTIVE, CHUNK_FAILED };

struct smtp_session {
  struct session base;           /* must be first: core/session.h */
  const struct smtp_params *p;
  const struct main_options *o;
  struct ctx *c;
  struct arena *arena;           /* the connection's */
  struct arena *txn;             /* c->arena: emptied between messages */
  struct stream *stream;
  struct str hostname;           /* smtp_active_hostname */

  /* what was agreed */
  bool helo_seen, esmtp, helo_required;
  bool ad_pipelining, ad_chunking, ad_auth, ad_tls, ad_size, ad_8bitmime, ad_dsn, ad_prdr, ad_early, ad_xclient, ad_utf8, ad_requiretls;
  bool allow_unqualified_sender, allow_unqualified_recipient;
  bool helo_verify_must, helo_verify_try, helo_accept_junk;
  bool used_pipelining;          /* of the message that comes in */
  bool enforce_sync;
  bool may_be_early, was_early;  /* commands before the greeting: allowed to this client; seen */
  bool xclient_done;             /* an XCLIENT has been accepted */
  struct smtp_atrn atrn;
  struct str wellknown;          /* what control = wellknown has read */
  bool tls_broken;               /* STARTTLS was answered with 454 */
  bool proxy_failed;             /* who is one of hosts_proxy did not say for whom it speaks */
  struct str auth_advertised;    /* " PLAIN LOGIN": names offered */

  /* the transaction */
  enum smtp_transaction txn_state;
  struct message *message;
  struct str mail_data, rcpt_data; /* as typed, for logs */
  struct str discard_why;        /* log_message of a MAIL ACL that discards */
  struct str authenticated_sender; /* before any AUTH= of MAIL */
  int64_t size_given;
  bool prdr_requested;           /* PRDR of MAIL */
  bool utf8, requiretls;         /* SMTPUTF8, REQUIRETLS of MAIL */
  int dsn_ret;                   /* DSN parameters: of MAIL, of the RCPT at hand; 0, unset: not given */
  struct str dsn_envid, rcpt_orcpt;
  unsigned rcpt_dsn_flags;
  int body_8bit;
  bool discard_all, discarded;   /* "discard" from the MAIL ACL; any recipient was */
  bool too_many_logged;
  const char *discarded_by;
  int rcpt_count, rcpt_failed, rcpt_deferred;
  bool auth_failed;          /* the last AUTH */
  bool rcpt_in_progress;        /* its reply is still to come */
  bool last_was_mail, last_was_rcpt; /* the previous command */
  bool rcpt_after_refused_mail; /* RCPTs that may have been pipelined after a MAIL that was refused */
  bool rcpt_smtp_response_same;
  struct str rcpt_smtp_response; /* the last refusal of RCPT, when all were the same */
  int64_t recipients_max;
  struct reception *reception;   /* BDAT in progress */
  struct address *cutthrough;    /* recipients that the next host has accepted, the last one first */
  bool cutthrough_off;           /* it cannot be done for this message */
  struct str cutthrough_reply;
  enum smtp_chunk chunk;
  uint64_t chunk_size, chunk_total;

  /* the connection */
  int messages, nonmail, unknown, synprot;
  bool rset_free, helo_free, auth_free, starttls_free;
  int64_t max_nonmail;           /* -1: no limit for this host */
  int64_t max_messages;
  struct str command, arguments; /* the line as typed; its arguments */
  struct str name_trouble;         /* for smtp_name_trouble: of host_lookup */
  bool no_mail_logged, mail_seen, quit_seen, closed_logged;
  bool orderly_end; /* ended by us as Exim does it with exit status 0 */
  uint8_t history[20];           /* of verbs, for logs */
  unsigned history_n;
  bool mute;                     /* no text may be sent: the client expects TLS */
  const char *end_reason;        /* $smtp_notquit_reason; NULL: QUIT or dropped quietly */

  /* -bS */
  struct {
    long line, transaction_line;
    int accepted;
    bool failed;
  } batch;
};

/* --- replies (reply.c) --- */

void smtp_say(struct smtp_session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A reply with a text that may hold newlines: code (three digits), optional extended code ("" or "5.1.1 "). */
void smtp_respond(struct smtp_session *s, struct str code, struct str extended, struct str text);
/* "550 5.1.1 text" in a message modifier: takes the code off if its first digit is that of `code`; else logs and ignores it. */
void smtp_message_code(struct smtp_session *s, struct str *code, struct str *extended, struct str *text, bool *panicked);
int smtp_flush(struct smtp_session *s);
/* Syntax or protocol error: counts, logs, replies "code data: text". */
enum smtp_next smtp_synprot(struct smtp_session *s, bool protocol, int code, struct str data, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* An ACL refused: reply and log. SMTP_CLOSE for drop. `what` e.g. "RCPT <a@b>"; code for a refusal, e.g. "550". */
enum smtp_next smtp_acl_refused(struct smtp_session *s, enum acl_where where, enum acl_result r, struct str what);
/* The accepted command's reply: the message modifier's text or the default. */
void smtp_accept_reply(struct smtp_session *s, const char *code, const char *text);

/* Runs an ACL option; unset gives ACL_OK or ACL_FAIL as `unset` says. */
enum acl_result smtp_acl(struct smtp_session *s, enum acl_where where, const struct option_expr *option, enum acl_result unset);

/* Nothing of an earlier EHLO is offered any longer. */
void smtp_clear_offers(struct smtp_session *s);

/* Remembers a refusal of RCPT, for the reply to DATA when all were refused alike. */
void smtp_note_rcpt(struct smtp_session *s, struct str text);

/* --- the session (session.c) --- */

/* Ends the transaction: frees the message, empties c->arena. */
void smtp_reset(struct smtp_session *s);
/* The message of the transaction that MAIL starts. */
struct message *smtp_begin_message(struct smtp_session *s);
/* The client's name or address, "H=…" or "U=…" form, for log lines. */
struct str smtp_who(struct smtp_session *s);          /* with tags */
struct str smtp_sender_who(struct smtp_session *s);   /* "host" or login, without tags: "SMTP call from X" */
struct str smtp_name_trouble(const struct smtp_session *s); /* why the name of the client is not known: " (…)", or "" */
struct str smtp_connection_text(struct smtp_session *s);     /* "SMTP connection from X I=…" */
int64_t smtp_timeout_of(struct smtp_session *s);
void smtp_log_closed(struct smtp_session *s, const char *how);
/* A transaction ends before its message was there: log selector smtp_incomplete_transaction. */
void smtp_log_incomplete(struct smtp_session *s, const char *what);
/* Log selectors smtp_syntax_error, smtp_protocol_error. */
void smtp_log_error(struct smtp_session *s, bool protocol, struct str text);
/* The session's end without QUIT: not-QUIT ACL, then the reply (NULL: none). */
enum smtp_next smtp_notquit(struct smtp_session *s, const char *reason, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Is the client in the list? enum outcome: DEFER when it cannot be told. Most options are off then. */
int smtp_host_in(struct smtp_session *s, const struct option_expr *list, const char *name);
bool smtp_match_host_option(struct smtp_session *s, const struct option_expr *list, const char *option);
#define smtp_match_host(s, list) smtp_match_host_option((s), (list), #list) /* the option's name is for the trace */
/* A list or an ACL may look up the client's name: then logs call it by that from there on; not so when only the HELO
name was verified by it, as in Exim. */
struct smtp_names {
  const char *host_name;
  bool helo_checked;
};
struct smtp_names smtp_names_now(const struct smtp_session *s);
void smtp_names_renew(struct smtp_session *s, const struct smtp_names *before);
/* The client is another than it seemed: all that was found out of the former is forgotten. */
void smtp_set_client_address(struct smtp_session *s, const struct ip_addr *ip, int port);
/* The session begins again with its greeting: EHLO is required. */
void smtp_restart(struct smtp_session *s);
bool smtp_is_tcp(const struct smtp_session *s);
void smtp_set_protocol(struct smtp_session *s);
struct str smtp_history(struct smtp_session *s);
/* Reads one line. 1, 0 at end of input, -errno. */
int smtp_read_line(struct smtp_session *s, struct str *ret);

/* What smtp_read_line gave was no line: it is logged, the session ends. */
void smtp_input_ended(struct smtp_session *s, int rc);

/* Logs for what a selector can take out of the main log. */
unsigned smtp_reject_logs(enum log_selector selector);
/* RFC 1413 query for clients in rfc1413_hosts; sets the client's ident. [suspends] */
void smtp_ident(struct smtp_session *s);

/* --- data (data.c) --- */
void smtp_data_params(struct smtp_session *s, struct receive_params *p, bool chunking);
/* After all data: ACLs, commit, reply. */
enum smtp_next smtp_data_done(struct smtp_session *s, struct reception *r);
/* "SMTP connection from … lost while reading message data" */
void smtp_data_lost(struct smtp_session *s, const struct reception *r);
enum smtp_next smtp_data_aborted(struct smtp_session *s, struct reception *r, int error);

/* Passes the committed message on. */
void smtp_hand_over(struct smtp_session *s);
/* The client of the session as it is stored with the message. */
void smtp_copy_client(struct smtp_session *s);

/* --- rcpt.c --- */
/* What the conditions of the RCPT and VRFY ACLs and $local_part, $domain see; and no more. */
void smtp_set_recipient(struct smtp_session *s, struct acl_recipient *r, const struct mail_address *a);
void smtp_clear_recipient(struct smtp_session *s);

/* --- dsn.c: parameters (RFC 3461 section 4); what was given goes to the message and its recipient --- */
int smtp_param_ret(struct smtp_session *s, struct str value);
int smtp_param_envid(struct smtp_session *s, struct str value);
int smtp_param_notify(struct smtp_session *s, struct str value);
int smtp_param_orcpt(struct smtp_session *s, struct str value);
void smtp_dsn_message(struct smtp_session *s);
void smtp_dsn_recipient(struct smtp_session *s, struct recipient *r);
/* No notices about this message: what its sender asked for is forgotten. */
void smtp_dsn_forget(struct smtp_session *s);

/* --- international.c: SMTPUTF8 (RFC 6531) --- */
int smtp_param_utf8(struct smtp_session *s, struct str value);
/* "utf8" in front of the protocol's name, and the S of esmtps as a capital: what the message's parameters make of it. */
struct str smtp_protocol_of_message(struct smtp_session *s, struct str protocol);
/* REQUIRETLS (RFC 8689). */
int smtp_param_requiretls(struct smtp_session *s, struct str value);
/* SMTPUTF8 at the end of VRFY's or EXPN's operand, when it was offered: cut off. */
bool smtp_cut_utf8(struct smtp_session *s, struct str *text);
int smtp_parse_query(struct smtp_session *s, struct str text, struct mail_address *ret, struct str *ret_error);
/* What address_parse is to allow of MAIL's and RCPT's operand, and what it cannot know: 0, or OUTCOME_FAIL with *ret_error. */
int smtp_parse_path(struct smtp_session *s, struct str text, unsigned flags, struct mail_address *ret, struct str *ret_error);

/* --- prdr.c --- */
int smtp_param_prdr(struct smtp_session *s, struct str value);
/* NONE: no replies were given, since none were asked for; SOME: to go on with the recipients that are left (or discarded). */
enum prdr_result { PRDR_NONE, PRDR_SOME, PRDR_ALL_DEFERRED, PRDR_ALL_REFUSED, PRDR_LOST };
/* After the data, before the DATA ACL: 353 and a reply for each recipient; takes out who is refused. [suspends] */
enum prdr_result smtp_prdr(struct smtp_session *s);

/* --- proxy.c: clients of hosts_proxy --- */
/* Reads what the proxy says of its client. false: the session cannot go on. [suspends] */
bool smtp_proxy_negotiate(struct smtp_session *s);
struct variable_def;
enum { PROXY_SESSION, PROXY_LOCAL_ADDRESS, PROXY_LOCAL_PORT, PROXY_EXTERNAL_ADDRESS, PROXY_EXTERNAL_PORT, PROXY_UNIQUE_ID };
int smtp_proxy_variable(struct ctx *c, const struct variable_def *def, struct str *ret);

/* --- verbs --- */
enum smtp_next smtp_verb_helo(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_ehlo(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_mail(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_rcpt(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_data(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_bdat(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_rset(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_noop(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_quit(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_help(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_vrfy(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_expn(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_etrn(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_auth(struct smtp_session *s, struct str args);
/* The authenticator of the driver "tls", after TLS has started. [suspends] */
void smtp_tls_authenticate(struct smtp_session *s);
/* The command for logs: what follows the mechanism of AUTH may be a password. */
struct str smtp_command_shown(struct smtp_session *s);
enum smtp_next smtp_verb_starttls(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_wellknown(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_xclient(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_refused(struct smtp_session *s, struct str args);
enum smtp_next smtp_verb_atrn(struct smtp_session *s, struct str args);
/* Counts; says that there is no such command. */
enum smtp_next smtp_unknown_command(struct smtp_session *s);
/* Is there an ACL for a verb, so that it is worth offering? */
bool smtp_acl_offered(struct smtp_session *s, const struct option_expr *o);

/* May STARTTLS be offered to this client now? */
bool smtp_tls_offered(struct smtp_session *s);
/* The handshake as server: 0 or -errno, logged. [suspends] */
int smtp_tls_start(struct smtp_session *s);
/* Batched SMTP (-bS). Exit status. */
int smtp_batch_run(struct smtp_session *s);
/* DELAY of smtp_ratelimit_mail / _rcpt. [suspends] */
void smtp_ratelimit(struct smtp_session *s, struct str setting, int count, const char *what);
int smtp_take_rcpt_parameters(struct smtp_session *s, struct str *text);
/* The envelope sender as a local, untrusted caller may have it. */
void smtp_check_local_sender(struct smtp_session *s);

/* A reply of another server, code and all, its lines as it gave them. */
void smtp_pass_reply(struct smtp_session *s, struct str reply);

/* --- cut-through delivery (cutthrough.c) --- */

/* A recipient that the RCPT ACL has accepted: ACL_OK, or how it is refused, with the messages in the context. [suspends] */
enum acl_result smtp_cutthrough_rcpt(struct smtp_session *s, struct str address);
enum smtp_cutthrough {
  CUTTHROUGH_NOT,     /* the message goes the usual way */
  CUTTHROUGH_DONE,    /* delivered and logged: nothing is kept */
  CUTTHROUGH_REFUSED, /* *ret_reply is what the client hears */
};
/* The message is complete and the ACLs agree. [suspends] */
enum smtp_cutthrough smtp_cutthrough_data(struct smtp_session *s, struct reception *r, struct str *ret_reply);
/* The next host gets no data. */
void smtp_cutthrough_cancel(struct smtp_session *s);
