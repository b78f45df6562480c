/* Regular expressions: PCRE2 with JIT, limits on work, and a per-process cache
of compiled patterns. Patterns come from the configuration or from untainted
text; subjects may be hostile. */
#pragma once

#include "base/str.h"

struct arena;
struct pcre;

#define PCRE_CASELESS 1u
#define PCRE_ANCHORED 2u

/* A compiled pattern, owned by the process's cache (bounded, least recently used goes): use it before the next
suspension, or keep the text and ask again. NULL and *ret_error (in `a`) when it does not compile. */
const struct pcre *pcre_get(struct arena *a, struct str pattern, unsigned flags, struct str *ret_error);
/* A compiled pattern that lives as long as the arena (configuration). */
const struct pcre *pcre_compile(struct arena *a, struct str pattern, unsigned flags, struct str *ret_error);
/* Matches. Number of captures set + 1 (as PCRE2: ≥ 1), 0: no match, -1: a limit was hit or an error.
groups[0] is the whole match; views into `subject`, with its taint; unset groups are empty. Those behind the last that was
set are left as they were. */
int pcre_match(const struct pcre *p, struct str subject, struct str *groups, int max_groups);
/* From an offset, for ${sg}: offsets instead of views; a group that was not set begins behind the subject. */
int pcre_match_at(const struct pcre *p, struct str subject, size_t offset, bool not_empty_at_start, size_t *ovector, int max_pairs);
int pcre_capture_count(const struct pcre *p);
/* Named groups: calls fn(name, number). */
void pcre_names(const struct pcre *p, void (*fn)(void *arg, struct str name, int number), void *arg);
/* pcre_get and pcre_match in one; -2: the pattern does not compile. Safe in offload threads (uses no cache). */
int pcre_match_text(struct arena *a, struct str pattern, struct str subject, struct str *groups, int max_groups);
