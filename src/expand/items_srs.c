/* ${srs_encode…} and the condition inbound_srs: SRS0=HHHH=TT=domain=local, where HHHH begins the HMAC-MD5 of local@domain in
lower case and TT is the day it was made on, modulo 1024, in two digits of base 32. In the form "v2" the hash is of eight digits of
base 32, from HMAC-SHA256 over the day, too, so that nobody can give an old address a new date; and what is SRS0 of another site
becomes SRS1=HASH=site==HASH=TT=domain=local. */
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
#define SRS_HASH_LENGTH_2 8

static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";

static unsigned today(void) { return (unsigned)(time(NULL) / 86400 % SRS_CYCLE); }

/* Of the address as it was given. */
static struct str srs_hash(struct ctx *c, struct str secret, struct str address) {
  struct str hex = hmac_hex(c->arena, "md5", secret, str_lower(c->arena, address));
  return str_untainted(str_slice(hex, 0, SRS_HASH_LENGTH));
}

static struct str srs_hash_2(struct ctx *c, struct str secret, unsigned day, struct str address) {
  unsigned char raw[HASH_MAX];
  char text[SRS_HASH_LENGTH_2];
  uint64_t bits = 0;
  struct str what = str_printf(c->arena, "%u %.*s", day, STRF(str_lower(c->arena, address)));
  if (hmac_bytes("sha256", secret, what, raw) < SRS_HASH_LENGTH_2)
    return STR_EMPTY;
  for (int i = 0; i < 5; i++)
    bits = bits << 8 | raw[i];
  for (int i = 0; i < SRS_HASH_LENGTH_2; i++)
    text[i] = digits[bits >> 5 * (SRS_HASH_LENGTH_2 - 1 - i) & 31];
  return str_untainted(str_dup(c->arena, str_n(text, sizeof text)));
}

/* Is it a hash of either form? Case does not count: mailers in between may change it. */
static bool hash_good(struct ctx *c, struct str secret, struct str hash, unsigned day, struct str address) {
  struct str want = hash.len == SRS_HASH_LENGTH ? srs_hash(c, secret, address) : srs_hash_2(c, secret, day, address);
  unsigned char different = hash.len != want.len || want.len == 0;
  for (size_t i = 0; !different && i < hash.len; i++)
    different |= (unsigned char)(ascii_lower(hash.p[i]) ^ ascii_lower(want.p[i]));
  return different == 0;
}

static bool is_quoted(struct str local) { return local.len >= 2 && local.p[0] == '"' && local.p[local.len - 1] == '"'; }

/* {secret}{return path}{domain}, with the form in front of them. */
struct srs_encode_item {
  bool v2;
  const struct expr *arg[3];
};

static const void *compile_srs_encode(struct expand_compiler *k, const struct expand_item_def *def) {
  struct srs_encode_item *s = arena_new_of(k->arena, struct srs_encode_item);
  if (k->p < k->end && *k->p == ',') {
    k->p++;
    struct str option = compile_name(k, "_");
    if (!str_eq_c(option, "v2"))
      return expand_compile_error(k, "bad option '%.*s' for srs_encode", STRF(option.len > 0 ? option : str_slice(expand_rest(k), 0, 1)));
    s->v2 = true;
  }
  for (int i = 0; i < 3; i++) {
    if (!expand_accept(k, '{'))
      return expand_compile_error(k, "Not enough arguments for 'srs_encode' (min is 3)");
    if ((s->arg[i] = expand_compile_string(k)) == NULL)
      return NULL;
  }
  if (expand_accept(k, '}'))
    return s;
  return expand_compile_error(k, expand_peek(k) == '{' ? "Too many arguments for 'srs_encode' (max is 3)" : "missing '}' after 'srs_encode'");
}

/* The local part, without quotes, that leads bounces back to local@domain. */
static struct str srs_local_part(struct ctx *c, const struct srs_encode_item *s, struct str secret, struct str local, struct str domain,
    struct str whole) {
  unsigned day = today();
  bool again = s->v2 && str_istarts(local, STR("SRS1=")), guarded = again || (s->v2 && str_istarts(local, STR("SRS0=")));
  if (!guarded)
    return str_printf(c->arena, "SRS0=%.*s=%c%c=%.*s=%.*s", STRF(s->v2 ? srs_hash_2(c, secret, day, whole) : srs_hash(c, secret, whole)),
        digits[day >> 5], digits[day & 31], STRF(domain), STRF(local));
  /* Bounces go back to who made the SRS0 address, however many sites are between. */
  struct str rest = str_from(local, 5);
  if (again) {
    (void)str_cut(&rest, '=');
    domain = str_is_set(rest) ? str_cut(&rest, '=') : STR_EMPTY;
    rest = str_is_set(rest) ? str_from(rest, rest.len > 0 && rest.p[0] == '=') : STR_EMPTY;
  }
  struct str hash = srs_hash_2(c, secret, SRS_CYCLE, str_printf(c->arena, "%.*s=%.*s", STRF(domain), STRF(rest)));
  return str_printf(c->arena, "SRS1=%.*s=%.*s==%.*s", STRF(hash), STRF(domain), STRF(rest));
}

static int eval_srs_encode(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct srs_encode_item *s = args->custom;
  struct mail_address address;
  struct str error, value[3];
  for (int i = 0; i < 3; i++) {
    int rc = expand_arg(c, s->arg[i], &value[i]);
    if (rc != 0)
      return rc;
  }
  if (value[1].len == 0)
    return 0;
  if (address_parse(c->arena, value[1], address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8), &address, &error) != 0)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  struct str local = address.local_part;
  bool quoted = is_quoted(local);
  if (quoted)
    local = str_slice(local, 1, local.len - 1);
  struct str made = srs_local_part(c, s, value[0], local, address.domain, value[1]);
  made.taint = str_taint_join(made.taint, value[1].taint);
  buf_add_c(out, quoted ? "\"" : "");
  buf_add(out, made);
  buf_add_c(out, quoted ? "\"@" : "@");
  buf_add(out, value[2]);
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

/* "SRS1=HASH=site==…": the SRS0 address of that site. */
static bool decode_srs1(struct ctx *c, struct str text, struct str secret) {
  struct str rest = str_from(text, 5), hash = str_cut(&rest, '='), site = str_is_set(rest) ? str_cut(&rest, '=') : STR_EMPTY;
  if (secret.len == 0 || site.len == 0 || !str_is_set(rest) || rest.len == 0 || rest.p[0] != '=')
    return false;
  rest = str_from(rest, 1);
  if (hash.len != SRS_HASH_LENGTH_2 || !hash_good(c, secret, hash, SRS_CYCLE, str_printf(c->arena, "%.*s=%.*s", STRF(site), STRF(rest))))
    return false;
  c->vars.srs_recipient = str_printf(c->arena, "SRS0=%.*s@%.*s", STRF(rest), STRF(site));
  c->vars.srs_recipient.taint = text.taint;
  return true;
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
  if (str_istarts(text, STR("SRS1="))) {
    *ret = decode_srs1(c, text, secret);
    return 0;
  }
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
  bool is_plain = !needs_quotes(p.local) && hash_good(c, secret, p.hash, p.day, plain);
  *ret = is_plain || hash_good(c, secret, p.hash, p.day, quoted);
  if (!*ret)
    return 0;
  struct str address = str_lower(c->arena, is_plain ? plain : quoted);
  address.taint = text.taint;
  c->vars.srs_recipient = address;
  return 0;
}

const struct expand_item_def srs_items[] = {
  {"srs_encode", 3, 3, EXPAND_LAZY, compile_srs_encode, eval_srs_encode},
  {0},
};

const struct expand_condition_def srs_conditions[] = {
  {"inbound_srs", 0, 0, EXPAND_LAZY, compile_inbound_srs, eval_inbound_srs},
  {0},
};
