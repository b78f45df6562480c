/* At the start of the daemon, while somebody looks: can the workers use the spool directory, and write the logs? */
#pragma once

#include "base/str.h"

struct arena;
struct config;

/* Makes the directory when it is missing, for exim_user. Unset, or what is wrong with it and what to do, in `a`. */
struct str spool_check(const struct config *c, struct arena *a);
/* The same for the directory of the logs and the files in it. */
struct str log_check(const struct config *c, struct arena *a);
