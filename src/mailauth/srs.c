#include "mailauth/srs.h"

#include "base/ascii.h"
#include "base/buf.h"
#include "base/encode.h"
#include "base/hash.h"
#include "message/address.h"

#define CYCLE 1024
#define DAY 86400
#define KEY_LENGTH 20
#define ADDRESS_BYTES_MAX 1000

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

const char *srs_status_name(enum srs_status s) {
  static const char *const names[] = {"OK", "not SRS", "bad hash", "expired", "bad format", "db error"};
  return names[s];
}

/* ---- hash and timestamp ---- */

/* Of what an address says besides its hash, joined without separators, as Mail::SRS does it. */
static struct str whole_hash(struct arena *a, struct str secret, struct str text) {
  unsigned char raw[HASH_MAX];
  size_t n = hmac_bytes("sha1", secret, str_lower(a, text), raw);
  return str_slice(base64_encode(a, str_n((const char *)raw, n)), 0, SRS_HASH_MAX);
}

/* "/" and "+" would be trouble in a local part. */
static char safe(char c) { return c == '/' ? '_' : c == '+' ? '.' : c; }

static bool same_hash(struct str given, struct str whole) {
  unsigned char different = 0;
  for (size_t i = 0; i < given.len; i++)
    different |= (unsigned char)(ascii_lower(safe(given.p[i])) ^ ascii_lower(safe(whole.p[i])));
  return different == 0;
}

static bool hash_good(struct arena *a, const struct srs_rules *rules, struct str given, struct str text) {
  if (given.len < rules->hash_min || given.len == 0 || given.len > SRS_HASH_MAX)
    return false;
  for (size_t i = 0; i < rules->n_secrets; i++)
    if (same_hash(given, whole_hash(a, rules->secrets[i], text)))
      return true;
  return false;
}

static void add_hash(struct arena *a, const struct srs_rules *rules, struct str text, struct buf *b) {
  struct str whole = str_slice(whole_hash(a, rules->secrets[0], text), 0, (size_t)rules->hash_length);
  for (size_t i = 0; i < whole.len; i++)
    buf_add_byte(b, safe(whole.p[i]));
  buf_add_byte(b, '=');
}

static int digit_of(char c) {
  const char *p = c ? strchr(digits, ascii_upper(c)) : NULL;
  return p ? (int)(p - digits) : -1;
}

/* ---- the forms ---- */

static bool is_separator(char c) { return c == '=' || c == '-' || c == '+'; }
static bool has_tag(struct str local, const char *tag) {
  return local.len > 5 && str_ieq_c(str_slice(local, 0, 4), tag) && is_separator(local.p[4]);
}

static struct str finish(struct arena *a, struct buf *b, bool quoted, struct str alias) {
  struct str local = buf_str(b);
  struct str text = str_printf(a, "%s%.*s%s@%.*s", quoted ? "\"" : "", STRF(local), quoted ? "\"" : "", STRF(alias));
  text.taint = str_taint_join(local.taint, alias.taint);
  return text;
}

/* "SRS1=HASH=first.host==HASH=TT=…": who was first and what it made of the address; those between are left out. */
static enum srs_status guard(struct arena *a, const struct srs_rules *rules, struct str host, struct str rest, bool quoted,
    struct str alias, struct str *ret) {
  struct buf b;
  buf_init(&b, a, ADDRESS_BYTES_MAX);
  buf_add_c(&b, "SRS1=");
  if (rules->use_hash)
    add_hash(a, rules, str_cat(a, host, rest), &b);
  buf_add(&b, host);
  buf_add_byte(&b, '=');
  buf_add(&b, rest);
  if (b.overflow)
    return SRS_BAD_FORMAT;
  *ret = finish(a, &b, quoted, alias);
  return SRS_OK;
}

/* The fields of "SRS1=HASH=host=rest", where rest begins with the first host's separator. */
static bool cut_guarded(const struct srs_rules *rules, struct str local, struct str *hash, struct str *host, struct str *rest) {
  *rest = str_from(local, 5);
  *hash = rules->use_hash ? str_cut(rest, '=') : STR_EMPTY;
  *host = str_is_set(*rest) ? str_cut(rest, '=') : STR_EMPTY;
  return host->len > 0 && str_is_set(*rest) && rest->len > 1 && is_separator(rest->p[0]);
}

enum srs_status srs_forward(struct arena *a, const struct srs_rules *rules, struct str local, struct str domain, struct str alias,
    int64_t now, struct str *ret) {
  struct buf b;
  struct str hash, host, rest;
  bool quoted = local.len >= 2 && local.p[0] == '"' && local.p[local.len - 1] == '"';
  if (quoted)
    local = str_slice(local, 1, local.len - 1);
  if (has_tag(local, "SRS0"))
    return guard(a, rules, domain, str_from(local, 4), quoted, alias, ret);
  if (has_tag(local, "SRS1") && cut_guarded(rules, local, &hash, &host, &rest))
    return guard(a, rules, host, rest, quoted, alias, ret);
  if (local.len == 0 || local.len > SRS_LOCAL_MAX || domain.len == 0 || str_find_byte(domain, '=') >= 0)
    return SRS_BAD_FORMAT;
  unsigned day = (unsigned)(now / DAY % CYCLE);
  struct str stamp = rules->use_timestamp ? str_printf(a, "%c%c", digits[day >> 5], digits[day & 31]) : STR_EMPTY;
  buf_init(&b, a, ADDRESS_BYTES_MAX);
  buf_add_c(&b, "SRS0=");
  if (rules->use_hash)
    add_hash(a, rules, str_cat(a, stamp, str_cat(a, domain, local)), &b);
  buf_add(&b, stamp);
  if (stamp.len > 0)
    buf_add_byte(&b, '=');
  buf_add(&b, domain);
  buf_add_byte(&b, '=');
  buf_add(&b, local);
  if (b.overflow)
    return SRS_BAD_FORMAT;
  *ret = finish(a, &b, quoted, alias);
  return SRS_OK;
}

static enum srs_status unguard(struct arena *a, const struct srs_rules *rules, struct str local, struct str *ret) {
  struct str hash, host, rest;
  if (!cut_guarded(rules, local, &hash, &host, &rest))
    return SRS_BAD_FORMAT;
  if (rules->use_hash && !hash_good(a, rules, hash, str_cat(a, host, rest)))
    return SRS_BAD_HASH;
  struct str inner = str_cat(a, STR("SRS0"), rest);
  *ret = str_cat(a, address_quote_local_part(a, inner), str_cat(a, STR("@"), host));
  return SRS_OK;
}

enum srs_status srs_reverse(struct arena *a, const struct srs_rules *rules, struct str local, int64_t now, struct str *ret) {
  if (has_tag(local, "SRS1"))
    return unguard(a, rules, local, ret);
  if (!has_tag(local, "SRS0"))
    return SRS_NOT;
  struct str rest = str_from(local, 5), hash = STR_EMPTY, stamp = STR_EMPTY;
  if (rules->use_hash)
    hash = str_cut(&rest, '=');
  if (rules->use_timestamp && str_is_set(rest))
    stamp = str_cut(&rest, '=');
  struct str domain = str_is_set(rest) ? str_cut(&rest, '=') : STR_EMPTY;
  int high = stamp.len == 2 ? digit_of(stamp.p[0]) : -1, low = stamp.len == 2 ? digit_of(stamp.p[1]) : -1;
  if (domain.len == 0 || !str_is_set(rest) || rest.len == 0 || rest.len > SRS_LOCAL_MAX ||
      (rules->use_timestamp && (high < 0 || low < 0)))
    return SRS_BAD_FORMAT;
  if (rules->use_hash && !hash_good(a, rules, hash, str_cat(a, stamp, str_cat(a, domain, rest))))
    return SRS_BAD_HASH;
  if (rules->use_timestamp && (now / DAY - (high << 5 | low)) % CYCLE > rules->max_age)
    return SRS_EXPIRED;
  *ret = str_cat(a, address_quote_local_part(a, rest), str_cat(a, STR("@"), domain));
  return SRS_OK;
}

/* ---- with a database ---- */

struct str srs_key(struct arena *a, const struct srs_rules *rules, struct str address) {
  struct str hex = hmac_hex(a, "sha256", rules->n_secrets > 0 ? rules->secrets[0] : STR_EMPTY, address);
  return str_untainted(str_slice(hex, 0, KEY_LENGTH));
}

struct str srs_key_of(struct str local) {
  return has_tag(local, "SRS0") && str_find_byte(str_from(local, 5), '=') < 0 ? str_from(local, 5) : STR_UNSET;
}
