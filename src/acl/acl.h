/* Access control lists (Exim manual, chapter "Access control lists"): parsed
once into verbs with conditions and modifiers in order. */
#pragma once

#include "base/vec.h"
#include "config/config.h"
#include "core/ctx.h"
#include "message/message.h"
#include "smtp/client/callout.h"

enum acl_where {
  ACL_RCPT, ACL_PREDATA, ACL_MIME, ACL_DKIM, ACL_DATA, ACL_PRDR, ACL_NOT_SMTP, ACL_AUTH, ACL_CONNECT, ACL_ETRN, ACL_EXPN,
  ACL_HELO, ACL_MAIL, ACL_NOT_SMTP_START, ACL_NOT_SMTP_MIME, ACL_NOTQUIT, ACL_QUIT, ACL_STARTTLS, ACL_VRFY, ACL_DELIVERY,
  ACL_WELLKNOWN, ACL_ATRN, ACL_UNKNOWN, ACL_MAILAUTH, ACL_WHERE_COUNT
};
#define ACL_BIT(w) (1u << (w))
#define ACL_ALL ((1u << ACL_WHERE_COUNT) - 1)
#define ACL_ONLY(bits) (ACL_ALL & ~(bits))

enum acl_result { ACL_OK, ACL_FAIL, ACL_DROP, ACL_DISCARD, ACL_DEFER, ACL_ERROR, ACL_FAIL_DROP };

enum acl_verb { VERB_ACCEPT, VERB_DEFER, VERB_DENY, VERB_DISCARD, VERB_DROP, VERB_REQUIRE, VERB_WARN, VERB_COUNT };

struct acl_condition_def;
struct acl_modifier_def;
struct acl_control_def;

/* One condition or modifier of a statement. */
struct acl_clause {
  const struct acl_condition_def *condition; /* or */
  const struct acl_modifier_def *modifier;
  bool negated;
  struct str variable;       /* of `set` */
  struct option_expr arg;    /* as written, and compiled */
  void *custom;              /* what check() made */
  struct acl_clause *next;
};

struct acl_statement {
  enum acl_verb verb;
  struct acl_clause *clauses;
  struct config_where where;
  uint32_t line;             /* of the verb in its text, for log lines */
  struct acl_statement *next;
};

struct acl {
  struct str name;           /* "" for an inline ACL */
  struct str source;         /* file name, or "inline ACL" */
  struct acl_statement *first;
};

/* A word of `verify =` that a module adds. `options` is the text behind "/", unset if there is none. */
struct acl_verify_def {
  const char *name;
  uint32_t forbidden;  /* ACL_BIT()s */
  int (*eval)(struct ctx *c, struct str options); /* OUTCOME_OK, FAIL, DEFER or ERROR with c->log_message. [suspends] */
};

/* The ACL that runs: a stack of them, since `acl =` nests. */
#define ACL_ARGS_MAX 9
struct acl_frame {
  struct acl_frame *outer;
  const struct acl *acl;
  const struct acl_statement *statement;
  enum acl_where where;
  struct str arg[ACL_ARGS_MAX];
  int args;
  int depth;
};

struct acl_condition_def {
  const char *name;
  uint32_t forbidden;       /* ACL_BIT(…) where it may not stand */
  bool expand_first;        /* the argument is expanded before eval; else eval gets the raw clause */
  unsigned flags;           /* ACL_LATER: "not supported yet" */
  /* OUTCOME_OK true, FAIL false, DEFER, ERROR; or ACL_EVAL_DROP, ACL_EVAL_DISCARD. [suspends]
  An eval that expands itself gives OUTCOME_FORCED for a forced failure: the condition is ignored. */
  int (*eval)(struct ctx *c, const struct acl_clause *clause, struct str arg);
  /* Checks the argument when the configuration is read; may be NULL. */
  int (*check)(struct config_reader *r, struct acl_clause *clause);
};
struct acl_modifier_def {
  const char *name;
  uint32_t forbidden;
  bool expand_first;
  unsigned flags;
  int (*apply)(struct ctx *c, const struct acl_clause *clause, struct str arg);
  int (*check)(struct config_reader *r, struct acl_clause *clause);
};
struct acl_control_def {
  const char *name;
  bool has_option;          /* control = name/option */
  uint32_t forbidden;
  unsigned flags;
  int (*apply)(struct ctx *c, struct str option);
};
#define ACL_LATER 1u
#define ACL_ALIAS 2u              /* of a control: an old name of the entry before it in its table */
#define ACL_EVAL_DROP (-20)    /* the nested ACL said drop: as FAIL, but the connection goes */
#define ACL_EVAL_DISCARD (-21) /* the nested ACL said discard */

/* Where an added header line goes. */
enum acl_header_place { ACL_HEADER_END, ACL_HEADER_AFTER_RECEIVED, ACL_HEADER_START_RFC, ACL_HEADER_START };
struct acl_header {
  enum acl_header_place place;
  struct str text;          /* with its newline */
};

/* control = debug */
struct acl_debug {
  unsigned number;          /* of the open log; 0: none */
  struct str tag;
  uint64_t mask;
  uint32_t pretrigger;
  bool on_panic;
};

/* What ACLs asked for, for the message being received. Everything lives in the message's arena. */
struct acl_message {
  VEC(struct acl_header) added;
  VEC(struct str) removed;  /* colon lists */
  VEC(struct str) warned;   /* texts of log_message on `warn`, so that each is logged once */
  bool freeze, freeze_tell;
  bool queue_only, queue_first_pass;
  bool fakereject, fakedefer;
  struct str fake_response; /* unset: the default text */
  bool submission, sender_retain;
  struct str submission_domain, submission_name; /* unset: not given */
  bool suppress_local_fixups;
  bool cutthrough, cutthrough_pass, cutthrough_transport_sender; /* control = cutthrough_delivery/defer=pass/sender=transport */
  bool cutthrough_never;    /* a module needs the message to be queued first; stays, whatever a control says */
  bool dkim_disable_verify;
  struct str queue_name;    /* unset: not changed */
  struct map *rates;        /* of ratelimit: double * */
  struct acl_debug debug;   /* of a message that came without a session, or for its deliveries */
};

/* The address of RCPT while its ACL runs; caseful and lower-cased local parts for the controls. */
struct acl_recipient {
  struct str address;        /* as verified: qualified */
  struct str local_part, local_part_lower;
  struct str domain;
  struct map *rates;
};

/* The last sender verification; its texts live in the ctx's arena: the SMTP server clears it with that. */
struct acl_sender_verify {
  bool done, failed_now, reported, no_details;
  bool setup_failed, postmaster_failed; /* what a callout found: said to the client at length */
  struct str address, how;   /* how: the options of the condition */
  int result;
  struct str user, log, failure, address_data;
};

/* What an ACL does, for who wants to see it. The parts that the kind does not name are empty. */
struct acl_event {
  enum {
    ACL_EVENT_BEGIN,         /* acl (NULL: empty) is run; value: its name or text as it was given */
    ACL_EVENT_STATEMENT,     /* acl, statement */
    ACL_EVENT_CLAUSE,        /* statement, clause, value: the argument, expanded unless it is a list's; result: OUTCOME_*, ACL_EVAL_* */
    ACL_EVENT_STATEMENT_END, /* acl, statement, result: of the conditions */
    ACL_EVENT_END,           /* acl, statement that decided (NULL: the end was reached), result: enum acl_result */
  } kind;
  const struct acl *acl;
  const struct acl_statement *statement;
  const struct acl_clause *clause;
  struct str value;
  int result;
};
struct acl_observer {
  void *arg;
  void (*event)(void *arg, struct ctx *c, const struct acl_event *e); /* may not suspend */
};

/* What ACLs asked for, for the rest of the connection. */
struct acl_session {
  bool enforce_sync_set, enforce_sync;
  bool no_pipelining, no_multiline, allow_auth_unadvertised, no_delay_flush, no_callout_flush;
  struct acl_recipient *recipient; /* of the RCPT ACL that runs, or NULL */
  struct map *rates;
  unsigned reject_logs;       /* LOG_* for rejections of the ACL that ran last */
  struct acl_sender_verify sender_verify;
  struct acl_debug debug;
  const struct acl_observer *observer; /* or NULL */
  int64_t load_latched;       /* queue_only_load_latch: the load that has queued a message of this connection, plus one; 0: none */
  const char *csa_status;     /* of the last verify = csa; NULL: none yet */
  struct str queue_name;      /* `queue` where there is no message (ATRN); unset: not given */
  struct callout_kept callout;   /* a connection held open for further recipients: callout_release() ends it */
  /* Sends pending replies (before a delay). Set by the SMTP server. [suspends] */
  void (*flush)(struct ctx *c);
};

extern const struct module acl_module;
struct acl_message *acl_message(struct ctx *c); /* NULL without a message */
struct acl_session *acl_session(struct ctx *c); /* NULL without a session */

/* "accept", "deny", … */
const char *acl_verb_name(enum acl_verb verb);
/* "ACCEPT", "DENY", … */
const char *acl_result_word(enum acl_result r);
/* Text for messages: "RCPT", "EHLO or HELO", "non-SMTP", … */
const char *acl_where_name(enum acl_where where);

/* Runs the ACL named or given by `text` (an option such as acl_smtp_rcpt, expanded: a name, a file, or inline ACL text).
[suspends] c->user_message and c->log_message say why. */
enum acl_result acl_check(struct ctx *c, enum acl_where where, const struct option_expr *text);
/* The same for text at hand, with $acl_arg1…; for `acl =`, ${acl…} and ACL tests in filters. */
enum acl_result acl_check_text(struct ctx *c, enum acl_where where, struct str text, const struct str *args, int n);
/* Is the option set, and not empty when it is a constant? */
bool acl_is_set(const struct option_expr *text);
/* Logs for a rejection: LOG_MAIN | LOG_REJECT unless log_reject_target said otherwise in the ACL that ran last. */
unsigned acl_reject_logs(struct ctx *c);

/* Parses ACL text (a file's, or inline). Lives in `a`. 0, or OUTCOME_ERROR with *ret_error. */
int acl_parse(struct arena *a, struct str text, struct str source, struct acl **ret, struct str *ret_error);

/* For modifiers of other rooms and the message's end: adds header lines as add_header does. */
void acl_add_header(struct ctx *c, struct str text);
/* Applies what ACLs collected so far to c->message's header lines. `acl_name` ("MAIL or RCPT") is for debug output. */
void acl_apply_headers(struct ctx *c, const char *acl_name);
/* Colon list of headers to be added, for $headers_added. */
struct str acl_headers_added(struct ctx *c);

/* A delivery goes on with the debug log that an ACL began for the message; its number, for the end. */
unsigned acl_debug_resume(struct message *m, unsigned *ret_outer);
void acl_debug_pause(unsigned number, unsigned outer);

/* A name for an ACL variable: acl_c… / acl_m…; *ret_connection says which. 0 or OUTCOME_ERROR with *ret_error. */
int acl_variable_name(struct arena *a, struct str name, bool *ret_connection, struct str *ret_error);
void acl_variable_set(struct ctx *c, struct str name, struct str value);

/* log_write with the message of the context, once it has an id; nothing for no logs. */
void acl_log(struct ctx *c, unsigned logs, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- how logs name the client (log/ and message/ know nothing of sessions) --- */

/* Rebuilds client->fullhost and client->rcvhost from name, HELO and address. Texts live in `a`, the connection's arena. */
void client_set_fullhost(struct arena *a, struct client *client);
/* "H=name (helo) [ip] U=ident", or "U=login" for a local caller; without `tags` "name (helo) [ip] U=ident". */
struct str client_log_text(struct arena *a, const struct client *client, bool tags);
