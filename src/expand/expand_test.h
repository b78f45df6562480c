/* -be: expansions from the command line or from a stream of lines (Exim manual, "Testing string expansions"). */
#pragma once

#include <stdio.h>
#include "core/ctx.h"

struct expand_test {
  const struct str *args; /* each is expanded and printed on a line; none: lines are read from `in` */
  size_t args_n;
  FILE *in, *out;
  bool explain; /* the arguments are shown as trees, with their values */
  bool colour;
};

/* Lines may be continued with a backslash. `NAME = text` defines a macro, `set VARIABLE = text` (`set,t` for a tainted
value) a variable acl_c…, acl_m… or r_…; other lines are expanded. The exit status: 0; when explaining, 1 if one of them fails. [suspends] */
int expand_test_run(struct ctx *c, const struct expand_test *t);
/* For config_source.expand: expands with nothing but the configuration at hand. */
int expand_config_text(struct config *config, struct arena *a, struct str text, struct str *ret, struct str *ret_error);
