#include "mailauth/domainkeys.h"

#include <openssl/rsa.h>

#include "base/encode.h"
#include "base/map.h"
#include "mailauth/dkim.h"
#include "message/address.h"

#define RECORD_MAX 16384
#define KEY_MAX 8192

static struct str name_of(struct str field) {
  ptrdiff_t colon = str_find_byte(field, ':');
  return str_rtrim(str_slice(field, 0, colon < 0 ? 0 : (size_t)colon));
}

static struct str value_of(struct str field) { return str_from(field, (size_t)(str_find_byte(field, ':') + 1)); }

/* ---- who ---- */

static bool take_address(struct arena *a, struct str field, struct dk_author *ret) {
  struct address_walk w = {.text = value_of(field)};
  struct mail_address m;
  struct str error;
  if (!address_walk_next(&w) || address_parse(a, str_slice(w.text, w.from, w.to), ADDRESS_ALLOW_UTF8, &m, &error) != 0 ||
      m.domain.len == 0)
    return false;
  ret->address = str_tainted(m.address);
  ret->local_part = str_tainted(address_unquote_local_part(a, m.local_part));
  ret->domain = str_tainted(str_lower(a, m.domain));
  return true;
}

void dk_find_author(struct arena *a, const struct str *fields, size_t n, struct dk_author *ret) {
  static const char *const names[] = {"Sender", "From"};
  *ret = (struct dk_author){.address = STR_EMPTY, .local_part = STR_EMPTY, .domain = STR_EMPTY};
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; i < n; i++)
      if (str_ieq_c(name_of(fields[i]), names[k])) {
        if (take_address(a, fields[i], ret))
          ret->source = k == 0 ? DK_SOURCE_SENDER : DK_SOURCE_FROM;
        ret->field = i;
        return;
      }
}

/* ---- signatures ---- */

static bool names_hold(struct str names, struct str name) {
  while (str_is_set(names))
    if (str_ieq(str_trim(str_cut(&names, ':')), name))
      return true;
  return false;
}

bool dk_signature_parse(struct arena *a, struct str value, struct dk_signature *ret) {
  struct tag_list tags;
  if (!tags_parse(a, value, &tags))
    return false;
  struct str algorithm = tags_value(&tags, "a"), canon = tags_value(&tags, "c"), query = tags_value(&tags, "q"), b = tags_value(&tags, "b");
  struct str domain = tags_value(&tags, "d"), selector = tags_value(&tags, "s"), names = tags_value(&tags, "h");
  if ((str_is_set(algorithm) && !str_ieq_c(algorithm, "rsa-sha1")) || (str_is_set(query) && !str_ieq_c(query, "dns")))
    return false;
  if (str_is_set(canon) && !str_ieq_c(canon, "simple") && !str_ieq_c(canon, "nofws"))
    return false;
  ret->canon = str_is_set(canon) && str_ieq_c(canon, "nofws") ? DK_NOFWS : DK_SIMPLE;
  ret->domain = str_is_set(domain) ? str_lower(a, tags_squeeze(a, domain)) : STR_EMPTY;
  ret->selector = str_is_set(selector) ? tags_squeeze(a, selector) : STR_EMPTY;
  ret->names = str_is_set(names) ? tags_squeeze(a, names) : STR_UNSET;
  return ret->domain.len > 0 && ret->selector.len > 0 && ret->domain.len + ret->selector.len < 240 && str_is_set(b) &&
         base64_decode(a, tags_squeeze(a, b), false, &ret->signature) && ret->signature.len > 0;
}

bool dk_find_signature(struct arena *a, const struct str *fields, size_t n, const struct dk_author *author, struct dk_signature *ret,
    bool *ret_any) {
  *ret_any = false;
  for (size_t i = 0; i < n; i++) {
    if (!str_ieq_c(name_of(fields[i]), "DomainKey-Signature"))
      continue;
    *ret_any = true;
    if (author->source == DK_SOURCE_NONE || i > author->field || !dk_signature_parse(a, value_of(fields[i]), ret) ||
        !dkim_is_subdomain(author->domain, ret->domain))
      continue;
    if (str_is_set(ret->names) && !names_hold(ret->names, name_of(fields[author->field])))
      continue;
    ret->field = i;
    return true;
  }
  return false;
}

/* ---- canonical form: the lines of a message, empty ones at its end left out ---- */

static void sink(void *arg, const char *p, size_t n) {
  struct dk_stream *s = arg;
  EVP_DigestUpdate(s->ctx, p, n);
}

static void free_context(void *arg) { EVP_MD_CTX_free(arg); }

struct dk_stream *dk_stream_new(struct arena *a, enum dk_canon how) {
  struct dk_stream *s = arena_new_of(a, struct dk_stream);
  s->how = how;
  s->ctx = EVP_MD_CTX_new();
  if (s->ctx == NULL)
    return NULL;
  arena_cleanup(a, free_context, s->ctx);
  if (EVP_DigestInit_ex(s->ctx, EVP_sha1(), NULL) != 1)
    return NULL;
  canon_body_begin(&s->canon, CANON_SIMPLE, UINT64_MAX, sink, s);
  return s;
}

/* Without blanks; in a header field without line ends, too. */
static void add_squeezed(struct dk_stream *s, struct str data, bool field) {
  size_t from = 0;
  for (size_t i = 0; i <= data.len; i++) {
    char c = i < data.len ? data.p[i] : ' ';
    if (c != ' ' && c != '\t' && c != '\r' && (c != '\n' || !field))
      continue;
    bool line_end = c == '\n' && !field;
    if (i > from)
      canon_body_add(&s->canon, str_slice(data, from, i + line_end));
    else if (line_end)
      canon_body_add(&s->canon, STR("\n"));
    from = i + 1;
  }
}

void dk_stream_header(struct dk_stream *s, struct arena *a, const struct str *fields, size_t n, size_t from, struct str names) {
  struct map *wanted = str_is_set(names) ? map_new_caseless(a) : NULL;
  while (str_is_set(names))
    map_set(wanted, str_trim(str_cut(&names, ':')), s);
  for (size_t i = from; i < n; i++) {
    if (wanted && !map_has(wanted, name_of(fields[i])))
      continue;
    if (s->how == DK_SIMPLE) {
      canon_body_add(&s->canon, fields[i]);
    } else {
      add_squeezed(s, fields[i], true);
      canon_body_add(&s->canon, STR("\n"));
    }
  }
  canon_body_add(&s->canon, STR("\n"));
}

void dk_stream_body(struct dk_stream *s, struct str data) {
  if (s->how == DK_SIMPLE)
    canon_body_add(&s->canon, data);
  else
    add_squeezed(s, data, false);
}

void dk_stream_end(struct dk_stream *s) {
  canon_body_end(&s->canon);
  if (EVP_DigestFinal_ex(s->ctx, s->digest, &s->digest_n) != 1)
    s->digest_n = 0;
}

/* ---- keys and policies ---- */

static void free_key(void *arg) { EVP_PKEY_free(arg); }

enum dk_key_state dk_key_parse(struct arena *a, struct str record, struct str local_part, struct dk_key *ret) {
  struct tag_list tags;
  struct str decoded;
  *ret = (struct dk_key){0};
  if (record.len > RECORD_MAX || !tags_parse(a, record, &tags))
    return DK_KEY_BAD;
  struct str p = tags_value(&tags, "p"), type = tags_value(&tags, "k"), g = tags_value(&tags, "g"), t = tags_value(&tags, "t");
  if (str_is_set(p) && p.len == 0)
    return DK_KEY_REVOKED;
  if (!str_is_set(p) || (str_is_set(type) && !str_ieq_c(type, "rsa")) || (str_is_set(g) && g.len > 0 && !str_eq(g, local_part)))
    return DK_KEY_BAD;
  ret->testing = str_is_set(t) && str_ieq_c(t, "y");
  if (!base64_decode(a, tags_squeeze(a, p), false, &decoded) || decoded.len > KEY_MAX || (ret->pkey = dkim_rsa_key(decoded)) == NULL)
    return DK_KEY_BAD;
  arena_cleanup(a, free_key, ret->pkey);
  ret->bits = EVP_PKEY_bits(ret->pkey);
  return DK_KEY_OK;
}

/* What was signed is taken out of the signature and compared here, since a library may be set not to verify SHA-1. */
bool dk_signature_holds(const struct dk_key *k, const struct dk_signature *sig, const struct dk_stream *s) {
  static const unsigned char prefix[] = {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14};
  unsigned char out[2048];
  size_t n = sizeof out;
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k->pkey, NULL);
  bool ok = ctx != NULL && (size_t)EVP_PKEY_size(k->pkey) <= sizeof out && EVP_PKEY_verify_recover_init(ctx) == 1 &&
            EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
            EVP_PKEY_verify_recover(ctx, out, &n, (const unsigned char *)sig->signature.p, sig->signature.len) == 1;
  EVP_PKEY_CTX_free(ctx);
  return ok && s->digest_n == 20 && n == sizeof prefix + 20 && memcmp(out, prefix, sizeof prefix) == 0 &&
         memcmp(out + sizeof prefix, s->digest, 20) == 0;
}

bool dk_policy_parse(struct arena *a, struct str record, bool *ret_signs_all, bool *ret_testing) {
  struct tag_list tags;
  if (record.len > RECORD_MAX || !tags_parse(a, record, &tags))
    return false;
  struct str o = tags_value(&tags, "o"), t = tags_value(&tags, "t");
  *ret_signs_all = str_is_set(o) && str_eq_c(o, "-");
  *ret_testing = str_is_set(t) && str_ieq_c(t, "y");
  return true;
}
