/* ${srs_encode…} and the condition inbound_srs: SRS0=HHHH=TT=domain=local, where HHHH begins the HMAC-MD5 of local@domain in
lower case and TT is the day it was made on, modulo 1024, in two digits of base 32. */
#include <time.h>

#include "base/ascii.h"
#include "base/hash.h"
#include "expand/conditions.h"
#include "expand/internal.h"
#include "expand/items.h"
#include "message/address.h"

#define SRS_DAYS 10
#define SRS_CYCLE 1024
#define SRS_HASH_LENGTH 4

static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";

static unsigned today(void) { return (unsigned)(time(NULL) / 86400 % SRS_CYCLE); }

/* Of the address as it was given. */
static struct str srs_hash(struct ctx *c, struct str secret, struct str address) {
  struct str hex = hmac_hex(c->arena, "md5", secret, str_lower(c->arena, address));
  return str_untainted(str_slice(hex, 0, SRS_HASH_LENGTH));
}

static int eval_srs_encode(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct mail_address address;
  struct str error;
  if (args->value[1].len == 0)
    return 0;
  if (address_parse(c->arena, args->value[1], address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8), &address, &error) != 0)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  struct str local = address.local_part, domain = address.domain;
  bool quoted = local.len >= 2 && local.p[0] == '"' && local.p[local.len - 1] == '"';
  if (quoted)
    local = str_slice(local, 1, local.len - 1);
  unsigned day = today();
  buf_printf(out, "%sSRS0=%.*s=%c%c=", quoted ? "\"" : "", STRF(srs_hash(c, args->value[0], args->value[1])),
      digits[day >> 5], digits[day & 31]);
  buf_add(out, domain);
  buf_add_byte(out, '=');
  buf_add(out, local);
  buf_add_c(out, quoted ? "\"@" : "@");
  buf_add(out, args->value[2]);
  return 0;
}

struct srs_parts {
  struct str hash, domain, local;
  unsigned day;
};

static int digit_value(char ch) {
  const char *p = strchr(digits, ascii_lower(ch));
  return p == NULL || ch == '\0' ? -1 : (int)(p - digits);
}

static bool srs_parse(struct str s, struct srs_parts *ret) {
  if (!str_istarts(s, STR("SRS0=")))
    return false;
  s = str_from(s, 5);
  ret->hash = str_cut(&s, '=');
  struct str day = str_is_set(s) ? str_cut(&s, '=') : STR_EMPTY;
  int high = day.len == 2 ? digit_value(day.p[0]) : -1, low = day.len == 2 ? digit_value(day.p[1]) : -1;
  if (ret->hash.len == 0 || high < 0 || low < 0 || !str_is_set(s))
    return false;
  ret->day = (unsigned)(high << 5 | low);
  ret->domain = str_cut(&s, '=');
  ret->local = s;
  return str_is_set(s);
}

/* Does a local part hold what may only stand in quotes? */
static bool needs_quotes(struct str local) {
  for (size_t i = 0; i < local.len; i++) {
    char ch = local.p[i];
    if ((ch == '.' && (i == 0 || i + 1 == local.len || local.p[i + 1] == '.')) ||
        (!ascii_is_alnum(ch) && (unsigned char)ch < 128 && strchr("!#$%&'*+-/=?^_`{|}~.", ch) == NULL))
      return true;
  }
  return local.len == 0;
}

/* {local part}{secret} */
struct srs_condition {
  const struct expr *local, *secret;
};

static const void *compile_inbound_srs(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct srs_condition *s = arena_new_of(k->arena, struct srs_condition);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "too few arguments or bracketing error for inbound_srs");
  if ((s->local = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "too few arguments or bracketing error for inbound_srs");
  return (s->secret = expand_compile_string(k)) == NULL ? NULL : s;
}

/* With an empty secret only the form is looked at, and $srs_recipient stays empty. */
static int eval_inbound_srs(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct srs_condition *s = args->custom;
  struct str text, secret;
  struct srs_parts p;
  int rc = expand_arg(c, s->local, &text);
  if (rc == 0)
    rc = expand_arg(c, s->secret, &secret);
  if (rc != 0)
    return rc;
  *ret = false;
  c->vars.srs_recipient = STR_UNSET;
  if (!srs_parse(text, &p))
    return 0;
  *ret = true;
  if (secret.len == 0)
    return 0;
  if ((today() - p.day + SRS_CYCLE) % SRS_CYCLE > SRS_DAYS)
    return *ret = false, 0;
  /* A local part may have been quoted without need. */
  struct str plain = str_printf(c->arena, "%.*s@%.*s", STRF(p.local), STRF(p.domain));
  struct str quoted = str_printf(c->arena, "\"%.*s\"@%.*s", STRF(p.local), STRF(p.domain));
  bool is_plain = !needs_quotes(p.local) && str_eq(p.hash, srs_hash(c, secret, plain));
  *ret = is_plain || str_eq(p.hash, srs_hash(c, secret, quoted));
  if (!*ret)
    return 0;
  struct str address = str_lower(c->arena, is_plain ? plain : quoted);
  address.taint = text.taint;
  c->vars.srs_recipient = address;
  return 0;
}

const struct expand_item_def srs_items[] = {
  {"srs_encode", 3, 3, 0, NULL, eval_srs_encode},
  {0},
};

const struct expand_condition_def srs_conditions[] = {
  {"inbound_srs", 0, 0, EXPAND_LAZY, compile_inbound_srs, eval_inbound_srs},
  {0},
};
