/* Batched SMTP: a message wrapped in its SMTP commands (Exim manual, chapter
"The appendfile transport", use_bsmtp). */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

/* Puts MAIL, RCPT … and DATA before (behind what prefix holds), "." after. */
void bsmtp_wrap(struct ctx *c, const struct address *chain, struct str *prefix, struct str *suffix);
