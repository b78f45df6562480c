/* exim_fixdb (Exim manual, section of that name). */
#pragma once

#include <stdbool.h>
#include "base/str.h"

struct ctx;

/* Shows and changes records of the hints database as standard input says; the store, of that spool, is open. Exit status. */
int fixdb_run(struct ctx *c, struct str spool, struct str db, bool utc);
