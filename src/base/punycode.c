#include "base/punycode.h"

#include "base/arena.h"
#include "base/ascii.h"
#include "base/buf.h"

/* A local part has 64 octets, a label 63; this is generous, as encoding takes quadratic time. */
#define PUNYCODE_MAX 1024u

enum { BASE = 36, TMIN = 1, TMAX = 26, SKEW = 38, DAMP = 700, INITIAL_BIAS = 72, INITIAL_N = 128 };

static uint32_t adapt(uint32_t delta, uint32_t points, bool first) {
  uint32_t k = 0;
  delta = first ? delta / DAMP : delta / 2;
  delta += delta / points;
  for (; delta > ((BASE - TMIN) * TMAX) / 2; k += BASE)
    delta /= BASE - TMIN;
  return k + (BASE - TMIN + 1) * delta / (delta + SKEW);
}

static uint32_t threshold(uint32_t k, uint32_t bias) { return k <= bias ? TMIN : k >= bias + TMAX ? TMAX : k - bias; }

static char digit(uint32_t d) { return (char)(d < 26 ? 'a' + d : '0' + (d - 26)); }

static int digit_value(char c) {
  return ascii_is_digit(c) ? c - '0' + 26 : ascii_is_alpha(c) ? ascii_lower(c) - 'a' : -1;
}

/* The characters of a UTF-8 text; -1: it is none, or too long. */
static int read_utf8(struct str s, uint32_t *points) {
  int n = 0;
  for (size_t i = 0; i < s.len;) {
    unsigned char c = (unsigned char)s.p[i];
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    uint32_t v = len == 1 ? c : c & (0xffu >> (len + 1));
    if (len == 0 || i + len > s.len || n == PUNYCODE_MAX)
      return -1;
    for (size_t k = 1; k < len; k++) {
      if (((unsigned char)s.p[i + k] & 0xc0) != 0x80)
        return -1;
      v = v << 6 | ((unsigned char)s.p[i + k] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
      return -1;
    points[n++] = v;
    i += len;
  }
  return n;
}

static void add_utf8(struct buf *out, uint32_t v) {
  if (v < 0x80) {
    buf_add_byte(out, (char)v);
    return;
  }
  int more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
  static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
  buf_add_byte(out, (char)(lead[more] | v >> (6 * more)));
  while (more-- > 0)
    buf_add_byte(out, (char)(0x80 | (v >> (6 * more) & 0x3f)));
}

static void add_number(struct buf *out, uint32_t q, uint32_t bias) {
  for (uint32_t k = BASE;; k += BASE) {
    uint32_t t = threshold(k, bias);
    if (q < t)
      break;
    buf_add_byte(out, digit(t + (q - t) % (BASE - t)));
    q = (q - t) / (BASE - t);
  }
  buf_add_byte(out, digit(q));
}

bool punycode_encode(struct arena *a, struct str text, struct str *ret) {
  uint32_t points[PUNYCODE_MAX];
  int n = read_utf8(text, points);
  if (n < 0)
    return false;
  struct buf out;
  buf_init(&out, a, 16 * PUNYCODE_MAX);
  uint32_t basic = 0, handled, next = INITIAL_N, delta = 0, bias = INITIAL_BIAS;
  for (int i = 0; i < n; i++)
    if (points[i] < 0x80) {
      buf_add_byte(&out, (char)points[i]);
      basic++;
    }
  handled = basic;
  if (basic > 0)
    buf_add_byte(&out, '-');
  while (handled < (uint32_t)n) {
    uint32_t least = UINT32_MAX;
    for (int i = 0; i < n; i++)
      if (points[i] >= next && points[i] < least)
        least = points[i];
    /* At most 0x10ffff * 1025: it cannot overflow. */
    delta += (least - next) * (handled + 1);
    next = least;
    for (int i = 0; i < n; i++) {
      delta += points[i] < next;
      if (points[i] != next)
        continue;
      add_number(&out, delta, bias);
      bias = adapt(delta, handled + 1, handled == basic);
      delta = 0;
      handled++;
    }
    delta++;
    next++;
  }
  *ret = buf_str(&out);
  ret->taint = text.taint;
  return true;
}

/* Reads one number; false: a bad digit, or too large. */
static bool read_number(struct str s, size_t *at, uint32_t bias, uint32_t *i) {
  uint32_t weight = 1;
  for (uint32_t k = BASE;; k += BASE) {
    int d = *at < s.len ? digit_value(s.p[(*at)++]) : -1;
    uint32_t t = threshold(k, bias), add;
    if (d < 0 || __builtin_mul_overflow((uint32_t)d, weight, &add) || __builtin_add_overflow(*i, add, i))
      return false;
    if ((uint32_t)d < t)
      return true;
    if (__builtin_mul_overflow(weight, BASE - t, &weight))
      return false;
  }
}

bool punycode_decode(struct arena *a, struct str text, struct str *ret) {
  uint32_t points[PUNYCODE_MAX], n = 0, next = INITIAL_N, i = 0, bias = INITIAL_BIAS;
  ptrdiff_t hyphen = str_rfind_byte(text, '-');
  size_t at = hyphen > 0 ? (size_t)hyphen + 1 : 0;
  if (text.len > PUNYCODE_MAX)
    return false;
  for (size_t k = 0; hyphen > 0 && k < (size_t)hyphen; k++) {
    if ((unsigned char)text.p[k] >= 0x80)
      return false;
    points[n++] = (unsigned char)text.p[k];
  }
  while (at < text.len) {
    uint32_t before = i;
    if (n == PUNYCODE_MAX || !read_number(text, &at, bias, &i))
      return false;
    bias = adapt(i - before, n + 1, before == 0);
    if (__builtin_add_overflow(next, i / (n + 1), &next) || next > 0x10ffff || (next >= 0xd800 && next < 0xe000))
      return false;
    i %= n + 1;
    memmove(points + i + 1, points + i, (n - i) * sizeof *points);
    points[i++] = next;
    n++;
  }
  struct buf out;
  buf_init(&out, a, 4 * PUNYCODE_MAX);
  for (uint32_t k = 0; k < n; k++)
    add_utf8(&out, points[k]);
  *ret = buf_str(&out);
  ret->taint = text.taint;
  return true;
}
