/* Reception of one message: bytes go in, a committed message comes out. Shared
by the SMTP server (DATA, BDAT, -bS) and local submission (Exim manual, chapter
"Message processing").

    receive_begin -> receive_push … -> receive_end -> (ACLs of the caller) -> receive_commit

While bytes come in nothing is refused towards the peer: the first error is
remembered, what follows is swallowed, and receive_end tells. Only the header
is in memory; the body goes to the spool as it comes. */
#pragma once

#include "acl/acl.h"
#include "base/buf.h"
#include "core/ctx.h"
#include "message/message.h"
#include "smtp/dot.h"

/* The caller of this program, or the peer of the submission socket. For SMTP over TCP: login unset. */
struct submitter {
  struct str login, name;    /* account and full name; tainted? no: the system's own data */
  uint32_t uid, gid;
  bool trusted, admin;       /* Exim manual: trusted users may set the sender */
  bool no_delivery;          /* -N: the message is only to be delivered in appearance */
};

struct receive_params {
  enum dot_kind dot;
  bool smtp;                 /* SMTP of any kind, batched included */
  bool refuse_loops;         /* a peer is told of too many Received: headers; others get a bounce */
  bool chunking;             /* BDAT: the header must have CRLF line ends */
  bool local;                /* local submission: headers are fixed up */
  bool allow_from_line;      /* "From user date" as the first line is recognised */
  bool sender_from_line;     /* … and believed */
  bool extract_recipients;   /* -t */
  bool qualify_headers;      /* not with -bnq */
  bool sender_forced;        /* -f was given: overrides the From line */
  struct str full_name;      /* -F, or unset */
  const struct submitter *submitter; /* NULL: none (TCP) */
  int64_t size_limit;        /* 0: none */
  struct str bounced_id;     /* -oMm / bounces: R= of the log */
  bool used_pipelining, offered_pipelining;
  char early;                /* '*': commands came before the greeting; '.': they might have; 0 */
  bool unspooled;            /* for tests: the body goes to a file in memory (data_fd); no hooks, and nobody takes the message */
  bool prdr;                 /* replies for each recipient were asked for */
  int body_8bit;             /* 7, 8: BODY= of MAIL; 0: not given */
  const struct str *argument_recipients; /* with -t: of the command line */
  size_t argument_recipients_n;
};

enum receive_error {
  RECEIVE_OK,
  RECEIVE_TOO_BIG,
  RECEIVE_HEADER_TOO_BIG,
  RECEIVE_HEADER_LINE_TOO_BIG,
  RECEIVE_NOT_CRLF,
  RECEIVE_LOOP,              /* too many Received: headers */
  RECEIVE_SPOOL,             /* the spool could not be written */
  RECEIVE_CONFIG,            /* an expansion of ours failed */
};

struct bad_recipient {
  struct str address, error;
};

struct reception {
  struct ctx *c;
  struct message *m;
  struct receive_params p;
  struct dot dot;
  enum receive_error error;
  struct str reply;          /* for the SMTP client: code and text */
  struct str log;            /* what was or is to be logged */
  struct buf physical, current; /* the line being read; the header line so far */
  struct str body_line;       /* the line that ended the header without an empty one, until more comes */
  bool first_line, header_done, spool_open, spooled, completed;
  int64_t header_bytes, header_lines, body_bytes, total;
  int mended;                /* bytes of line ends that had to be added: an empty line behind the header, the last one */
  bool resent, have_date, have_from, have_message_id, have_sender, have_resent_date;
  struct header *last_given;  /* the last line of the header as it came; what follows is ours */
  struct header *received;   /* ours, at the top */
  struct str sender_given;   /* before submission mode changed it; unset: it did not */
  struct str message_id_value; /* for the log: of the Message-ID: line, angle brackets removed */
  VEC(struct bad_recipient) bad; /* with -t */
  bool extracted;
};

void receive_begin(struct reception *r, struct ctx *c, struct message *m, const struct receive_params *p);
/* Takes input; returns how many bytes were taken (all, unless the data ended: r->dot.ended). [suspends] */
size_t receive_push(struct reception *r, struct str in);
/* The data is complete: 0, or -1 with r->error, r->reply and r->log. [suspends] */
int receive_end(struct reception *r);
/* After the ACLs: final headers, sizes and times. receive_commit() does it, if it was not done before. [suspends] */
void receive_complete(struct reception *r);
/* After the ACLs: final headers, spool_commit, the "<=" line. 0, or -1 (temporary failure, r->reply). [suspends] */
int receive_commit(struct reception *r);
/* Takes the message back (rejected, connection lost). */
void receive_abandon(struct reception *r);
/* Wrote to main and reject log: line, then envelope and headers for the reject log. */
void receive_log_rejection(struct ctx *c, unsigned logs, struct str line);

/* Is the text a local part of the form that needs a domain? Adds it: qualify_domain for senders, qualify_recipient for recipients. */
struct str receive_qualify(struct ctx *c, struct arena *a, struct str address, bool sender);
/* The address of an account of this machine: its login, quoted if it must be, at qualify_domain. */
struct str receive_login_address(struct ctx *c, struct arena *a, struct str login);
/* message_size_limit, expanded. 0 and *ret (0: no limit), or OUTCOME_* with c->error. */
int receive_size_limit(struct ctx *c, int64_t *ret);

/* May an untrusted caller set this envelope sender (untrusted_set_sender)? */
bool receive_may_set_sender(struct ctx *c, struct str address);
/* Takes what ACL controls asked for into the message. */
void receive_apply_controls(struct ctx *c, struct message *m);
/* acl_not_smtp_start, before the data. [suspends] */
void receive_not_smtp_start(struct ctx *c);
/* The modules' own ACLs; the first that does not accept decides. enum acl_result. [suspends] */
enum acl_result receive_module_checks(struct ctx *c, int *ret_where, const char **ret_what);
/* The modules' last word on a message that all ACLs have accepted: OUTCOME_OK, FAIL or DEFER. [suspends] */
int receive_module_accepts(struct ctx *c);
/* acl_not_smtp, after receive_end. false: rejected, logged, *ret_why for the submitter. [suspends] */
bool receive_not_smtp_acl(struct reception *r, struct str *ret_why, bool *ret_discarded);
/* Copies client, submitter and connection variables into the message. */
void receive_keep_client(struct ctx *c, struct message *m, const struct submitter *sub);

/* --- pieces in files of their own --- */

/* Looks at one complete header line, marks what is to be removed, collects -t recipients. */
void receive_classify(struct reception *r, struct header *h);
/* After the last header line: removals, additions, rewriting. */
int receive_fix_headers(struct reception *r);
/* Our Received: line, at the start of the header. 0 or OUTCOME_*. */
int receive_add_received(struct reception *r);
/* Renews its time stamp at the end of reception. */
void receive_update_received(struct reception *r);
/* Writes the "<=" line. */
void receive_log_arrival(struct reception *r);
/* Its items about the client's login and encryption, a blank before each: " A=plain:user X=… CV=… DN=… SNI=…". In the ctx's arena. */
struct str receive_log_client_items(struct ctx *c);
