/* Selections as log_selector and -d write them: "+name -name =number", with
"all". Names get bits in the order of a table. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

struct select_name {
  const char *name;
  uint64_t bits;     /* what +name and -name change */
  uint64_t add_bits; /* what +name sets, where that differs (0: the same) */
};

/* Changes *mask. 0, or -1 with *ret_error in Exim's words (`what` is "log_selector" or "debug_selector"); *mask then
holds what came before the error. */
int select_parse(struct arena *a, struct str text, const struct select_name *names, const char *what, uint64_t *mask,
    struct str *ret_error);

/* The tables of log_selector and -d; they end with a NULL name. */
const struct select_name *log_selector_names(void);
uint64_t log_selector_defaults(void);
extern uint64_t log_selector_mask;
