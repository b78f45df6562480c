/* As whom a local delivery runs (Exim manual, chapter "Environment for
running local transports"). */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"
#include "transport/plan.h"

/* Sets the plan's uid, gid and initgroups_user: the transport's user and group win over what the router set; else the user
Martlet runs as. [suspends] false: the chain has its result. */
bool identity_choose(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p);
/* Is the uid on never_users? */
bool identity_is_never(const struct config *c, int64_t uid);

/* Can plans of this process run as other users (an agent, or children of root)? If not, all deliveries run as we are. */
void identity_set_can_switch(bool on);
bool identity_can_switch(void);
