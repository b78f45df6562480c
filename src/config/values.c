#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include "base/ascii.h"
#include "base/buf.h"
#include "config/value.h"

static bool digit_in(char c, unsigned base) { return (unsigned)ascii_hex_value(c) < base; }

/* Digits of one base; the number of bytes used. */
static size_t digits(struct str s, unsigned base, int64_t *ret, bool *overflow) {
  size_t i = 0;
  *ret = 0;
  for (; i < s.len && digit_in(s.p[i], base); i++)
    if (__builtin_mul_overflow(*ret, (int64_t)base, ret) || __builtin_add_overflow(*ret, ascii_hex_value(s.p[i]), ret))
      *overflow = true;
  return i;
}

static int unit_shift(char c, bool wide) {
  static const char units[] = "KMGTPEZ";
  const char *u = memchr(units, ascii_upper(c), wide ? 7 : 3);
  return u == NULL ? 0 : (int)(u - units + 1) * 10;
}

enum value_result value_int_limited(struct str s, bool wide, int64_t *ret) {
  bool minus = s.len > 0 && s.p[0] == '-', overflow = false;
  size_t i = minus || (s.len > 0 && s.p[0] == '+');
  int64_t n = 0;
  if (i >= s.len || !ascii_is_digit(s.p[i]))
    return VALUE_BAD;
  if (s.p[i] == '0' && i + 2 < s.len && (s.p[i + 1] | 32) == 'x' && ascii_is_xdigit(s.p[i + 2]))
    i += 2 + digits(str_from(s, i + 2), 16, &n, &overflow);
  else
    i += digits(str_from(s, i), s.p[i] == '0' ? 8 : 10, &n, &overflow);
  for (int shift = i < s.len ? unit_shift(s.p[i], wide) : 0; shift > 0; shift -= 10)
    overflow |= __builtin_mul_overflow(n, INT64_C(1024), &n);
  if (i < s.len && unit_shift(s.p[i], wide) > 0)
    i++;
  if (overflow || (!wide && n > INT_MAX))
    return VALUE_OVERFLOW;
  if (i < s.len)
    return VALUE_EXTRA;
  *ret = minus ? -n : n;
  return VALUE_OK;
}

enum value_result value_int(struct str s, int64_t *ret) { return value_int_limited(s, true, ret); }

enum value_result value_octal(struct str s, int64_t *ret) {
  bool overflow = false;
  int64_t n;
  size_t used = digits(s, 8, &n, &overflow);
  if (used == 0)
    return VALUE_BAD;
  if (overflow || n > INT_MAX)
    return VALUE_OVERFLOW;
  if (used < s.len)
    return VALUE_EXTRA;
  *ret = n;
  return VALUE_OK;
}

enum value_result value_fixed(struct str s, int64_t *ret) {
  bool overflow = false;
  int64_t n;
  if (s.len > 1 && s.p[0] == '-' && ascii_is_digit(s.p[1]))
    return VALUE_OVERFLOW; /* as Exim says it: what has a sign is out of range */
  size_t i = digits(s, 10, &n, &overflow);
  if (i == 0)
    return VALUE_BAD;
  if (overflow || __builtin_mul_overflow(n, INT64_C(1000), &n) || n > INT_MAX * INT64_C(1000))
    return VALUE_OVERFLOW;
  if (i < s.len && s.p[i] == '.') {
    int64_t weight = 100;
    for (i++; i < s.len && ascii_is_digit(s.p[i]); i++, weight /= 10)
      n += (s.p[i] - '0') * weight;
  }
  if (i < s.len)
    return VALUE_EXTRA;
  *ret = n;
  return VALUE_OK;
}

enum value_result value_time(struct str s, int64_t *ret) {
  int64_t total = 0;
  if (s.len == 0)
    return VALUE_BAD;
  for (size_t i = 0; i < s.len;) {
    bool overflow = false;
    int64_t n, unit;
    size_t used = digits(str_from(s, i), 10, &n, &overflow);
    if (used == 0 || i + used >= s.len || overflow)
      return VALUE_BAD;
    i += used;
    switch (s.p[i++]) {
    case 's': unit = 1; break;
    case 'm': unit = 60; break;
    case 'h': unit = 3600; break;
    case 'd': unit = 86400; break;
    case 'w': unit = 604800; break;
    default: return VALUE_BAD;
    }
    if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(total, n, &total) || total > INT_MAX)
      return VALUE_OVERFLOW;
  }
  *ret = total;
  return VALUE_OK;
}

enum value_result value_bool(struct str s, bool *ret) {
  if (str_ieq_c(s, "yes") || str_ieq_c(s, "true"))
    *ret = true;
  else if (str_ieq_c(s, "no") || str_ieq_c(s, "false"))
    *ret = false;
  else
    return VALUE_BAD;
  return VALUE_OK;
}

struct str value_time_text(struct arena *a, int64_t t) {
  static const struct {
    int64_t seconds;
    char letter;
  } units[] = {{604800, 'w'}, {86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
  struct buf b;
  buf_init(&b, a, 64);
  if (t < 0) {
    buf_add_byte(&b, '-');
    t = t == INT64_MIN ? INT64_MAX : -t;
  }
  if (t == 0)
    buf_add(&b, STR("0s"));
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (t >= units[i].seconds)
      buf_printf(&b, "%lld%c", (long long)(t / units[i].seconds), units[i].letter);
    t %= units[i].seconds;
  }
  return buf_str(&b);
}

struct str value_size_text(struct arena *a, int64_t n) {
  static const char letters[] = "GMK";
  for (int i = 0, shift = 30; shift > 0; i++, shift -= 10)
    if (n != 0 && n % (INT64_C(1) << shift) == 0)
      return str_printf(a, "%lld%c", (long long)(n >> shift), letters[i]);
  return str_printf(a, "%lld", (long long)n);
}

struct str value_fixed_text(struct arena *a, int64_t n) {
  if (n < 0)
    return STR_EMPTY;
  if (n % 1000 == 0)
    return str_printf(a, "%lld.0", (long long)(n / 1000));
  struct str s = str_printf(a, "%lld.%03lld", (long long)(n / 1000), (long long)(n % 1000));
  while (s.p[s.len - 1] == '0')
    s.len--;
  return s;
}

/* One escape behind the backslash at s[i]; the index behind it. */
static size_t unescape(struct str s, size_t i, char *ret) {
  char c = i < s.len ? s.p[i] : '\\';
  unsigned value = 0;
  size_t n = 0;
  switch (c) {
  case 'n': *ret = '\n'; return i + 1;
  case 'r': *ret = '\r'; return i + 1;
  case 't': *ret = '\t'; return i + 1;
  case 'x':
    for (; n < 2 && i + 1 + n < s.len && ascii_is_xdigit(s.p[i + 1 + n]); n++)
      value = value * 16 + (unsigned)ascii_hex_value(s.p[i + 1 + n]);
    *ret = n > 0 ? (char)value : 'x';
    return i + 1 + n;
  default:
    for (; n < 3 && i + n < s.len && digit_in(s.p[i + n], 8); n++)
      value = value * 8 + (unsigned)ascii_hex_value(s.p[i + n]);
    *ret = n > 0 ? (char)value : c;
    return n > 0 ? i + n : i + 1;
  }
}

enum value_result value_unquote(struct arena *a, struct str s, struct str *ret, struct str *ret_rest) {
  struct buf b;
  buf_init(&b, a, (size_t)s.len + 1);
  b.taint = s.taint;
  for (size_t i = 1; i < s.len;) {
    char c = s.p[i++];
    if (c == '"') {
      *ret = buf_str(&b);
      *ret_rest = str_from(s, i);
      return VALUE_OK;
    }
    if (c == '\\')
      i = unescape(s, i, &c);
    buf_add_byte(&b, c);
  }
  return VALUE_BAD;
}

static bool all_digits(struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if (!ascii_is_digit(s.p[i]))
      return false;
  return s.len > 0;
}

/* A number that fits an id; (uid_t)-1 means "none" to the system and is refused. */
static bool numeric_id(struct str s, uint32_t *ret) {
  uint64_t n;
  if (!str_to_u64(s, &n) || n >= UINT32_MAX)
    return false;
  *ret = (uint32_t)n;
  return true;
}

/* Calls of getpw…_r want a buffer of unknown size. */
#define ID_BUFFER (64u << 10)

bool value_user(struct str name, uint32_t *ret_uid, int64_t *ret_gid) {
  char c_name[256];
  if (ret_gid != NULL)
    *ret_gid = -1;
  if (all_digits(name))
    return numeric_id(name, ret_uid);
  if (name.len == 0 || name.len >= sizeof c_name || memchr(name.p, 0, name.len) != NULL)
    return false;
  memcpy(c_name, name.p, name.len);
  c_name[name.len] = 0;
  char *buffer = xmalloc(ID_BUFFER);
  struct passwd pw, *found = NULL;
  bool ok = getpwnam_r(c_name, &pw, buffer, ID_BUFFER, &found) == 0 && found != NULL;
  if (ok) {
    *ret_uid = pw.pw_uid;
    if (ret_gid != NULL)
      *ret_gid = pw.pw_gid;
  }
  free(buffer);
  return ok;
}

bool value_group(struct str name, uint32_t *ret_gid) {
  char c_name[256];
  if (all_digits(name))
    return numeric_id(name, ret_gid);
  if (name.len == 0 || name.len >= sizeof c_name || memchr(name.p, 0, name.len) != NULL)
    return false;
  memcpy(c_name, name.p, name.len);
  c_name[name.len] = 0;
  char *buffer = xmalloc(ID_BUFFER);
  struct group gr, *found = NULL;
  bool ok = getgrnam_r(c_name, &gr, buffer, ID_BUFFER, &found) == 0 && found != NULL;
  if (ok)
    *ret_gid = gr.gr_gid;
  free(buffer);
  return ok;
}

bool value_list_next(struct arena *a, struct str *rest, char *sep, struct str *ret) {
  if (*sep == 0) {
    *sep = ':';
    struct str s = str_ltrim(*rest);
    if (s.len > 1 && s.p[0] == '<' && (ascii_is_punct(s.p[1]) || ascii_is_cntrl(s.p[1]))) {
      *sep = s.p[1];
      *rest = str_from(s, 2);
    }
  }
  while (rest->len > 0 && ascii_is_space(rest->p[0]) && rest->p[0] != *sep)
    *rest = str_from(*rest, 1);
  if (str_is_empty(*rest))
    return false;
  struct buf b;
  buf_init(&b, a, (size_t)rest->len + 1);
  b.taint = rest->taint;
  size_t i = 0;
  for (; i < rest->len; i++) {
    if (rest->p[i] == *sep) {
      if (*sep < 32 || i + 1 >= rest->len || rest->p[i + 1] != *sep)
        break;
      i++; /* doubled: itself */
    }
    buf_add_byte(&b, rest->p[i]);
  }
  *rest = str_from(*rest, i + 1);
  *ret = str_trim(buf_str(&b));
  return true;
}
