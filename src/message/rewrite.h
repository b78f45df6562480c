/* Address rewriting (Exim manual, chapter "Address rewriting") and the
qualification of addresses in header lines. All functions that evaluate rules
[suspend]; results are in c->arena unless said otherwise. */
#pragma once

#include <stdio.h>
#include "config/config.h"
#include "core/ctx.h"
#include "message/message.h"

struct rewrite_rules;

extern const struct module rewrite_module;

/* The rules of `begin rewrite`; NULL: none. */
const struct rewrite_rules *rewrite_rules(const struct config *c);
/* Those of a transport's headers_rewrite (colon list), kept by the process; NULL: unset, empty, or wrong (logged once). */
const struct rewrite_rules *rewrite_rules_of_option(struct ctx *c, struct str text);
/* For the transports' init: 0, or OUTCOME_ERROR after config_error_at(). */
int rewrite_check_option(struct config_reader *r, struct config_where where, struct str text);

/* At SMTP time, rules with the S flag: *text is all that stands behind MAIL FROM: or RCPT TO:. True: it was changed. */
bool rewrite_smtp(struct ctx *c, bool sender, struct str *text);
/* An envelope address by the main rules. True: it was changed. */
bool rewrite_envelope_sender(struct ctx *c, struct str *address);
bool rewrite_envelope_recipient(struct ctx *c, struct str *address);
/* The same without a log line, for addresses that a user's own file names. */
bool rewrite_envelope_recipient_quietly(struct ctx *c, struct str *address);
/* The message's envelope sender, once: later calls do nothing. For ACLs that verify
it; rewrite_received does it too. */
void rewrite_message_sender(struct ctx *c, struct message *m);
/* When the header of an incoming message is complete: envelope sender, recipients, and header lines are rewritten and
qualified. Replaced lines stay as '*' (deleted) lines. */
void rewrite_received(struct ctx *c, struct message *m);
/* One header line by some rules, with qualification; its own text if nothing changes. */
struct str rewrite_header_text(struct ctx *c, const struct rewrite_rules *rules, const struct header *h);
/* A router found that domain `from` is an abbreviation of `to`: changed in all header lines. */
void rewrite_change_domain(struct ctx *c, struct message *m, struct str from, struct str to);
/* -brw: what becomes of an address in each place. */
void rewrite_test(struct ctx *c, struct str text, FILE *out);

extern const struct module rewrite_module;
