#include "base/str.h"

#include <stdio.h>
#include <sys/random.h>
#include "base/arena.h"
#include "base/ascii.h"

static bool mem_eq(const char *a, const char *b, size_t n) { return n == 0 || memcmp(a, b, n) == 0; }

static bool mem_ieq(const char *a, const char *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (ascii_lower(a[i]) != ascii_lower(b[i]))
      return false;
  return true;
}

bool str_ieq(struct str a, struct str b) { return a.len == b.len && mem_ieq(a.p, b.p, a.len); }
/* Most that are asked of a table of names differ in the first byte. */
bool str_eq_c(struct str a, const char *b) { return (a.len == 0 || a.p[0] == b[0]) && str_eq(a, str_c(b)); }
bool str_ieq_c(struct str a, const char *b) { return str_ieq(a, str_c(b)); }

int str_cmp(struct str a, struct str b) {
  size_t n = a.len < b.len ? a.len : b.len;
  int d = n ? memcmp(a.p, b.p, n) : 0;
  return d ? d : (a.len > b.len) - (a.len < b.len);
}

int str_icmp(struct str a, struct str b) {
  for (size_t i = 0; i < a.len && i < b.len; i++) {
    int d = (unsigned char)ascii_lower(a.p[i]) - (unsigned char)ascii_lower(b.p[i]);
    if (d)
      return d;
  }
  return (a.len > b.len) - (a.len < b.len);
}

bool str_starts(struct str s, struct str x) { return s.len >= x.len && mem_eq(s.p, x.p, x.len); }
bool str_istarts(struct str s, struct str x) { return s.len >= x.len && mem_ieq(s.p, x.p, x.len); }

/* Without an offset on a possibly NULL pointer. */
bool str_ends(struct str s, struct str x) {
  return x.len == 0 || (s.len >= x.len && mem_eq(s.p + s.len - x.len, x.p, x.len));
}

bool str_iends(struct str s, struct str x) {
  return x.len == 0 || (s.len >= x.len && mem_ieq(s.p + s.len - x.len, x.p, x.len));
}

ptrdiff_t str_rfind_byte(struct str s, char c) {
  const char *p = s.len ? memrchr(s.p, c, s.len) : NULL;
  return p ? p - s.p : -1;
}

ptrdiff_t str_find(struct str s, struct str needle) {
  if (needle.len == 0)
    return 0;
  const char *p = s.len ? memmem(s.p, s.len, needle.p, needle.len) : NULL;
  return p ? p - s.p : -1;
}

ptrdiff_t str_ifind(struct str s, struct str needle) {
  for (size_t i = 0; i + needle.len <= s.len; i++)
    if (needle.len == 0 || mem_ieq(s.p + i, needle.p, needle.len))
      return (ptrdiff_t)i;
  return -1;
}

struct str str_ltrim(struct str s) {
  size_t i = 0;
  while (i < s.len && ascii_is_space(s.p[i]))
    i++;
  return str_from(s, i);
}

struct str str_rtrim(struct str s) {
  size_t n = s.len;
  while (n > 0 && ascii_is_space(s.p[n - 1]))
    n--;
  return str_slice(s, 0, n);
}

struct str str_trim(struct str s) { return str_ltrim(str_rtrim(s)); }

struct str str_cut(struct str *rest, char sep) {
  struct str all = *rest;
  ptrdiff_t i = str_find_byte(all, sep);
  if (i < 0) {
    *rest = STR_UNSET;
    return str_from(all, 0);
  }
  *rest = str_from(all, (size_t)i + 1);
  return str_slice(all, 0, (size_t)i);
}

char *str_dup_c(struct arena *a, struct str s) {
  char *p = arena_bytes(a, (size_t)s.len + 1);
  if (s.len)
    memcpy(p, s.p, s.len);
  p[s.len] = '\0';
  return p;
}

struct str str_dup(struct arena *a, struct str s) {
  return s.p ? (struct str){str_dup_c(a, s), s.len, s.taint} : STR_UNSET;
}

struct str str_lower(struct arena *a, struct str s) {
  char *p = str_dup_c(a, s);
  for (size_t i = 0; i < s.len; i++)
    p[i] = ascii_lower(p[i]);
  return (struct str){p, s.len, s.taint};
}

struct str str_upper(struct arena *a, struct str s) {
  char *p = str_dup_c(a, s);
  for (size_t i = 0; i < s.len; i++)
    p[i] = ascii_upper(p[i]);
  return (struct str){p, s.len, s.taint};
}

struct str str_cat(struct arena *a, struct str x, struct str y) {
  size_t n = (size_t)x.len + y.len;
  char *p = arena_bytes(a, n + 1);
  if (x.len)
    memcpy(p, x.p, x.len);
  if (y.len)
    memcpy(p + x.len, y.p, y.len);
  p[n] = '\0';
  return (struct str){p, (uint32_t)n, str_taint_join(x.taint, y.taint)};
}

struct str str_vprintf(struct arena *a, const char *fmt, va_list ap) {
  char small[256];
  va_list again;
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  if (n < 0)
    n = 0;
  char *p = arena_bytes(a, (size_t)n + 1);
  if ((size_t)n < sizeof small)
    memcpy(p, small, (size_t)n);
  else
    vsnprintf(p, (size_t)n + 1, fmt, again);
  p[n] = '\0';
  va_end(again);
  return str_n(p, (size_t)n);
}

struct str str_printf(struct arena *a, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str s = str_vprintf(a, fmt, ap);
  va_end(ap);
  return s;
}

bool str_to_u64(struct str s, uint64_t *ret) {
  uint64_t v = 0;
  if (s.len == 0)
    return false;
  for (size_t i = 0; i < s.len; i++) {
    if (!ascii_is_digit(s.p[i]) || __builtin_mul_overflow(v, (uint64_t)10, &v) ||
        __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
      return false;
  }
  *ret = v;
  return true;
}

bool str_to_i64(struct str s, int64_t *ret) {
  uint64_t v;
  bool minus = s.len && s.p[0] == '-';
  if (s.len && (minus || s.p[0] == '+'))
    s = str_from(s, 1);
  if (!str_to_u64(s, &v) || v > (uint64_t)INT64_MAX + minus)
    return false;
  *ret = minus ? (int64_t)(0 - v) : (int64_t)v;
  return true;
}

/* SipHash-1-3 with a key of this process: nobody outside can choose keys that collide. */
static uint64_t hash_key[2];

__attribute__((constructor)) static void hash_seed(void) {
  if (getrandom(hash_key, sizeof hash_key, GRND_NONBLOCK) != (ssize_t)sizeof hash_key) {
    hash_key[0] = (uint64_t)(uintptr_t)&hash_key;
    hash_key[1] = (uint64_t)(uintptr_t)__builtin_frame_address(0);
  }
}

static inline uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

static inline void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[1] = rotl(v[1], 13) ^ v[0];
  v[0] = rotl(v[0], 32);
  v[2] += v[3];
  v[3] = rotl(v[3], 16) ^ v[2];
  v[0] += v[3];
  v[3] = rotl(v[3], 21) ^ v[0];
  v[2] += v[1];
  v[1] = rotl(v[1], 17) ^ v[2];
  v[2] = rotl(v[2], 32);
}

/* Eight bytes at once: A-Z get the bit that makes them small. */
static inline uint64_t fold_word(uint64_t m) {
  const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
  uint64_t low = m & ~high; /* no sum below carries into the next byte */
  uint64_t upper = (low + (0x80 - 'A') * ones) & ~(low + (0x7f - 'Z') * ones) & ~m & high;
  return m | upper >> 2;
}

static inline uint64_t sip_hash(struct str s, bool fold) {
  uint64_t v[4] = {hash_key[0] ^ 0x736f6d6570736575u, hash_key[1] ^ 0x646f72616e646f6du,
      hash_key[0] ^ 0x6c7967656e657261u, hash_key[1] ^ 0x7465646279746573u};
  for (size_t i = 0; i <= s.len / 8; i++) {
    uint64_t m = 0;
    bool last = i == s.len / 8;
    if (last && s.len % 8 > 0)
      memcpy(&m, s.p + i * 8, s.len % 8);
    else if (!last)
      memcpy(&m, s.p + i * 8, 8);
    if (fold)
      m = fold_word(m);
    if (last)
      m |= (uint64_t)s.len << 56;
    v[3] ^= m;
    sip_round(v);
    v[0] ^= m;
  }
  v[2] ^= 0xff;
  for (int i = 0; i < 3; i++)
    sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t str_hash(struct str s) { return sip_hash(s, false); }
uint64_t str_ihash(struct str s) { return sip_hash(s, true); }
