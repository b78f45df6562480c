/* What strings mean as numbers and truth values. */
#include "expand/expand.h"
#include "expand/values.h"

#include "base/ascii.h"

int expand_to_int(struct ctx *c, struct str text, int64_t *ret) {
  struct str s = str_ltrim(text);
  if (s.len == 0) {
    *ret = 0;
    return 0;
  }
  size_t i = s.p[0] == '-' || s.p[0] == '+';
  if (i == s.len || !ascii_is_digit(s.p[i]))
    return ctx_fail(c, OUTCOME_ERROR, "integer expected but \"%.*s\" found", STRF(text));
  int64_t v = 0;
  bool overflow = false, negative = s.p[0] == '-';
  /* Summed up negative: the range has one more number on that side. */
  for (; i < s.len && ascii_is_digit(s.p[i]); i++)
    overflow |= __builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, s.p[i] - '0', &v);
  if (i < s.len) {
    int shift = 0;
    switch (ascii_lower(s.p[i])) {
    case 'k': shift = 10; break;
    case 'm': shift = 20; break;
    case 'g': shift = 30; break;
    default: break;
    }
    i += shift != 0;
    overflow |= __builtin_mul_overflow(v, (int64_t)1 << shift, &v);
  }
  if (!negative)
    overflow |= __builtin_mul_overflow(v, -1, &v);
  if (overflow)
    return ctx_fail(c, OUTCOME_ERROR, "absolute value of integer \"%.*s\" is too large (overflow)", STRF(text));
  if (str_trim(str_from(s, i)).len > 0)
    return ctx_fail(c, OUTCOME_ERROR, "invalid integer \"%.*s\"", STRF(text));
  *ret = v;
  return 0;
}

static bool is_number(struct str s, bool *ret_nonzero) {
  size_t i = s.len > 0 && s.p[0] == '-';
  if (i == s.len)
    return false;
  *ret_nonzero = false;
  for (; i < s.len; i++) {
    if (!ascii_is_digit(s.p[i]))
      return false;
    *ret_nonzero |= s.p[i] != '0';
  }
  return true;
}

bool expand_truth(struct str value, bool *ret) {
  struct str s = str_trim(value);
  if (s.len == 0 || str_ieq_c(s, "false") || str_ieq_c(s, "no"))
    *ret = false;
  else if (str_ieq_c(s, "true") || str_ieq_c(s, "yes"))
    *ret = true;
  else
    return is_number(s, ret);
  return true;
}

bool expand_truth_lax(struct str value) {
  struct str s = str_trim(value);
  return s.len > 0 && !str_ieq_c(s, "false") && !str_ieq_c(s, "no") && !str_eq_c(s, "0");
}

int expand_option_bool(struct ctx *c, const struct option_expr *o, const char *what, bool *ret) {
  struct str value;
  int rc = expand_option(c, o, &value);
  if (rc == OUTCOME_FORCED || (rc == 0 && !str_is_set(value)))
    return 0;
  if (rc != 0)
    return ctx_fail(c, rc, "failed to expand \"%s\" option: %.*s", what, STRF(c->error));
  if (str_ieq_c(value, "true") || str_ieq_c(value, "yes"))
    *ret = true;
  else if (str_ieq_c(value, "false") || str_ieq_c(value, "no") || value.len == 0)
    *ret = false;
  else
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not a valid value for the \"%s\" option", STRF(value), what);
  return 0;
}

int expand_option_int(struct ctx *c, const struct option_expr *o, const char *what, int64_t *ret) {
  struct str value;
  int rc = expand_option(c, o, &value);
  if (rc == OUTCOME_FORCED || (rc == 0 && !str_is_set(value)))
    return 0;
  if (rc == 0)
    rc = expand_to_int(c, value, ret);
  return rc != 0 ? ctx_fail(c, rc, "failed to expand \"%s\" option: %.*s", what, STRF(c->error)) : 0;
}
