/* Inside the ACL room: tables, the engine's helpers. */
#pragma once

#include "acl/acl.h"

struct spool_reader;
struct spool_writer;

#define ACL_MESSAGE_WHERE                                                                                              \
  (ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_MIME) |                \
      ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START) |                     \
      ACL_BIT(ACL_NOT_SMTP_MIME))
#define ACL_NOT_SMTP_WHERE (ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START) | ACL_BIT(ACL_NOT_SMTP_MIME))
#define ACL_NO_SENDER_WHERE                                                                                            \
  (ACL_BIT(ACL_AUTH) | ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO) | ACL_BIT(ACL_MAILAUTH) | ACL_BIT(ACL_QUIT) |            \
      ACL_BIT(ACL_ETRN) | ACL_BIT(ACL_EXPN) | ACL_BIT(ACL_STARTTLS) | ACL_BIT(ACL_VRFY) | ACL_BIT(ACL_ATRN) |           \
      ACL_BIT(ACL_WELLKNOWN))

/* Tables of the core; modules add theirs. */
extern const struct acl_condition_def acl_core_conditions[];
extern const struct acl_modifier_def acl_core_modifiers[];
extern const struct acl_control_def acl_core_controls[];
extern const char *const acl_verbs[VERB_COUNT];

const struct acl_condition_def *acl_find_condition(struct str name);
const struct acl_modifier_def *acl_find_modifier(struct str name);

/* A second line `(did you mean "…"?)` for an unknown word or control, or "" (suggest.c); for errors of the configuration. */
struct str acl_suggest_word(struct arena *a, struct str word, bool conditions, bool verbs);
struct str acl_suggest_control(struct arena *a, struct str word);

/* Modifiers that the engine itself obeys at the end of a statement. */
extern const struct acl_modifier_def *const acl_modifier_message;
extern const struct acl_modifier_def *const acl_modifier_log_message;
extern const struct acl_modifier_def *const acl_modifier_endpass;

/* Finds the ACL for expanded text. 0 and *ret (NULL: empty ACL), or OUTCOME_ERROR with c->log_message. */
int acl_find(struct ctx *c, struct str text, const struct acl **ret);
enum acl_result acl_run(struct ctx *c, enum acl_where where, struct str text, const struct str *args, int n, int depth);

/* Conditions and modifiers in files of their own. */
int acl_eval_verify(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_eval_ratelimit(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_eval_dnslists(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_eval_seen(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_apply_control(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_check_verify(struct config_reader *r, struct acl_clause *clause);
int acl_check_control(struct config_reader *r, struct acl_clause *clause);
int acl_apply_add_header(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_apply_remove_header(struct ctx *c, const struct acl_clause *clause, struct str arg);
int acl_apply_udpsend(struct ctx *c, const struct acl_clause *clause, struct str arg);

/* $csa_status is set; a DNS problem is no failure. `domain` unset: the HELO name. */
int acl_verify_csa(struct ctx *c, struct str domain);

/* The trace (trace.c): debug output and the session's observer. */
void acl_trace_begin(struct ctx *c, const struct acl *acl, struct str text);
void acl_trace_statement(struct ctx *c, const struct acl *acl, const struct acl_statement *s);
void acl_trace_check(struct ctx *c, const struct acl_clause *k, struct str value);
void acl_trace_clause(struct ctx *c, const struct acl_clause *k, struct str value, int result);
void acl_trace_statement_end(struct ctx *c, const struct acl *acl, const struct acl_statement *s, int result);
void acl_trace_end(struct ctx *c, const struct acl *acl, const struct acl_statement *s, enum acl_result r);

/* control = debug (debug.c): the control; what the message takes along from its session; ends; the spool. */
int acl_control_debug(struct ctx *c, struct str option);
void acl_debug_keep(struct ctx *c);
void acl_debug_session_end(struct session *s, void *state);
void acl_debug_message_end(struct message *m, void *state);
void acl_debug_write(struct spool_writer *w, const struct message *m, const void *state);
bool acl_debug_read(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value);

/* Sets c->log_message; returns code. */
int acl_fail(struct ctx *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "1h30m" to seconds; -1: not a time. */
int64_t acl_time(struct str text);
