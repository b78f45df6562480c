/* Truth values, for conditions and options. */
#pragma once

#include "base/str.h"

/* yes, true, no, false (case ignored), an integer, or nothing (false). False: it is none of these. */
bool expand_truth(struct str value, bool *ret);
/* As `condition` of routers reads it: false for nothing, "0", "no" and "false", else true. */
bool expand_truth_lax(struct str value);
