/* Rules as read; for rewrite*.c only. */
#pragma once

#include "config/config.h"

#define REWRITE_SENDER 1u
#define REWRITE_FROM 2u
#define REWRITE_TO 4u
#define REWRITE_CC 8u
#define REWRITE_BCC 16u
#define REWRITE_REPLY_TO 32u
#define REWRITE_ENV_FROM 64u
#define REWRITE_ENV_TO 128u
#define REWRITE_HEADERS 63u
#define REWRITE_ENVELOPE 192u
#define REWRITE_SMTP 256u          /* S */
#define REWRITE_SMTP_SENDER 512u   /* with REWRITE_SMTP: which command, for the log */
#define REWRITE_WHOLE 1024u        /* w */
#define REWRITE_QUIT 2048u         /* q */
#define REWRITE_REPEAT 4096u       /* R */
#define REWRITE_QUALIFY 8192u      /* Q */
#define REWRITE_QUIET 16384u       /* of a call: nothing is logged */

struct rewrite_rule {
  struct option_expr pattern, replacement;
  unsigned flags;
};

struct rewrite_rules {
  struct rewrite_rule *v;
  size_t n;
  unsigned flags; /* of all rules together */
};

/* One rule. 0 or OUTCOME_ERROR with *ret_error. */
int rewrite_parse_rule(struct arena *a, struct str line, bool transport, struct rewrite_rule *ret,
  struct str *ret_error);
