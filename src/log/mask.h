/* Passwords in the texts of lookups: configurations and queries are shown in logs, debug output and error texts. */
#pragma once

#include "base/str.h"

struct arena;

/* `text` without the values of PASS= in LDAP queries and without what follows the host in `servers=` of a database query,
with *** instead; `text` itself where there are none. */
struct str log_masked(struct arena *a, struct str text);
