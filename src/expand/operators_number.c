/* Operators on numbers and times: eval, base32, base62, time_eval, randint. */
#include "expand/items.h"

#include "base/ascii.h"
#include "base/encode.h"
#include "base/random.h"
#include "base/time.h"
#include "core/build.h"
#include "expand/internal.h"

/* Recursive descent over C's operators; the text up to `p` is what an error says it has processed. */
struct calc {
  const char *start, *p, *end;
  bool decimal;
  int depth;
  const char *error;
};

static int64_t calc_or(struct calc *k, bool closing);

static char calc_peek(struct calc *k) {
  while (k->p < k->end && ascii_is_space(*k->p))
    k->p++;
  return k->p < k->end ? *k->p : '\0';
}

static int64_t calc_fail(struct calc *k, const char *error) {
  if (k->error == NULL)
    k->error = error;
  return 0;
}

static int64_t calc_digits(struct calc *k) {
  int base = 10;
  if (!k->decimal && *k->p == '0') {
    base = 8;
    if (k->p + 1 < k->end && ascii_lower(k->p[1]) == 'x') {
      base = 16;
      k->p += 2;
    }
  }
  int64_t v = 0;
  for (; k->p < k->end; k->p++) {
    int d = ascii_hex_value(*k->p);
    if (d < 0 || d >= base)
      break;
    if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
      v = INT64_MAX;
  }
  return v;
}

static int64_t calc_number(struct calc *k) {
  char c = calc_peek(k);
  if (c == '(') {
    k->p++;
    if (++k->depth > 100)
      return calc_fail(k, "too deeply nested");
    int64_t v = calc_or(k, true);
    k->depth--;
    if (k->error != NULL)
      return 0;
    if (calc_peek(k) != ')')
      return calc_fail(k, "expecting closing parenthesis");
    k->p++;
    return v;
  }
  if (!ascii_is_digit(c))
    return calc_fail(k, "expecting number or opening parenthesis");
  int64_t v = calc_digits(k);
  char unit = k->p < k->end ? ascii_lower(*k->p) : '\0';
  int shift = unit == 'k' ? 10 : unit == 'm' ? 20 : unit == 'g' ? 30 : 0;
  k->p += shift > 0;
  return (int64_t)((uint64_t)v << shift);
}

static int64_t calc_unary(struct calc *k) {
  char c = calc_peek(k);
  if (c != '-' && c != '+' && c != '~')
    return calc_number(k);
  if (++k->depth > 100)
    return calc_fail(k, "too deeply nested");
  k->p++;
  int64_t v = calc_unary(k);
  k->depth--;
  return c == '-' ? (int64_t)(0 - (uint64_t)v) : c == '~' ? ~v : v;
}

static int64_t calc_mult(struct calc *k) {
  int64_t x = calc_unary(k);
  for (char c; k->error == NULL && ((c = calc_peek(k)) == '*' || c == '/' || c == '%');) {
    k->p++;
    int64_t y = calc_unary(k);
    if (k->error != NULL)
      break;
    calc_peek(k);
    if (c == '*') {
      x = (int64_t)((uint64_t)x * (uint64_t)y);
    } else if (y == 0) {
      return calc_fail(k, c == '/' ? "divide by zero" : "modulo by zero");
    } else if (y == -1) {
      /* The one division that overflows: the most negative number by -1. */
      x = c == '/' ? (int64_t)(0 - (uint64_t)x) : 0;
    } else {
      x = c == '/' ? x / y : x % y;
    }
  }
  return x;
}

static int64_t calc_sum(struct calc *k) {
  int64_t x = calc_mult(k);
  for (char c; k->error == NULL && ((c = calc_peek(k)) == '+' || c == '-');) {
    k->p++;
    int64_t y = calc_mult(k);
    if (k->error == NULL && (c == '+' ? __builtin_add_overflow(x, y, &x) : __builtin_sub_overflow(x, y, &x)))
      return calc_fail(k, c == '+' ? "overflow in sum" : "overflow in difference");
  }
  return x;
}

static int64_t calc_shift(struct calc *k) {
  int64_t x = calc_sum(k);
  for (char c; k->error == NULL && ((c = calc_peek(k)) == '<' || c == '>') && k->p + 1 < k->end && k->p[1] == c;) {
    k->p += 2;
    uint64_t n = (uint64_t)calc_sum(k) & 63;
    x = c == '<' ? (int64_t)((uint64_t)x << n) : x >> n;
  }
  return x;
}

static int64_t calc_and(struct calc *k) {
  int64_t x = calc_shift(k);
  while (k->error == NULL && calc_peek(k) == '&') {
    k->p++;
    x &= calc_shift(k);
  }
  return x;
}

static int64_t calc_xor(struct calc *k) {
  int64_t x = calc_and(k);
  while (k->error == NULL && calc_peek(k) == '^') {
    k->p++;
    x ^= calc_and(k);
  }
  return x;
}

static int64_t calc_or(struct calc *k, bool closing) {
  int64_t x = calc_xor(k);
  while (k->error == NULL && calc_peek(k) == '|') {
    k->p++;
    x |= calc_xor(k);
  }
  if (k->error == NULL && !closing && calc_peek(k) != '\0')
    return calc_fail(k, "expecting operator");
  if (k->error == NULL && !closing && k->p < k->end)
    return calc_fail(k, "expecting operator");
  return x;
}

static int eval_eval(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct calc k = {.start = s.p, .p = s.p, .end = s.p + s.len, .decimal = def->name[4] != '\0'};
  int64_t v = calc_or(&k, false);
  if (k.error != NULL)
    return ctx_fail(c, OUTCOME_ERROR, "error in expression evaluation: %s (after processing \"%.*s\")", k.error,
        (int)(k.p - k.start), k.start);
  buf_printf(out, "%lld", (long long)v);
  return 0;
}

static bool decimal_u64(struct str s, uint64_t *ret) {
  *ret = 0;
  return s.len == 0 || str_to_u64(s, ret);
}

static int eval_base(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  uint64_t v;
  char text[16];
  if (!decimal_u64(s, &v))
    return ctx_fail(c, OUTCOME_ERROR, "argument for %s operator is \"%.*s\", which is not a decimal number", def->name,
        STRF(s));
  buf_add_n(out, text, def->name[4] == '3' ? base32_write(text, v) : base62_write(text, v, 6));
  return 0;
}

static int eval_based(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  bool is32 = def->name[4] == '3';
  uint64_t v = 0;
  if (s.len > 0 && !(is32 ? base32_read(s, &v) : base62_read(s, &v)))
    return ctx_fail(c, OUTCOME_ERROR, "argument for %s operator is \"%.*s\", which is not a base %s number", def->name,
        STRF(s), is32 ? "32" : "36/62");
  buf_printf(out, "%llu", (unsigned long long)v);
  return 0;
}

/* Units in any order, as often as one likes. */
static bool parse_interval(struct str s, int64_t *ret) {
  int64_t total = 0;
  if (s.len == 0)
    return false;
  for (size_t i = 0; i < s.len; i++) {
    int64_t n = 0;
    if (!ascii_is_digit(s.p[i]))
      return false;
    for (; i < s.len && ascii_is_digit(s.p[i]); i++)
      if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, s.p[i] - '0', &n))
        return false;
    if (i == s.len)
      return false;
    int64_t unit;
    switch (s.p[i]) {
    case 'w': unit = 604800; break;
    case 'd': unit = 86400; break;
    case 'h': unit = 3600; break;
    case 'm': unit = 60; break;
    case 's': unit = 1; break;
    default: return false;
    }
    if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(total, n, &total))
      return false;
  }
  *ret = total;
  return true;
}

static int eval_time_eval(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  int64_t v;
  if (!parse_interval(s, &v))
    return ctx_fail(
        c, OUTCOME_ERROR, "string \"%.*s\" is not an Exim time interval in \"time_eval\" operator", STRF(s));
  buf_printf(out, "%lld", (long long)v);
  return 0;
}

static int eval_time_interval(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  uint64_t v;
  if (!decimal_u64(s, &v) || v > INT64_MAX)
    return ctx_fail(c, OUTCOME_ERROR, "string \"%.*s\" is not a positive number in \"time_interval\" operator", STRF(s));
  buf_add(out, time_format_interval(c->arena, (int64_t)v));
  return 0;
}

static int eval_randint(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  int64_t max;
  int rc = s.len == 0 ? ctx_fail(c, OUTCOME_ERROR, "integer expected but \"\" found") : expand_to_int(c, s, &max);
  if (rc != 0)
    return rc;
  if (max < 0)
    return ctx_fail(c, OUTCOME_ERROR, "non-negative integer expected but \"%.*s\" found", STRF(s));
  uint64_t random = 0;
  if (build.fixed_random) {
    static uint64_t state;
    if (state == 0)
      state = build.random_seed;
    state = state * 6364136223846793005u + 1442695040888963407u;
    random = state >> 33;
    random = max == 0 ? 0 : random % (uint64_t)max;
  } else {
    random = random_below((uint64_t)max);
  }
  buf_printf(out, "%llu", (unsigned long long)random);
  return 0;
}

const struct expand_operator_def number_operators[] = {
  {"base32", 0, false, eval_base},
  {"base32d", 0, false, eval_based},
  {"base62", 0, false, eval_base},
  {"base62d", 0, false, eval_based},
  {"eval", 0, false, eval_eval},
  {"eval10", 0, false, eval_eval},
  {"randint", 0, false, eval_randint},
  {"time_eval", 0, false, eval_time_eval},
  {"time_interval", 0, false, eval_time_interval},
  {0},
};
