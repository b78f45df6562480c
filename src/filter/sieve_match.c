/* Comparators and match types (RFC 5228, section 2.7; RFC 4790). */

#include "base/ascii.h"
#include "filter/sieve.h"

static bool same(enum sieve_comparator c, char x, char y) { return c == SIEVE_OCTET ? x == y : ascii_lower(x) == ascii_lower(y); }

/* `*` any run, `?` one octet, `\` makes the next one itself. Only the last `*` is ever tried again: what a former one took
could be taken by it. */
static bool glob(enum sieve_comparator c, struct str s, struct str key) {
  size_t i = 0, k = 0, star_k = 0, star_i = 0;
  bool star = false;
  while (i < s.len) {
    if (k < key.len && key.p[k] == '*') {
      star = true;
      star_k = ++k;
      star_i = i;
      continue;
    }
    bool quoted = k + 1 < key.len && key.p[k] == '\\';
    if (k < key.len && ((!quoted && key.p[k] == '?') || same(c, s.p[i], key.p[k + quoted]))) {
      k += 1u + quoted;
      i++;
    } else if (star) {
      k = star_k;
      i = ++star_i;
    } else {
      return false;
    }
  }
  while (k < key.len && key.p[k] == '*')
    k++;
  return k == key.len;
}

/* The digits in front, without leading zeros; unset: none, which is more than any number (RFC 4790, section 9.1). */
static struct str number(struct str s) {
  uint32_t n = 0, zeros = 0;
  while (n < s.len && ascii_is_digit(s.p[n]))
    n++;
  while (zeros + 1 < n && s.p[zeros] == '0')
    zeros++;
  return n ? str_slice(s, zeros, n) : STR_UNSET;
}

static bool same_number(struct str x, struct str y) {
  x = number(x);
  y = number(y);
  return str_is_set(x) && str_is_set(y) ? str_eq(x, y) : str_is_set(x) == str_is_set(y);
}

bool sieve_matches(enum sieve_match match, enum sieve_comparator c, struct str value, struct str key) {
  if (c == SIEVE_ASCII_NUMERIC)
    return same_number(value, key);
  switch (match) {
  case SIEVE_CONTAINS: return !key.len || (c == SIEVE_OCTET ? str_find(value, key) : str_ifind(value, key)) >= 0;
  case SIEVE_MATCHES: return glob(c, value, key);
  default: return c == SIEVE_OCTET ? str_eq(value, key) : str_ieq(value, key);
  }
}

uint64_t sieve_match_work(enum sieve_match match, struct str value, struct str key) {
  return match == SIEVE_IS ? key.len + 16u : (uint64_t)value.len * (key.len + 1u) / 8 + value.len + 16;
}
