/* Options as tables: one option_def a name, for the main section and for each
kind of driver. Options live in plain structs ("blocks"); a table says type,
place and default. Exim manual, chapter "The runtime configuration file",
sections on data types. */
#pragma once

#include "base/str.h"

struct config_reader;
struct expr;

enum option_type {
  OPTION_STRING,   /* struct str, not expanded; quotes and escapes already undone */
  OPTION_EXPR,     /* struct option_expr: expanded when used */
  OPTION_LIST,     /* struct option_expr: a list (domain, host, address, local part, string); `list` tells which */
  OPTION_BOOL,     /* bool: `x`, `no_x`, `not_x`, `x = yes|no|true|false` */
  OPTION_EXPR_BOOL,/* struct option_expr: the same forms, or a string that is expanded to a boolean */
  OPTION_INT,      /* int64_t, decimal, octal (0…) or hex (0x…); K, M, G multiply */
  OPTION_OCTAL,    /* int64_t */
  OPTION_SIZE,     /* int64_t, K, M, G; printed back with them */
  OPTION_FIXED,    /* int64_t, thousandths: `1.5` is 1500; -1 when unset */
  OPTION_TIME,     /* int64_t seconds: 1w2d3h4m5s */
  OPTION_TIME_LIST,/* struct option_times */
  OPTION_USER,     /* struct option_user: name or number; expanded when it holds `$` */
  OPTION_GROUP,    /* struct option_user */
  OPTION_USER_LIST,/* struct option_ids */
  OPTION_GROUP_LIST,
  OPTION_CUSTOM,   /* parse() does it all */
};

enum list_kind { LIST_STRING, LIST_DOMAIN, LIST_HOST, LIST_ADDRESS, LIST_LOCAL_PART };

/* Where a thing stands in the configuration. */
struct config_where {
  uint32_t file; /* index into config->files */
  uint32_t line;
};

/* A string that is expanded at use. `text` unset: the option is not set.
`tree` is filled when the configuration is complete (expand/expand.h). For a
list without any `$` or `\`, `list` is its compiled form (match/match.h). */
struct option_expr {
  struct str text;
  const struct expr *tree;
  void *list;
  struct config_where where;
};

struct option_user {
  struct option_expr expr; /* set when it must be expanded */
  struct str text;
  bool set;
  uint32_t id;
  uint32_t gid; /* of a user name: its primary group, if known */
  bool gid_set;
};

struct option_ids {
  uint32_t *v;
  size_t n;
};

struct option_times {
  int64_t *v; /* seconds */
  size_t n;
};

#define OPTION_HIDDEN (1u << 0)   /* an old name or one that few know: -bP tells it only when it is set */
#define OPTION_LATER (1u << 1)    /* known, behaviour not there yet: refused with "not supported yet" */
#define OPTION_ALIAS (1u << 2)    /* an old spelling of `alias_of`: one warning */
#define OPTION_OBSOLETE (1u << 3) /* known and without effect in current Exim too: accepted silently */
#define OPTION_REPEATS (1u << 4)  /* may be given several times, values are joined with newline (headers_add …) */
#define OPTION_TRISTATE (1u << 5) /* an OPTION_BOOL whose place is an int: 1, 0, or -1 when it was not given */
#define OPTION_SECONDS (1u << 6)  /* an OPTION_TIME that also takes a plain number of seconds */
#define OPTION_EARLY (1u << 7)    /* an OPTION_STRING that is expanded once, when the configuration is complete */
#define OPTION_KILO (1u << 8)     /* an OPTION_SIZE whose plain numbers are kilobytes */
#define OPTION_JOIN_COLON (1u << 9) /* with OPTION_REPEATS: joined with a colon (headers_remove) */
#define OPTION_AS_TIME (1u << 10) /* an OPTION_EXPR that gives a time: one without `$` is checked when it is read */
#define OPTION_AS_INT (1u << 11)  /* the same for an integer */
#define OPTION_BOOLEAN (1u << 12) /* an OPTION_CUSTOM with the forms of a boolean (`x`, `no_x`, `x = yes`): parse() gets "true" or "false" */
#define OPTION_MOOT 0u /* read nowhere, as what it asks for holds anyway: the entry says why */
#define OPTION_OFFER (1u << 13)   /* with OPTION_LATER: only comfort or speed is lost without it; a warning, not an error */

struct option_def {
  const char *name;
  enum option_type type;
  size_t offset;             /* in the block */
  const char *default_text;  /* as it would be written; NULL: unset/0/false */
  unsigned flags;
  enum list_kind list;       /* of OPTION_LIST */
  const char *alias_of;
  /* OPTION_CUSTOM: value is the text after `=`; 0 or OUTCOME_ERROR after config_error(). */
  int (*parse)(struct config_reader *r, const struct option_def *def, void *block, struct str value);
  /* OPTION_CUSTOM: the text for -bP, or NULL to print the text as written. */
  struct str (*print)(struct arena *a, const struct option_def *def, const void *block);
};

/* Tables end with a def whose name is NULL. */
#define OPTIONS_END {0}
