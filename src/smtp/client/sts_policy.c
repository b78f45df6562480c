#include "smtp/client/sts_policy.h"

#include "base/ascii.h"

static struct str next_line(struct str *rest) {
  struct str line = str_cut(rest, '\n');
  return line.len && line.p[line.len - 1] == '\r' ? str_slice(line, 0, line.len - 1) : line;
}

/* A domain name, or one with "*." in front. */
static bool is_pattern(struct str s) {
  if (s.len > 2 && s.p[0] == '*' && s.p[1] == '.')
    s = str_from(s, 2);
  if (s.len == 0 || s.len > 253 || s.p[0] == '.')
    return false;
  for (uint32_t i = 0; i < s.len; i++)
    if (!ascii_is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && (s.p[i] != '.' || s.p[i - 1] == '.'))
      return false;
  return true;
}

static bool mode_of(struct str s, enum sts_mode *ret) {
  *ret = str_eq_c(s, "enforce") ? STS_ENFORCE : str_eq_c(s, "testing") ? STS_TESTING : STS_NONE;
  return *ret != STS_NONE || str_eq_c(s, "none");
}

int sts_policy_parse(struct str text, struct sts_policy *ret) {
  bool version = false, mode = false, age = false;
  struct str rest = text;
  *ret = (struct sts_policy){.mode = STS_NONE};
  if (text.len > STS_POLICY_MAX)
    return -1;
  while (str_is_set(rest)) {
    struct str line = next_line(&rest), value = line, key = str_trim(str_cut(&value, ':'));
    if (str_trim(line).len == 0)
      continue;
    if (!str_is_set(value))
      return -1;
    value = str_trim(value);
    uint64_t seconds;
    if (str_eq_c(key, "version") && !version) {
      if (!str_eq_c(value, "STSv1"))
        return -1;
      version = true;
    } else if (str_eq_c(key, "mode") && !mode) { /* of several the first one counts */
      if (!mode_of(value, &ret->mode))
        return -1;
      mode = true;
    } else if (str_eq_c(key, "max_age") && !age) {
      if (value.len > 10 || !str_to_u64(value, &seconds))
        return -1;
      ret->max_age = seconds > STS_MAX_AGE ? STS_MAX_AGE : (int64_t)seconds;
      age = true;
    } else if (str_eq_c(key, "mx")) {
      if (!is_pattern(value) || ret->mx_n == STS_MX_MAX)
        return -1;
      ret->mx[ret->mx_n++] = value;
    }
  }
  return version && mode && age && (ret->mode == STS_NONE || ret->mx_n) ? 0 : -1;
}

bool sts_policy_allows(const struct sts_policy *p, struct str host) {
  for (size_t i = 0; i < p->mx_n; i++) {
    struct str pattern = p->mx[i], rest = host;
    if (str_ieq(pattern, host))
      return true;
    /* An asterisk stands for one whole label. */
    if (pattern.p[0] == '*' && str_cut(&rest, '.').len && str_is_set(rest) && str_ieq(str_from(pattern, 2), rest))
      return true;
  }
  return false;
}

int sts_record_parse(struct str text, struct str *ret_id) {
  struct str rest = text;
  *ret_id = STR_UNSET;
  if (!str_eq_c(str_trim(str_cut(&rest, ';')), "v=STSv1"))
    return -1;
  while (str_is_set(rest)) {
    struct str value = str_trim(str_cut(&rest, ';')), name = str_trim(str_cut(&value, '='));
    if (!str_eq_c(name, "id") || !str_is_set(value) || str_is_set(*ret_id))
      continue;
    value = str_trim(value);
    for (uint32_t i = 0; i < value.len; i++)
      if (!ascii_is_alnum(value.p[i]))
        return -2;
    if (value.len == 0 || value.len > STS_ID_MAX)
      return -2;
    *ret_id = value;
  }
  return str_is_set(*ret_id) ? 0 : -2;
}
