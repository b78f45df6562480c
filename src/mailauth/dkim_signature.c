/* DKIM-Signature fields (RFC 6376, section 3.5). */
#include "base/ascii.h"
#include "base/encode.h"
#include "mailauth/dkim.h"

#define COPIED_MAX 65536

static const struct {
  const char *name, *hash;
  enum dkim_key_type type;
} algorithms[] = {
  {"rsa-sha256", "sha256", DKIM_RSA}, {"rsa-sha1", "sha1", DKIM_RSA}, {"rsa-sha512", "sha512", DKIM_RSA},
  {"ed25519-sha256", "sha256", DKIM_ED25519}, {"ed25519-sha512", "sha512", DKIM_ED25519},
};

static void invalid(struct dkim_signature *s, enum dkim_reason why) {
  if (s->status == DKIM_INVALID)
    return;
  s->status = DKIM_INVALID;
  s->reason = why;
}

/* Values are compared with case (RFC 6376, section 3.2). */
static bool parse_canon(struct str s, enum canon *ret) {
  *ret = str_eq_c(s, "relaxed") ? CANON_RELAXED : CANON_SIMPLE;
  return *ret == CANON_RELAXED || str_eq_c(s, "simple");
}

static void take_algorithm(struct dkim_signature *s) {
  s->algorithm = tags_value(&s->tags, "a");
  if (!str_is_set(s->algorithm)) {
    invalid(s, DKIM_MALFORMED);
    return;
  }
  for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
    if (!str_eq_c(s->algorithm, algorithms[i].name))
      continue;
    s->key_type = algorithms[i].type;
    s->hash_name = algorithms[i].hash;
    s->md = EVP_get_digestbyname(algorithms[i].hash);
  }
  if (s->md == NULL)
    invalid(s, DKIM_ALGORITHM);
}

static void take_canon(struct dkim_signature *s) {
  struct str value = tags_value(&s->tags, "c");
  if (!str_is_set(value))
    return;
  struct str body = value, header = str_trim(str_cut(&body, '/'));
  if (!parse_canon(header, &s->header_canon) || (str_is_set(body) && !parse_canon(str_trim(body), &s->body_canon)))
    invalid(s, DKIM_MALFORMED);
}

/* Is the word in a list "a : b"? */
static bool names_hold(struct str list, const char *word) {
  while (str_is_set(list))
    if (str_ieq_c(str_trim(str_cut(&list, ':')), word))
      return true;
  return false;
}

/* A number of at most 12 digits; DKIM_NO_TIME: absent or none. */
static int64_t take_time(struct dkim_signature *s, const char *tag) {
  struct str value = tags_value(&s->tags, tag);
  uint64_t n;
  if (!str_is_set(value))
    return DKIM_NO_TIME;
  if (value.len > 12 || !str_to_u64(value, &n)) {
    invalid(s, DKIM_MALFORMED);
    return DKIM_NO_TIME;
  }
  return (int64_t)n;
}

static struct str take_base64(struct arena *a, const struct dkim_signature *s, const char *tag) {
  struct str value = tags_value(&s->tags, tag), decoded;
  return str_is_set(value) && base64_decode(a, tags_squeeze(a, value), false, &decoded) ? decoded : STR_EMPTY;
}

static bool is_domain(struct str s) {
  size_t label = 0;
  if (s.len == 0 || s.len > 253)
    return false;
  for (size_t i = 0; i < s.len; i++) {
    char ch = s.p[i];
    if (ch == '.' ? label == 0 : !ascii_is_alnum(ch) && ch != '-' && ch != '_' && (unsigned char)ch < 128)
      return false;
    label = ch == '.' ? 0 : label + 1;
    if (label > 63)
      return false;
  }
  return label > 0;
}

bool dkim_is_subdomain(struct str domain, struct str parent) {
  return str_iends(domain, parent) && (domain.len == parent.len || domain.p[domain.len - parent.len - 1] == '.');
}

static void take_names(struct arena *a, struct dkim_signature *s, enum dkim_field kind) {
  struct str domain = tags_value(&s->tags, "d"), selector = tags_value(&s->tags, "s"), identity = tags_value(&s->tags, "i");
  s->domain = str_is_set(domain) ? str_lower(a, tags_squeeze(a, domain)) : STR_EMPTY;
  s->selector = str_is_set(selector) ? tags_squeeze(a, selector) : STR_EMPTY;
  if (!is_domain(s->domain) || !is_domain(s->selector))
    invalid(s, DKIM_MALFORMED);
  if (str_is_set(identity) && kind == DKIM_FIELD) {
    ptrdiff_t at = str_rfind_byte(identity, '@');
    s->identity = identity;
    if (at < 0 || !dkim_is_subdomain(str_from(identity, (size_t)at + 1), s->domain))
      invalid(s, DKIM_MALFORMED);
  }
  struct str names = tags_value(&s->tags, "h");
  s->header_names = str_is_set(names) ? tags_squeeze(a, names) : STR_EMPTY;
  if (s->header_names.len == 0 && kind != DKIM_ARC_SEAL)
    invalid(s, DKIM_MALFORMED);
  s->covers_author = names_hold(s->header_names, "From");
}

static void take_length(struct dkim_signature *s) {
  struct str value = tags_value(&s->tags, "l");
  s->body_length = DKIM_BODY_ALL;
  if (str_is_set(value) && (value.len > 19 || !str_to_u64(value, &s->body_length)))
    invalid(s, DKIM_MALFORMED);
}

/* z=: "Name:value|Name:value", characters as "=2C" (dkim-quoted-printable). */
static struct str decode_copied(struct arena *a, struct str value) {
  struct buf b;
  struct str s = tags_squeeze(a, value);
  buf_init(&b, a, COPIED_MAX);
  b.taint = STR_TAINTED;
  for (size_t i = 0; i < s.len; i++) {
    int high = i + 2 < s.len ? ascii_hex_value(s.p[i + 1]) : -1, low = i + 2 < s.len ? ascii_hex_value(s.p[i + 2]) : -1;
    if (s.p[i] == '=' && high >= 0 && low >= 0) {
      buf_add_byte(&b, (char)(high << 4 | low));
      i += 2;
    } else {
      buf_add_byte(&b, s.p[i] == '|' ? '\n' : s.p[i]);
    }
  }
  return buf_str(&b);
}

struct dkim_signature *dkim_signature_parse(struct arena *a, struct str field) {
  return dkim_signature_parse_as(a, field, DKIM_FIELD);
}

struct dkim_signature *dkim_signature_parse_as(struct arena *a, struct str field, enum dkim_field kind) {
  struct dkim_signature *s = arena_new_of(a, struct dkim_signature);
  ptrdiff_t colon = str_find_byte(field, ':');
  s->field = field;
  s->body_length = DKIM_BODY_ALL;
  s->created = s->expires = DKIM_NO_TIME;
  s->identity = s->copied_headers = STR_UNSET;
  if (colon < 0 || !tags_parse(a, str_from(field, (size_t)colon + 1), &s->tags))
    return NULL;
  struct str version = tags_value(&s->tags, "v"), query = tags_value(&s->tags, "q"), copied = tags_value(&s->tags, "z");
  if (kind == DKIM_FIELD && !str_is_set(version))
    invalid(s, DKIM_MALFORMED);
  else if (kind == DKIM_FIELD && !str_eq_c(version, "1"))
    invalid(s, DKIM_VERSION);
  take_algorithm(s);
  take_canon(s);
  take_names(a, s, kind);
  take_length(s);
  s->created = take_time(s, "t");
  s->expires = take_time(s, "x");
  s->signature = take_base64(a, s, "b");
  s->body_digest = take_base64(a, s, "bh"); /* without one no body holds */
  if (s->signature.len == 0)
    invalid(s, DKIM_MALFORMED);
  if (kind != DKIM_FIELD && s->hash_name != NULL && strcmp(s->hash_name, "sha1") == 0)
    invalid(s, DKIM_ALGORITHM);
  if (str_is_set(copied))
    s->copied_headers = decode_copied(a, copied);
  if (str_is_set(query) && !names_hold(query, "dns/txt") && !names_hold(query, "dns")) /* the latter of an old draft */
    invalid(s, DKIM_MALFORMED);
  if (s->expires != DKIM_NO_TIME && s->created != DKIM_NO_TIME && s->expires < s->created)
    invalid(s, DKIM_MALFORMED);
  return s;
}

struct str dkim_key_name(struct arena *a, const struct dkim_signature *s) {
  struct str name = str_printf(a, "%.*s._domainkey.%.*s", STRF(s->selector), STRF(s->domain));
  return str_tainted(name);
}

const char *dkim_status_name(enum dkim_status s) {
  static const char *const names[] = {"none", "invalid", "fail", "pass"};
  return names[s];
}
