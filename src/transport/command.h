/* Command lines of transports and of queryprogram: split into arguments first,
each of which is then expanded on its own, so that inserted text never makes
arguments (Exim manual, section "How the command is run"). */
#pragma once

#include "base/vec.h"
#include "core/ctx.h"
#include "deliver/address.h"

struct command {
  struct str *argv; /* an array with room for one more */
  size_t n;
  size_t tainted;   /* the first argument that a stranger has a hand in, not counting addresses; 0: none */
};

/* Splits, and with `expand` expands each argument; in the context's arena. $pipe_addresses alone becomes one argument for each
address of the chain (NULL: it is nothing special); $address_pipe alone, with `address_pipe` set, the arguments of that text.
0, or OUTCOME_DEFER or OUTCOME_FAIL with c->error; `whose` ("t1 transport") is for that text. [suspends] */
int command_build(struct ctx *c, struct str text, bool expand, const struct address *chain, struct str address_pipe, struct str whose,
    struct command *ret);
/* The transport's transport_filter for these addresses; n is 0 when it has none. False: the chain has its result. [suspends] */
bool command_filter(struct ctx *c, const struct instance *t, struct address *chain, struct command *ret);
