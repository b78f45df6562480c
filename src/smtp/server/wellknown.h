#pragma once

#include "core/ctx.h"

/* control = wellknown/FILE: the file's text becomes the reply. OUTCOME_ERROR: it is no readable, non-empty file. */
int smtp_control_wellknown(struct ctx *c, struct str option);
