/* Lists of result words, as in `spf = fail : softfail`: items are compared without case from the left, "!word" matches
every other result, "*" any. */
#pragma once

#include "config/config.h"
#include "core/ctx.h"

struct result_word {
  const char *name;      /* the table ends with NULL */
  int value;
  const char *alias_of;  /* not NULL: an old spelling of that word */
};

/* When the configuration is read: a list without "$" may only hold known words, old ones get a warning. 0, or
OUTCOME_ERROR after config_error(). `condition` is the ACL condition's name. */
int result_words_check(struct config_reader *r, const char *condition, struct str list, const struct result_word *words);
/* OUTCOME_OK or FAIL. An unknown word is logged and matches nothing. */
int result_words_match(struct ctx *c, const char *condition, struct str list, int value, const struct result_word *words);
