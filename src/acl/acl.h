/* Access control lists (Exim manual, chapter "Access control lists"): parsed
once into verbs with conditions and modifiers in order. */
#pragma once

#include "config/config.h"
#include "core/ctx.h"

enum acl_where {
  ACL_RCPT, ACL_PREDATA, ACL_MIME, ACL_DKIM, ACL_DATA, ACL_PRDR, ACL_NOT_SMTP, ACL_AUTH, ACL_CONNECT, ACL_ETRN, ACL_EXPN,
  ACL_HELO, ACL_MAIL, ACL_NOT_SMTP_START, ACL_NOT_SMTP_MIME, ACL_NOTQUIT, ACL_QUIT, ACL_STARTTLS, ACL_VRFY, ACL_DELIVERY,
  ACL_WELLKNOWN, ACL_ATRN, ACL_UNKNOWN, ACL_WHERE_COUNT
};
#define ACL_BIT(w) (1u << (w))

enum acl_result { ACL_OK, ACL_FAIL, ACL_DROP, ACL_DISCARD, ACL_DEFER, ACL_ERROR, ACL_FAIL_DROP };

struct acl_statement;
struct acl_clause;

struct acl_condition_def {
  const char *name;
  uint32_t forbidden;       /* ACL_BIT(…) where it may not stand */
  bool expand_first;        /* the argument is expanded before eval; else eval gets the raw clause */
  unsigned flags;           /* ACL_LATER: "not supported yet" */
  /* OUTCOME_OK true, FAIL false, DEFER, ERROR. [suspends] */
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

/* Runs the ACL named or given by `text` (an option such as acl_smtp_rcpt, expanded: a name, a file, or inline ACL text).
[suspends] c->user_message and c->log_message say why. */
enum acl_result acl_check(struct ctx *c, enum acl_where where, const struct option_expr *text);
