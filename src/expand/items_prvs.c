/* ${prvs…} and ${prvscheck…}: BATV addresses, prvs=KDDDSSSSSS=local@domain, where K numbers the key, DDD is the last day of
validity (days since 1970, last three digits) and SSSSSS begins the HMAC-SHA1 of KDDD and the address. */
#include "expand/items.h"

#include <time.h>

#include "base/ascii.h"
#include "base/hash.h"
#include "expand/internal.h"

#define PRVS_DAYS 7

static struct str prvs_signature(struct ctx *c, char key_number, struct str days, struct str address, struct str secret) {
  struct str text = str_printf(c->arena, "%c%.*s%.*s", key_number, STRF(days), STRF(address));
  return str_untainted(str_slice(hmac_hex(c->arena, "sha1", secret, text), 0, 6));
}

static int eval_prvs(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str address = args->value[0], key = args->n > 2 ? args->value[2] : STR("0");
  ptrdiff_t at = str_rfind_byte(address, '@');
  if (at < 1 || (size_t)at + 1 == address.len)
    return ctx_fail(c, OUTCOME_ERROR, "prvs first argument must be a qualified email address");
  if (key.len != 1 || !ascii_is_digit(key.p[0]))
    return ctx_fail(c, OUTCOME_ERROR, "prvs third argument must be a single digit");
  struct str days = str_printf(c->arena, "%03lld", (long long)((time(NULL) / 86400 + PRVS_DAYS) % 1000));
  struct str signature = prvs_signature(c, key.p[0], days, address, args->value[1]);
  buf_printf(out, "prvs=%c%.*s%.*s=", key.p[0], STRF(days), STRF(signature));
  buf_add(out, address);
  return 0;
}

/* Takes prvs=… apart; false: it is none. */
static bool prvs_parse(struct str s, char *key, struct str *days, struct str *signature, struct str *address) {
  if (s.len < 16 || !str_istarts(s, STR("prvs=")) || s.p[15] != '=')
    return false;
  for (size_t i = 5; i < 15; i++)
    if (i < 9 ? !ascii_is_digit(s.p[i]) : !ascii_is_xdigit(s.p[i]))
      return false;
  *key = s.p[5];
  *days = str_slice(s, 6, 9);
  *signature = str_slice(s, 9, 15);
  *address = str_from(s, 16);
  ptrdiff_t at = str_rfind_byte(*address, '@');
  return at > 0 && (size_t)at + 1 < address->len;
}

static bool prvs_expired(struct str days) {
  int64_t until = (days.p[0] - '0') * 100 + (days.p[1] - '0') * 10 + (days.p[2] - '0');
  int64_t left = (until - time(NULL) / 86400 % 1000 + 1000) % 1000;
  return left > PRVS_DAYS;
}

static int eval_prvscheck(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct policy_vars *v = &c->vars;
  struct str text, days, signature, address, secret, result = STR_EMPTY;
  char key;
  if (args->n < 2)
    return ctx_fail(c, OUTCOME_ERROR, "Not enough arguments for 'prvscheck' (min is 1)");
  int rc = expand_arg(c, args->tree[0], &text);
  if (rc != 0)
    return rc;
  v->prvscheck_result = STR_UNSET;
  if (!prvs_parse(text, &key, &days, &signature, &address))
    return 0;
  v->prvscheck_address = address;
  v->prvscheck_keynum = str_printf(c->arena, "%c", key);
  rc = expand_arg(c, args->tree[1], &secret);
  if (rc == 0) {
    bool valid = str_ieq(signature, prvs_signature(c, key, days, address, secret)) && !prvs_expired(days);
    v->prvscheck_result = valid ? STR("1") : STR_UNSET;
    if (args->n > 2)
      rc = expand_arg(c, args->tree[2], &result);
  }
  if (rc == 0)
    buf_add(out, result.len > 0 ? result : address);
  v->prvscheck_address = v->prvscheck_keynum = STR_UNSET;
  return rc;
}

const struct expand_item_def prvs_items[] = {
  {"prvs", 2, 3, 0, NULL, eval_prvs},
  {"prvscheck", 1, 3, EXPAND_LAZY, NULL, eval_prvscheck},
  {0},
};
