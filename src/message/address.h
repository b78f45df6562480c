/* RFC 5321/5322/6531 addresses. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

/* A syntactically checked address taken apart. Views into arena memory. */
struct mail_address {
  struct str address;    /* local@domain, comments and phrase removed, quoting normalised; "" for <> */
  struct str local_part; /* as in the address, quoted if it was */
  struct str domain;     /* without the @; empty for an unqualified address */
  size_t start, end;     /* where the working part stands in the parsed text: first byte and the one behind the last */
};

#define ADDRESS_ALLOW_DOMAIN_LITERAL 1u /* in <>; a bare address may always have one */
#define ADDRESS_ALLOW_UTF8 2u           /* in domains; local parts may always hold 8-bit bytes */
#define ADDRESS_STRIP_TRAILING_DOT 4u
#define ADDRESS_ALLOW_EMPTY 8u /* <> */
#define ADDRESS_STRIP_BRACKETS 16u /* <<a@b>> is <a@b> */

/* Longest text that address_parse takes; more is refused as malformed. */
#define ADDRESS_MAX_TEXT (64u << 10)
/* Longest address in it; Exim 4.96 refuses longer ones, too. */
#define ADDRESS_MAX 256

/* One RFC 5322 address with phrase, comments, route … : what MAIL FROM:<…> or a header item holds.
0, or OUTCOME_FAIL with *ret_error in Exim's words ("malformed address: … may not follow …"). */
int address_parse(struct arena *a, struct str text, unsigned flags, struct mail_address *ret, struct str *ret_error);

struct ctx;
/* `flags` and what the configuration adds: strip_trailing_dot, strip_excess_angle_brackets, allow_domain_literals, allow_utf8_domains. */
unsigned address_flags(const struct ctx *c, unsigned flags);

/* End of the first address of a header-style list: index of the comma or the length. Quotes, comments and routes are
seen through. */
size_t address_find_end(struct str text, bool semicolon_ends);

/* Walks the addresses of a header's value, group names and their semicolons seen through:
  struct address_walk w = {.text = value};
  while (address_walk_next(&w)) … text [w.from, w.to) is one item for address_parse; shown [w.shown_from, w.shown_to)
has the group's name and semicolon too, for messages. Empty items are skipped. */
struct address_walk {
  struct str text;
  size_t next;
  bool in_group;
  size_t from, to, shown_from, shown_to;
};
bool address_walk_next(struct address_walk *w);

/* Position behind comments and white space. */
size_t address_skip_comment(struct str text, size_t pos);
struct str address_quote_local_part(struct arena *a, struct str local_part);
struct str address_unquote_local_part(struct arena *a, struct str local_part);
/* Splits at the last @; a missing one gives an empty domain. */
void address_split(struct str address, struct str *ret_local_part, struct str *ret_domain);
