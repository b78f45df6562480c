/* What ACLs ask the SMTP server about its client. */
#pragma once

#include "core/ctx.h"

/* `verify = helo` and helo_verify_hosts: does the HELO name belong to the client? Done once per HELO.
OUTCOME_OK, FAIL or DEFER. [suspends] */
int smtp_helo_verify(struct ctx *c);
/* Was a client certificate received and verified? */
bool smtp_client_certificate_verified(struct ctx *c);
