/* RFC 5321/5322/6531 addresses. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

/* A syntactically checked address taken apart. Views into arena memory. */
struct mail_address {
  struct str address;    /* local@domain, comments and phrase removed, quoting normalised; "" for <> */
  struct str local_part; /* as in the address, quoted if it was */
  struct str domain;     /* without the @; empty for an unqualified address */
};

#define ADDRESS_ALLOW_DOMAIN_LITERAL 1u
#define ADDRESS_ALLOW_UTF8 2u
#define ADDRESS_STRIP_TRAILING_DOT 4u
#define ADDRESS_ALLOW_EMPTY 8u /* <> */

/* One RFC 5322 address with phrase, comments, route … : what MAIL FROM:<…> or a header item holds.
0, or OUTCOME_FAIL with *ret_error in Exim's words ("malformed address: … may not follow …"). */
int address_parse(struct arena *a, struct str text, unsigned flags, struct mail_address *ret, struct str *ret_error);
/* End of the first address of a header-style list: index of the comma (groups, quotes and comments seen through) or the length. */
size_t address_find_end(struct str text, bool semicolon_ends);
struct str address_quote_local_part(struct arena *a, struct str local_part);
struct str address_unquote_local_part(struct arena *a, struct str local_part);
/* Splits at the last @; a missing one gives an empty domain. */
void address_split(struct str address, struct str *ret_local_part, struct str *ret_domain);
