#include "base/encode.h"

#include "base/arena.h"
#include "base/ascii.h"

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base62_digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static const char base32_digits[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char hex_lower[] = "0123456789abcdef", hex_upper[] = "0123456789ABCDEF";

/* The text p[0..n) as a result made of s. */
static struct str result(struct str s, char *p, size_t n) {
  p[n] = '\0';
  return (struct str){p, (uint32_t)n, s.taint & STR_TAINTED};
}

struct str base64_encode(struct arena *a, struct str s) {
  const unsigned char *in = (const unsigned char *)s.p;
  char *p = arena_bytes(a, ((size_t)s.len + 2) / 3 * 4 + 1);
  size_t n = 0;
  for (size_t i = 0; i < s.len; i += 3) {
    size_t left = s.len - i;
    uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
    p[n++] = base64_digits[v >> 18];
    p[n++] = base64_digits[v >> 12 & 63];
    p[n++] = left > 1 ? base64_digits[v >> 6 & 63] : '=';
    p[n++] = left > 2 ? base64_digits[v & 63] : '=';
  }
  return result(s, p, n);
}

static int base64_value(char c) {
  if (ascii_is_upper(c))
    return c - 'A';
  if (ascii_is_lower(c))
    return c - 'a' + 26;
  if (ascii_is_digit(c))
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct arena *a, struct str s, bool unpadded, struct str *ret) {
  char *p = arena_bytes(a, (size_t)s.len / 4 * 3 + 4);
  size_t n = 0, digits = 0, padding = 0;
  uint32_t v = 0;
  for (size_t i = 0; i < s.len; i++) {
    char c = s.p[i];
    if (ascii_is_space(c))
      continue;
    if (c == '=') {
      padding++;
      continue;
    }
    int d = base64_value(c);
    if (d < 0 || padding)
      return false;
    v = v << 6 | (uint32_t)d;
    if (++digits % 4)
      continue;
    p[n++] = (char)(v >> 16);
    p[n++] = (char)(v >> 8);
    p[n++] = (char)v;
  }
  size_t rest = digits % 4;
  if (rest == 1 || padding > 2 || (padding ? rest + padding != 4 : rest != 0 && !unpadded))
    return false;
  if (rest >= 2)
    p[n++] = (char)(rest == 2 ? v >> 4 : v >> 10);
  if (rest == 3)
    p[n++] = (char)(v >> 2);
  *ret = result(s, p, n);
  return true;
}

static struct str hex_with(struct arena *a, struct str s, const char *digits) {
  char *p = arena_bytes(a, (size_t)s.len * 2 + 1);
  for (size_t i = 0; i < s.len; i++) {
    p[2 * i] = digits[(unsigned char)s.p[i] >> 4];
    p[2 * i + 1] = digits[s.p[i] & 15];
  }
  return result(s, p, (size_t)s.len * 2);
}

struct str hex_encode(struct arena *a, struct str s) { return hex_with(a, s, hex_lower); }
struct str hex_encode_upper(struct arena *a, struct str s) { return hex_with(a, s, hex_upper); }

/* The byte of two hexadecimal digits at s.p[i], or -1. */
static int hex_pair(struct str s, size_t i) {
  if (i + 2 > s.len)
    return -1;
  int high = ascii_hex_value(s.p[i]), low = ascii_hex_value(s.p[i + 1]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

bool hex_decode(struct arena *a, struct str s, struct str *ret) {
  char *p = arena_bytes(a, (size_t)s.len / 2 + 1);
  for (size_t i = 0; i < s.len; i += 2) {
    int v = hex_pair(s, i);
    if (v < 0)
      return false;
    p[i / 2] = (char)v;
  }
  *ret = result(s, p, s.len / 2);
  return true;
}

/* Writes v in a base, first digit first. */
static size_t number_write(char *to, uint64_t v, const char *digits, unsigned base, size_t width) {
  char reversed[64];
  size_t n = 0, len = 0;
  for (; v; v /= base)
    reversed[n++] = digits[v % base];
  while (len + n < width)
    to[len++] = digits[0];
  while (n)
    to[len++] = reversed[--n];
  to[len] = '\0';
  return len;
}

static bool number_read(struct str s, const char *digits, unsigned base, uint64_t *ret) {
  uint64_t v = 0;
  for (size_t i = 0; i < s.len; i++) {
    const char *d = s.p[i] ? strchr(digits, s.p[i]) : NULL;
    if (!d || __builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)(d - digits), &v))
      return false;
  }
  *ret = v;
  return true;
}

size_t base62_write(char *to, uint64_t v, size_t width) { return number_write(to, v, base62_digits, 62, width); }
bool base62_read(struct str s, uint64_t *ret) { return number_read(s, base62_digits, 62, ret); }
size_t base32_write(char *to, uint64_t v) { return number_write(to, v, base32_digits, 32, 0); }
bool base32_read(struct str s, uint64_t *ret) { return number_read(s, base32_digits, 32, ret); }

/* Bytes for which keep() is false become the lead character and two hexadecimal digits. */
static struct str escape_with(struct arena *a, struct str s, char lead, bool (*keep)(char c)) {
  size_t n = s.len;
  for (size_t i = 0; i < s.len; i++)
    n += keep(s.p[i]) ? 0 : 2;
  char *p = arena_bytes(a, n + 1);
  n = 0;
  for (size_t i = 0; i < s.len; i++) {
    char c = s.p[i];
    if (keep(c)) {
      p[n++] = c;
      continue;
    }
    p[n++] = lead;
    p[n++] = hex_upper[(unsigned char)c >> 4];
    p[n++] = hex_upper[c & 15];
  }
  return result(s, p, n);
}

static bool unescape_with(struct arena *a, struct str s, char lead, bool (*allowed)(char c), struct str *ret) {
  char *p = arena_bytes(a, (size_t)s.len + 1);
  size_t n = 0;
  for (size_t i = 0; i < s.len; i++) {
    int v = (unsigned char)s.p[i];
    if (s.p[i] == lead) {
      v = hex_pair(s, i + 1);
      i += 2;
    } else if (allowed && !allowed(s.p[i])) {
      v = -1;
    }
    if (v < 0)
      return false;
    p[n++] = (char)v;
  }
  *ret = result(s, p, n);
  return true;
}

static bool xtext_keep(char c) { return c >= '!' && c <= '~' && c != '+' && c != '='; }
static bool url_keep(char c) { return ascii_is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~'; }

struct str xtext_encode(struct arena *a, struct str s) { return escape_with(a, s, '+', xtext_keep); }
bool xtext_decode(struct arena *a, struct str s, struct str *ret) { return unescape_with(a, s, '+', xtext_keep, ret); }
struct str url_encode(struct arena *a, struct str s) { return escape_with(a, s, '%', url_keep); }
bool url_decode(struct arena *a, struct str s, struct str *ret) { return unescape_with(a, s, '%', NULL, ret); }

struct str printable(struct arena *a, struct str s, bool eight_bit) {
  static const char named[] = "\b\v\f\n\r\t\\", letters[] = "bvfnrt\\";
  size_t n = 0;
  char *p = arena_bytes(a, (size_t)s.len * 4 + 1);
  for (size_t i = 0; i < s.len; i++) {
    char c = s.p[i];
    const char *name = c ? strchr(named, c) : NULL;
    if (name) {
      p[n++] = '\\';
      p[n++] = letters[name - named];
    } else if (ascii_is_print(c) || (eight_bit && c & 0x80)) {
      p[n++] = c;
    } else {
      p[n++] = '\\';
      p[n++] = (char)('0' + ((unsigned char)c >> 6));
      p[n++] = (char)('0' + (c >> 3 & 7));
      p[n++] = (char)('0' + (c & 7));
    }
  }
  return result(s, p, n);
}
