/* Is there room in a mailbox? For who verifies addresses; the transports answer (transport/local.c). */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

/* For the transport of a routed address: sets result, basic_errno and message there. False: it has no quotas. [suspends] */
bool address_check_room(struct ctx *c, struct address *a, int64_t size);
