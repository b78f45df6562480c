/* The SMTP server (RFC 5321; Exim manual, chapter "SMTP processing"): one
session on a stream, one fiber. Serves connections of the daemon, -bs, -bS and
the host tests -bh and -bhc. */
#pragma once

#include <stdio.h>
#include "config/config.h"
#include "core/ctx.h"
#include "core/session.h"
#include "loop/stream.h"
#include "message/message.h"
#include "smtp/receive.h"

/* What the process around a session provides. All may be NULL. */
struct smtp_hooks {
  void *arg;
  /* smtp_accept_max and friends: false refuses the connection with `reply` ("421 …") and, if set, `log`. */
  bool (*admit)(void *arg, struct ctx *c, struct str *ret_reply, struct str *ret_log);
  /* Connections open now, for the log line of smtp_connection. */
  int (*connections)(void *arg);
  /* Must no delivery start at once (smtp_accept_queue, queue_only_load …)? *ret_why for the log. */
  bool (*must_queue)(void *arg, struct ctx *c, int messages_in_connection, struct str *ret_why);
  /* The message is committed, "250" is about to be sent. Takes the message over: it must be freed with message_free.
  `queue`: leave it for a queue runner; `frozen` is in the message. [suspends] */
  void (*accepted)(void *arg, struct ctx *c, struct message *m, bool queue);
  /* The process is to end soon: the session says goodbye after the command it is at. */
  bool (*stopping)(void *arg);
};

struct smtp_params {
  struct config *config;
  enum session_kind kind;
  struct stream *stream;
  struct ip_addr peer, local;      /* family 0: a local caller */
  int peer_port, local_port;
  struct str ident;                /* RFC 1413 answer, or -oMt; a local caller's login otherwise; unset: none */
  struct str host_name;            /* -oMs */
  struct str authenticated_id, authenticated_sender, host_authenticated; /* -oMai, -oMas, -oMaa */
  struct str protocol;             /* -oMr */
  struct str bounced_id;           /* -oMm, -E */
  const struct submitter *submitter; /* NULL: over TCP */
  bool tls_on_connect;
  const struct tls_info *tls;      /* the stream is in TLS already, by an earlier agreement; NULL: not so */
  bool reversed;                   /* the peer has been called by us and turned the connection round (ATRN): status 1 without QUIT */
  bool queue_only;                 /* -odq */
  bool no_qualify;                 /* -bnq */
  bool suppress_fixups;            /* -G */
  int64_t timeout;                 /* -os; -1: smtp_receive_timeout */
  struct str sender;               /* -f with -bs, -bS; unset: none */
  FILE *out, *err;                 /* where -bS tells its errors; NULL: stdout, stderr */
  const struct smtp_hooks *hooks;
  const struct acl_observer *observer; /* sees what the ACLs do; may be NULL */
};

/* Runs one session to its end. [suspends] The stream is not freed. Exit status for the command-line modes: 0, or for -bS
1: some messages were accepted before an error, 2: none. */
int smtp_server_run(const struct smtp_params *p);

/* This process is the customer's side of ATRN and looks for its provider: $atrn_mode is C until it says no. */
void smtp_atrn_customer(bool on);

/* Loads certificates and keys before the first client comes, where the options do not depend on the client. [suspends] Trouble is
for the sessions to tell. */
void smtp_server_preload(struct config *config);

/* --- tables: the verbs, and the parameters of MAIL and RCPT that modules add --- */

struct smtp_session;
/* What a verb leaves behind. */
enum smtp_next { SMTP_GO_ON, SMTP_CLOSE };

struct smtp_verb_def {
  const char *name;             /* "MAIL", "MAIL FROM:" is matched by the handler */
  unsigned flags;
  enum smtp_next (*run)(struct smtp_session *s, struct str args);
};
#define VERB_MAIL 1u            /* not counted against smtp_accept_max_nonmail */
#define VERB_SYNC 2u            /* must be the last of a pipelined group */
#define VERB_NO_SYNC_CHECK 4u   /* QUIT */

struct smtp_param_def {
  const char *name;             /* "SIZE" */
  /* OUTCOME_OK; OUTCOME_FAIL after setting c->user_message to the whole reply; OUTCOME_ERROR: bad value, the address is refused. */
  int (*take)(struct smtp_session *s, struct str value);
};

/* Main options of our own. */
struct smtp_server_options {
  bool xclient_without_port; /* the first XCLIENT needs no PORT: nginx's mail proxy does not tell it */
};

extern const struct module smtp_server_module;
const struct smtp_server_options *smtp_server_options(const struct config *c);
