/* Events: a string of the configuration is expanded at fixed points of
delivery (Exim manual, chapter "Events"). Expansions have side effects; the
result matters for those that say so. */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

/* Raises an event with the transport's event_action, or with `t` NULL the main one. *ret is what it expands to, empty when there
is no action. 0, or OUTCOME_DEFER when the expansion fails, which is logged. The data is taken for foreign. It ends after five
seconds. [suspends] */
int event_raise(struct ctx *c, const struct instance *t, const char *name, struct str data, int error, struct str *ret);
/* The same with data of our own making, which is trusted. */
int event_raise_known(struct ctx *c, const struct instance *t, const char *name, struct str data, struct str *ret);
/* The same for what became of an address, with its variables set; the result is ignored. The transport's action if the address
has a transport and that an action, else the main one. [suspends] */
void event_address(struct ctx *c, struct address *a, const char *name, struct str data, int error);
/* Does an event's action run? Then what it does raises none of its own. */
bool event_is_raised(const struct ctx *c);
/* Is there anything to be done for events of that transport? */
bool event_wanted(const struct ctx *c, const struct instance *t);
