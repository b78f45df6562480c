/* Tables of variables, one a file; modules.c puts them into modules. */
#pragma once

#include "expand/expand.h"

extern const struct variable_def policy_variables[];
extern const struct variable_def message_variables[];
extern const struct variable_def body_variables[];
extern const struct variable_def system_variables[];
extern const struct variable_def later_variables[];

/* For getters: *ret is the number, or text in c->arena. */
int variable_number(struct ctx *c, int64_t n, struct str *ret);
