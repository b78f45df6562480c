/* What the local transports (appendfile, pipe) share: who a delivery runs as,
where, and what a plan's result means for the addresses. */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"
#include "transport/header.h"
#include "transport/plan.h"

/* The part of local_plan_prepare that needs no message: who does it, and where. */
bool local_plan_begin(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p);
/* Fills user, group, home and current directory, head and body of a plan. [suspends] false: the chain has its result. */
bool local_plan_prepare(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p,
    struct transport_message *ret_message);
/* Runs the plan with the message's body and hands the outcome to every address of the chain. [suspends] */
void local_plan_run(struct ctx *c, const struct instance *t, struct address *chain, const struct plan *p,
    struct plan_result *ret);
/* Expands an option of a local transport; a failure sets the chain's result. */
bool local_expand(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    struct str *ret);
/* The same for message_prefix and message_suffix ("prefix", "suffix"), whose errors are told without the reason. */
bool local_expand_affix(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    struct str *ret);
