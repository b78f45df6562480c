#include "hints/records.h"

static bool next_number(struct str *rest, int64_t *ret) {
  if (!str_is_set(*rest))
    return false;
  return str_to_i64(str_cut(rest, ' '), ret);
}

struct str hint_retry_encode(struct arena *a, const struct hint_retry *r) {
  return str_printf(a, "%d %d %lld %lld %lld %d %.*s", r->basic_errno, r->more_errno, (long long)r->first_failed,
    (long long)r->last_try, (long long)r->next_try, r->expired, STRF(r->text));
}

bool hint_retry_decode(struct str value, struct hint_retry *ret) {
  int64_t v[6];
  struct str rest = value;
  for (int i = 0; i < 6; i++)
    if (!next_number(&rest, &v[i]))
      return false;
  *ret = (struct hint_retry){(int)v[0], (int)v[1], v[2], v[3], v[4], v[5] != 0, str_is_set(rest) ? rest : STR_EMPTY};
  return true;
}

struct str hint_callout_encode(struct arena *a, const struct hint_callout *r) {
  return str_printf(a, "%d %d %lld %d %lld %d %lld", r->is_domain, (int)r->result, (long long)r->stamp, (int)r->postmaster,
    (long long)r->postmaster_stamp, (int)r->random, (long long)r->random_stamp);
}

bool hint_callout_decode(struct str value, struct hint_callout *ret) {
  int64_t v[7];
  struct str rest = value;
  for (int i = 0; i < 7; i++)
    if (!next_number(&rest, &v[i]))
      return false;
  for (int i = 1; i < 6; i += 2)
    if (v[i] < HINT_UNKNOWN || v[i] > HINT_NOT_TESTED)
      return false;
  *ret = (struct hint_callout){.is_domain = v[0] != 0, .result = (enum hint_answer)v[1], .stamp = v[2],
    .postmaster = (enum hint_answer)v[3], .postmaster_stamp = v[4], .random = (enum hint_answer)v[5], .random_stamp = v[6]};
  return true;
}
