/* What SPF and DKIM found about the message that is being received, for what builds on them. */
#pragma once

#include "core/ctx.h"
#include "mailauth/spf.h"

/* SPF of the envelope sender (or HELO name), evaluated if no condition has asked yet. False: there is no client to ask about.
*ret_domain is whose policy it is. A guess never counts. [suspends] */
bool spf_message_result(struct ctx *c, enum spf_result *ret, struct str *ret_domain);

/* DomainKeys: verify this message as if `control = dk_verify` had been said, before its header is there. */
struct message;
void domainkeys_want(struct message *m);
/* False: it has no such signature. *ret_text has more words. */
bool domainkeys_message_result(struct ctx *c, struct str *ret_status, struct str *ret_text);

/* Each signature in the order of their evaluation, with what the DKIM ACL made of it: "pass", "fail", "invalid", "none" or other
words of the ACL's. "neutral": it holds, but From: is not covered. */
void dkim_message_results(struct ctx *c, void (*each)(void *arg, struct str domain, struct str selector, struct str status), void *arg);
