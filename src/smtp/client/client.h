/* The client's side of SMTP and LMTP (RFC 5321, 2033, 3030, 2920, 3207):
a connection that is made once and may carry several messages. */
#pragma once

#include "base/vec.h"
#include "core/ctx.h"
#include "deliver/address.h"
#include "loop/stream.h"
#include "smtp/client/dane.h"
#include "smtp/client/early.h"
#include "smtp/client/options.h"
#include "smtp/client/requiretls.h"
#include "smtp/client/sts.h"
#include "tls/tls.h"
#include "transport/header.h"

#define SMTP_REPLY_MAX 4096       /* bytes of one reply that are kept */
#define SMTP_REPLY_LINES_MAX 128

/* What the server offered in its EHLO answer. */
struct smtp_offers {
  bool pipelining, size, starttls, chunking, eightbit, auth, dsn, prdr, utf8, requiretls, early /* PIPECONNECT and its older names */;
  int64_t size_limit;
  int64_t limit_mails, limit_rcpts, limit_domains; /* LIMITS (RFC 9422): MAILMAX, RCPTMAX, RCPTDOMAINMAX; 0: none */
  struct str auth_mechanisms; /* blank-separated */
};

struct smtp_reply {
  int code;         /* 0: none */
  struct str text;  /* all lines, code included, joined by "\n"; tainted */
};

enum smtp_stage_result {
  SMTP_OK = 0,
  SMTP_REFUSED,     /* 5xx */
  SMTP_TEMPORARY,   /* 4xx */
  SMTP_BROKEN,      /* the connection is of no more use: closed, timed out, malformed reply */
};

struct smtp_connection {
  struct arena *arena;         /* its own: it may outlive a message */
  struct ctx *user;            /* whose message it carries; NULL while it is kept */
  struct stream *stream;
  const struct instance *transport;
  struct str host_name, host_address, key; /* key: address, port, interface, transport, TLS and AUTH needs: for reuse */
  struct ip_addr ip;
  int port;
  struct smtp_offers offers;
  struct str greeting, ehlo_reply, helo_name;
  char steps[16];              /* log selector protocol_detail: s STARTTLS, e EHLO, h HELO, l LHLO, a AUTH, as they were sent */
  bool esmtp, tls, authenticated, used_auth_needed;
  struct tls_info *tls_info;
  int ocsp_status;             /* enum tls_ocsp_status: of the present handshake */
  struct str session_key;      /* of its TLS session in the hints; unset: it is not kept */
  struct client_proxy *proxy;  /* SOCKS; NULL: none */
  struct str auth_name, auth_id, auth_sender;
  enum smtp_requiretls requiretls; /* what was asked of it */
  bool host_secure;            /* the DNS vouches for the host's name and address */
  struct smtp_dane dane;
  struct smtp_sts sts;
  struct tls_fault tls_fault;  /* what was wrong with the peer's certificate */
  int messages;                /* sent over it */
  struct smtp_early early;
  bool stale;                  /* after a failure: what was remembered of the server does not hold, another connection may do */
  bool unusable;               /* it is not kept for another message */
  bool gone;                   /* the other side has hung up when nothing was left to be said */
  /* A transaction that a callout has left open (MAIL and RCPT are done), for the message itself. */
  bool txn_open;
  struct str txn_sender;
  char txn_id[24];             /* the message; "": not known */
  VEC(struct str) txn_rcpts;
  bool needs_reset;            /* the last transaction ended without data: RSET comes before the next, if there is one */
  /* what to say when it goes wrong: the command that the reply is for */
  struct str command;
  bool command_pipelined;
  struct smtp_reply reply;
  int error;                   /* errno or enum delivery_error of a failure */
  struct str list_fault;       /* an option that asks for protection and cannot be told; unset: none */
  struct str error_text;       /* in the arena of the context that ran it */
  bool address_error;          /* SMTP_BROKEN was about a recipient: the host has done nothing wrong */
  bool mail_answered;          /* by the other side, in the present transaction */
  bool passed_on;              /* another message than the one that made it has it now */
  /* The other side has made it, and turned it round (ATRN). Whoever delivers over it leaves it to its owner, who frees it; it is
  never replaced by another one. */
  bool reversed;
  bool greeted;                /* reversed: the other side's greeting and its answer to EHLO are here */
  bool ended;                  /* reversed: it is of no more use */
  struct smtp_waiting {        /* the message that is to be sent next over it */
    char id[24];
    struct str queue_name;
  } waiting;
  struct smtp_connection *next;
  usec_t idle_since;
};

/* --- TLS sessions that may be resumed (resume.c) --- */
/* Whether, and what the hints have of it, into `p`, whose other options are set. [suspends] */
void smtp_resume_prepare(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o, struct tls_params *p);

/* --- replies --- */
/* Reads one reply. [suspends] SMTP_OK with conn->reply, or SMTP_BROKEN with error and error_text. */
enum smtp_stage_result smtp_read_reply(struct ctx *c, struct smtp_connection *n, int64_t timeout);
/* Reads a reply and compares its first digit: SMTP_OK, REFUSED, TEMPORARY or BROKEN. */
enum smtp_stage_result smtp_expect(struct ctx *c, struct smtp_connection *n, int64_t timeout, char digit);
/* The same for a reply that was read before. */
enum smtp_stage_result smtp_judge_reply(struct ctx *c, struct smtp_connection *n, char digit);
void smtp_note_step(struct smtp_connection *n, char step);
/* Notes and sends a command (CRLF is added). 0 or SMTP_BROKEN. `flush` false: it is gathered for pipelining. */
enum smtp_stage_result smtp_command(struct ctx *c, struct smtp_connection *n, bool flush, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "SMTP error from remote mail server after MAIL FROM:<x>: 550 no" into error_text; the errno for the stage. */
void smtp_note_refusal(struct ctx *c, struct smtp_connection *n, int error);
void smtp_note_broken(struct ctx *c, struct smtp_connection *n, int error);

/* --- connections --- */
/* Raises smtp:connect about conn->greeting. SMTP_BROKEN: its result refuses the host. [suspends] */
enum smtp_stage_result smtp_greeted(struct ctx *c, struct smtp_connection *n);
/* Reads the keywords of an EHLO answer into conn->offers, as far as the options let them be used. [suspends] */
void smtp_note_offers(struct ctx *c, struct smtp_connection *n, struct str reply);
/* Connects to c->host, greets, starts TLS and authenticates as the options ask. [suspends] NULL on failure, with *ret_why
(SMTP_BROKEN: host error; SMTP_REFUSED; SMTP_TEMPORARY) and error, text in *ret_errno, *ret_text; after SMTP_REFUSED and
SMTP_TEMPORARY *ret_command and *ret_reply are what was said. */
struct smtp_connection *smtp_connect(struct ctx *c, const struct instance *t, int port, enum smtp_stage_result *ret_why,
    int *ret_errno, struct str *ret_text, struct str *ret_command, struct str *ret_reply);
/* A connection that the client at `ip` and `port` has turned round, over its stream, which stays the caller's; `tls` NULL: in clear.
smtp_reversed_free() when no delivery uses it any more. */
struct smtp_connection *smtp_reversed_new(struct stream *s, const struct ip_addr *ip, int port, const struct tls_info *tls);
/* Before a delivery by transport `t` over one that has not ended: reads the greeting and says EHLO, the first time. Not SMTP_OK:
error_text says why, and it has ended. [suspends] */
enum smtp_stage_result smtp_reversed_ready(struct ctx *c, struct smtp_connection *n, const struct instance *t);
/* Says QUIT, if anybody listens, and frees it. [suspends] */
void smtp_reversed_free(struct ctx *c, struct smtp_connection *n);
/* $sending_ip_address, $sending_port and $tls_out_… are this connection's from now on; NULL: none's. */
void smtp_use(struct ctx *c, const struct smtp_connection *n);
/* The transport's option dscp on a socket. What it cannot mean is logged. */
void smtp_set_dscp(struct ctx *c, const struct smtp_connection *n, int fd);
/* QUIT (without waiting for the answer) and free. */
void smtp_disconnect(struct smtp_connection *n, bool quit);
/* The process's pool: a kept connection for the key, or NULL; and back into it. */
struct smtp_connection *smtp_pool_take(struct str key);
void smtp_pool_keep(struct smtp_connection *n);
void smtp_pool_close_all(void);
struct str smtp_pool_key(struct ctx *c, const struct instance *t, int port, struct str interface);

/* --- messages that wait for a host (hints) --- */
/* c->message waits for these hosts; or no more. `port` is of those that name none. */
void smtp_wait_note(struct ctx *c, const struct instance *t, const struct host *hosts, int port);
void smtp_wait_forget(struct ctx *c, const struct instance *t, const struct host *hosts, int port);
/* The oldest of those that wait for the connection's host and port and may be sent over it: its record is taken out. *ret is in the
context's arena. [suspends] */
bool smtp_wait_next(struct ctx *c, const struct smtp_connection *n, struct smtp_waiting *ret);
/* Called for each host that a message is noted to wait for; NULL: nobody wants to know. */
extern void (*smtp_wait_noted)(const struct message *m, struct str host);
/* In a worker: is a message one of those that it delivers? NULL: all are. */
extern bool (*smtp_wait_is_ours)(const char *id);
/* May the address be delivered over the connection: same transport, and its host is one of the address's? [suspends] */
bool smtp_goes_over(struct ctx *c, const struct smtp_connection *n, struct address *a);

/* Runs the client authenticators that fit what the server offers. [suspends] NONE: none applied. */
enum smtp_auth_result {
  SMTP_AUTH_OK, SMTP_AUTH_NONE, SMTP_AUTH_FAILED,
  SMTP_AUTH_TEMPORARY, /* a 4xx reply or one that is out of place, which n->reply holds */
  SMTP_AUTH_ERROR,     /* an expansion failed: n->error_text */
  SMTP_AUTH_BROKEN
};
enum smtp_auth_result smtp_authenticate(struct ctx *c, struct smtp_connection *n);

/* --- a message over a connection --- */
/* What MAIL and RCPT say of the sender's wishes about notices, when the server knows DSN: with a blank before, or empty
(RFC 3461 4, 5.2). RCPT's also note in the address that it is the server's business now. */
struct str smtp_dsn_mail(struct ctx *c, const struct smtp_connection *n);
struct str smtp_dsn_rcpt(struct ctx *c, const struct smtp_connection *n, struct address *a);
/* Sends the message to the chain's addresses that are still pending (result OUTCOME_DEFER with basic_errno SMTP_PENDING).
Each gets its outcome. SMTP_OK: the connection can be used again; others: host errors as error, error_text. [suspends] */
enum smtp_stage_result smtp_send_message(struct ctx *c, struct smtp_connection *n, struct address *chain,
    const struct transport_message *m);
#define SMTP_PENDING 999999 /* basic_errno of an address that no host has answered for yet */

/* " AUTH=…" for MAIL, or empty. [suspends] */
struct str smtp_auth_parameter(struct ctx *c, const struct smtp_connection *n);
/* The address as RCPT has it: with or without the router's affixes. */
struct str smtp_rcpt_address(struct ctx *c, const struct instance *t, const struct address *a);

/* --- internationalised addresses (international.c) --- */
enum smtp_utf8 {
  SMTP_UTF8_NONE,    /* an ordinary message: addresses go as they are */
  SMTP_UTF8_SEND,    /* with SMTPUTF8 */
  SMTP_UTF8_CONVERT, /* in ASCII */
};
/* How the addresses of c->message go to this server; `international`: it needs SMTPUTF8 by itself. OUTCOME_OK; with *ret_error:
OUTCOME_FAIL, the server does not know SMTPUTF8 and nothing may be converted; OUTCOME_DEFER, the option is wrong. [suspends] */
int smtp_utf8_mode(struct ctx *c, const struct smtp_connection *n, bool international, enum smtp_utf8 *ret, struct str *ret_error);
/* The address as it is sent. False: it cannot be converted; *ret is as it was. */
bool smtp_utf8_address(struct ctx *c, enum smtp_utf8 mode, struct str address, struct str *ret, struct str *ret_error);

/* --- hosts --- */
/* The hosts for an address, the router's or the transport's own, and the transport's port. False: *ret_error. [suspends] */
bool smtp_choose_hosts(struct ctx *c, const struct instance *t, const struct address *a, struct host **ret, int *ret_port,
    struct str *ret_error);
/* Gives a host that is only a name its addresses; more than one make more hosts behind it. False: it has none, or it is
ourselves and may not be connected to at `port`; *ret_error says what. [suspends] */
bool smtp_find_address(struct ctx *c, const struct instance *t, struct host *h, int port, struct str *ret_error);

/* Is the message so small that BDAT LAST may be sent along with MAIL and RCPT? */
bool smtp_fits_chunk(struct ctx *c, const struct transport_message *m);
/* What is sent as a message's text. */
struct smtp_text {
  const struct transport_message *m;
  int body_fd;        /* the spool file, or -1: the body is in memory */
  struct str added;   /* fields above the header: signatures */
  struct str log;     /* about them, for the log line */
  int staged;         /* what the transport filter made of it, in a file, or -1: `head`, and the body from `body_at` */
  struct str head;
  off_t body_at;
};
/* Lets modules sign it, into added and log. [suspends] 0; -EACCES: it must not go without, with c->error; or another error of
smtp_send_body. */
int smtp_sign_text(struct ctx *c, const struct instance *transport, struct address *chain, struct smtp_text *t);
/* 0 or -errno; smtp_text_done() when done. */
int smtp_text_open(struct ctx *c, const struct transport_message *m, struct smtp_text *ret);
void smtp_text_done(struct ctx *c, struct smtp_text *t);
/* Streams the text with CRLF line ends: dot-stuffed and ended by "." for DATA (dots), else in BDAT chunks, the last of
them LAST. [suspends] 0; -EPROTO: a chunk was refused (the reply is noted); or another -errno. *ret_unanswered: replies to
chunks before the last that are still to come. */
int smtp_send_body(struct ctx *c, struct smtp_connection *n, const struct smtp_text *t, bool dots, int64_t *ret_sent,
    int *ret_unanswered);
