/* Is there room for a message of that size (check_spool_space, check_spool_inodes, check_log_…)? Logs when not. */
#pragma once

#include "core/ctx.h"

bool spool_space_ok(struct ctx *c, int64_t size);
