/* The lines of the main log about deliveries (Exim manual, sections "Logging
deliveries", "Deferred deliveries", "Delivery failures"). Texts in the context's arena. */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

/* The address as in all these lines: "local", "a@b", then "(parent)" and "<top-level>". */
struct str logline_address(struct ctx *c, const struct address *a, bool success);
/* "=> …": flag is "=>", "->", "*>". With what follows the address. */
struct str logline_success(struct ctx *c, const struct address *a, const char *flag);
/* Without the flag: "a@b R=r T=t defer (-1): why" and "a@b R=r T=t : why", for main and message log. */
struct str logline_deferred(struct ctx *c, const struct address *a);
struct str logline_failed(struct ctx *c, const struct address *a);
/* Does router or transport forbid logging (disable_logging)? */
bool logline_disabled(const struct address *a);
