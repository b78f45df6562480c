/* Between rewrite.c and rewrite_header.c. */
#pragma once

#include "message/address.h"
#include "message/rewrite.h"

/* Runs the rules for one place (a REWRITE_… bit) over a qualified address. True: some rule took effect; *address is
the new one; *ret_whole is the whole replacement of a header's item, or unset. */
bool rewrite_one(struct ctx *c, const struct rewrite_rules *rules, unsigned type, struct str *address,
  struct str *ret_whole);
/* Where in the item the text begins that a new address replaces: a route belongs to it. */
size_t rewrite_start(struct str item, const struct mail_address *m);
struct str rewrite_qualify(struct ctx *c, struct str local_part, bool sender);
void rewrite_message_headers(struct ctx *c, struct message *m, const struct rewrite_rules *rules);
/* RFC 2047, in headers_charset. */
struct str rewrite_encode(struct ctx *c, struct str text);
