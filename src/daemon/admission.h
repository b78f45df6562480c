/* How many connections, from whom, and whether what they bring is delivered at
once: limits that hold across workers through the scoreboard (Exim manual:
smtp_accept_max and its relatives). */
#pragma once

#include "core/ctx.h"
#include "daemon/worker.h"

void admission_init(struct worker *w);
/* Hooks of the SMTP server (smtp/server/server.h). */
bool admission_check(void *arg, struct ctx *c, struct str *ret_reply, struct str *ret_log);
int admission_connections(void *arg);
bool admission_must_queue(void *arg, struct ctx *c, int messages_in_connection, struct str *ret_why);

/* An accepting fiber waits here while the worker has all the sessions it may have. [suspends] */
void admission_pause(struct worker *w);
void admission_resume(struct worker *w);
