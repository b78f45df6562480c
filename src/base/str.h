/* Counted, taint-carrying string views: the one string type of Martlet.

A `struct str` does not own its bytes; they live in an arena, in a stream's
buffer or in a literal. `p` is never NULL in a value made by these helpers.
The bytes may hold NULs and need not end with one. A string is "unset" when
p is NULL (STR_UNSET): options and captures use that to tell "empty" from
"never set".

Taint (Exim manual, chapter "String expansions", "tainted data"): what comes
from outside carries STR_TAINTED. Every helper that builds one string from
several ORs their taint words. The upper bits say for which lookup type the
text has been quoted (see lookup/lookup.h), and survive only if all tainted
parts agree. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct arena;

struct str {
  const char *p;
  uint32_t len;
  uint32_t taint;
};

#define STR_TAINTED 1u
#define STR_QUOTED_SHIFT 8 /* lookup type number + 1 for which it is quoted */

#define STR_UNSET ((struct str){NULL, 0, 0})
#define STR_EMPTY ((struct str){"", 0, 0})
#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1, 0})

/* For printf: printf("%.*s", STRF(s)). Stops at a NUL inside, as %s does. */
#define STRF(s) (int)(s).len, ((s).p ? (s).p : "")

/* View of a NUL-terminated C string; untainted; NULL gives STR_UNSET. */
static inline struct str str_c(const char *c) {
  return c ? (struct str){c, (uint32_t)strlen(c), 0} : STR_UNSET;
}
static inline struct str str_n(const char *p, size_t n) { return (struct str){p ? p : "", (uint32_t)n, 0}; }
static inline struct str str_tainted(struct str s) {
  s.taint |= STR_TAINTED;
  return s;
}
static inline struct str str_untainted(struct str s) {
  s.taint = 0;
  return s;
}
static inline bool str_is_tainted(struct str s) { return s.taint & STR_TAINTED; }
static inline bool str_is_set(struct str s) { return s.p != NULL; }
static inline bool str_is_empty(struct str s) { return s.len == 0; }

/* Taint of a text made of two parts: tainted if either is; the "quoted for"
mark is kept only when every tainted part carries the same one. */
static inline uint32_t str_taint_join(uint32_t a, uint32_t b) {
  if (!(a & STR_TAINTED))
    return b & STR_TAINTED ? b : 0;
  if (!(b & STR_TAINTED) || a == b)
    return a;
  return STR_TAINTED;
}

static inline bool str_eq(struct str a, struct str b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}
bool str_ieq(struct str a, struct str b);  /* ASCII case ignored */
bool str_eq_c(struct str a, const char *b);
bool str_ieq_c(struct str a, const char *b);
int str_cmp(struct str a, struct str b);   /* byte order, then length */
int str_icmp(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_istarts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_iends(struct str s, struct str suffix);

/* Index of the first/last byte c, or -1. */
static inline ptrdiff_t str_find_byte(struct str s, char c) {
  const char *p = s.len ? (const char *)memchr(s.p, c, s.len) : NULL;
  return p ? p - s.p : -1;
}
ptrdiff_t str_rfind_byte(struct str s, char c);
ptrdiff_t str_find(struct str s, struct str needle);
ptrdiff_t str_ifind(struct str s, struct str needle);

/* Sub-view [from, to); both are clamped to the length. Taint is kept. */
static inline struct str str_slice(struct str s, size_t from, size_t to) {
  if (to > s.len)
    to = s.len;
  if (from > to)
    from = to;
  return (struct str){s.p ? s.p + from : "", (uint32_t)(to - from), s.taint};
}
static inline struct str str_from(struct str s, size_t from) { return str_slice(s, from, s.len); }
/* Without white space (blank, tab, CR, LF, VT, FF) at both ends / at an end. */
struct str str_trim(struct str s);
struct str str_ltrim(struct str s);
struct str str_rtrim(struct str s);

/* Cuts *rest at the first byte `sep`: returns the part before it and leaves
the part after it in *rest (unset when there was no separator). */
struct str str_cut(struct str *rest, char sep);

/* Copies into an arena; the result is always NUL-terminated behind its last
byte, so .p can be handed to C when the text holds no NUL. */
struct str str_dup(struct arena *a, struct str s);
char *str_dup_c(struct arena *a, struct str s);
struct str str_lower(struct arena *a, struct str s); /* ASCII */
struct str str_upper(struct arena *a, struct str s);
struct str str_cat(struct arena *a, struct str x, struct str y);
/* printf into the arena; the result's taint is 0: join it where it matters. */
struct str str_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct str str_vprintf(struct arena *a, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

/* Decimal numbers. The whole string must be the number (blanks are not
skipped); false on anything else or on overflow. */
bool str_to_u64(struct str s, uint64_t *ret);
bool str_to_i64(struct str s, int64_t *ret);

uint64_t str_hash(struct str s);  /* seeded per process: safe for foreign keys */
uint64_t str_ihash(struct str s); /* ASCII case ignored */
