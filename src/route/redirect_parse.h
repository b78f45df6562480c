/* The text of aliases and forward files taken apart (Exim manual, sections
"Items in a non-filter redirection list" and "Special items in redirection
lists"). Knows no routers: what may stand in a list comes in as rules, files to
include are read by a callback. */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "base/vec.h"

enum redirect_kind { REDIRECT_ADDRESS, REDIRECT_FILE, REDIRECT_PIPE };

struct redirect_item {
  enum redirect_kind kind;
  struct str text;      /* the address (perhaps without a domain), the path, or the command with its `|` */
  bool backslash;       /* an unqualified address written with `\` before it: the incoming domain is used */
};

struct redirect_skipped {
  struct str item, error;
};

struct redirect_rules {
  bool allow_defer, allow_fail, forbid_blackhole, forbid_include;
  bool skip_syntax_errors;
  unsigned address_flags;             /* of address_parse */
  struct str include_directory;       /* unset: anywhere */
  size_t items_max;
  /* Text of a file to include, in arena `a`; 0, or an outcome with *ret_error. May suspend. */
  int (*read_file)(void *arg, struct arena *a, struct str path, struct str *ret, struct str *ret_error);
  void *arg;
};

enum redirect_result {
  REDIRECT_ITEMS,     /* perhaps none: then there is nothing to do, the router declines */
  REDIRECT_BLACKHOLE,
  REDIRECT_FAIL,      /* :fail: with its text in `text` */
  REDIRECT_DEFER,     /* :defer: */
  REDIRECT_UNKNOWN,   /* :unknown: */
  REDIRECT_ERROR,     /* `text` says what is wrong */
  REDIRECT_INCLUDE_DEFER, /* a file to include could not be read for now */
};

struct redirect_parsed {
  enum redirect_result result;
  struct str text;
  VEC(struct redirect_item) items;
  VEC(struct redirect_skipped) skipped;
};

/* Texts are copied into `a`; the items' taint is the data's. [suspends] if read_file does. */
void redirect_parse(struct arena *a, struct str data, const struct redirect_rules *rules, struct redirect_parsed *ret);
