/* Lists of the policy language: domain, host, address, local part and string
lists (Exim manual, chapter "Domain, host, address, and local part lists").
A list without expansions is compiled when the configuration is read; others
when first seen, and cached by their text.

All match functions: OUTCOME_OK (in), OUTCOME_FAIL (not in), OUTCOME_DEFER (a
lookup or DNS deferred), OUTCOME_ERROR; c->error has the text. [suspends] */
#pragma once

#include "base/outcome.h"
#include "config/option.h"
#include "core/ctx.h"

struct list;

/* Splits a list's text into items (manual, "List construction"): `<x` changes the separator, a doubled printing
separator stands for one, blanks around items are dropped, an empty last item does not count.
`text` is the expanded list. A change of separator in tainted text is ignored; where it stood literally before the
expansion, list_iter_init_literal accepts it although other parts of the text are tainted. Items are views of
`text`, or in `a` when a doubled separator was undone; they have the taint of `text`. */
struct list_iter {
  struct str rest;
  char sep;
  struct arena *arena;
};
void list_iter_init(struct list_iter *i, struct arena *a, struct str text);
void list_iter_init_literal(struct list_iter *i, struct arena *a, struct str text);
bool list_next(struct list_iter *i, struct str *ret_item);
/* Does the text, as written in the configuration, begin with a change of separator (`<;` or `<\n`)? */
bool list_changes_separator(struct str text);
/* Appends an item to a list under construction, its separators doubled. */
struct buf;
void list_add(struct buf *list, char sep, struct str item);

/* Compiles all constant lists of a configuration. */
void match_compile_config(struct config *c);
/* Compiles a list of any kind but LIST_STRING that is not to be expanded any more. */
void match_compile(struct arena *a, enum list_kind kind, struct option_expr *list);

/* *ret_data (may be NULL): the lookup's result or the matched item ($domain_data …), unset if none.
For a domain or local part that is in the list, captures $0… are set as the manual's chapter says. What the list is
for ("local_parts") may be put into c->match_what for the texts of errors. */
int match_domain(struct ctx *c, const struct option_expr *list, struct str domain, struct str *ret_data);
int match_local_part(struct ctx *c, const struct option_expr *list, struct str local_part, bool caseful, struct str *ret_data);
int match_address(struct ctx *c, const struct option_expr *list, struct str address, bool caseful, struct str *ret_data);
/* The client host of c->client, or the host given (for hosts_require_tls and the like). Host name looked up on need. */
int match_client_host(struct ctx *c, const struct option_expr *list, struct str *ret_data);
int match_host(struct ctx *c, const struct option_expr *list, struct str name, struct str address, struct str *ret_data);
/* match_ip: the subject is an IP address or empty, no name is ever looked up. */
int match_ip(struct ctx *c, const struct option_expr *list, struct str address, struct str *ret_data);
/* The same for list text computed now (ACL conditions, ${if match_domain…}). LIST_HOST: as match_ip, the subject is an
IP address or empty and no name is ever looked up. A list whose literal text changed the separator before it was
expanded is to be marked with MATCH_LITERAL_SEPARATOR. */
int match_text(struct ctx *c, enum list_kind kind, struct str list, struct str subject, unsigned flags, struct str *ret_data);
#define MATCH_CASEFUL 1u
#define MATCH_LITERAL_SEPARATOR 2u
int match_host_text(struct ctx *c, struct str list, struct str name, struct str address, struct str *ret_data);
int match_client_host_text(struct ctx *c, struct str list, struct str *ret_data);
/* One item of an address list, as rewriting and retry rules have it: separators have no meaning, the case of the local
part counts, and $0, $1 … are set as the manual's section "Rewriting patterns" says. The pattern is expanded. */
int match_address_pattern(struct ctx *c, const struct option_expr *pattern, struct str address);
/* A plain string list: exact, *suffix, ^regex, lookups. */
int match_string(struct ctx *c, struct str list, struct str subject, bool caseful, struct str *ret_data);
/* One pattern of such a list; separators and `!` have no meaning. */
int match_item(struct ctx *c, struct str pattern, struct str subject, bool caseful);

/* Expands a list's text as lists are expanded: a change of separator that is written literally at its start stays in
force although the rest may be tainted (*ret_flags: MATCH_LITERAL_SEPARATOR). As expand_option otherwise. */
int match_expand(struct ctx *c, const struct option_expr *list, struct str *ret, unsigned *ret_flags) MUST_CHECK;
/* Forgets compiled texts and files (tests; a worker that ends). */
void match_done(void);
