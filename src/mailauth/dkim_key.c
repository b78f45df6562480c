/* Key records (RFC 6376, section 3.6.1; RFC 8463). */
#include <openssl/x509.h>

#include "base/encode.h"
#include "mailauth/dkim.h"

#define RECORD_MAX 16384
#define KEY_MAX 8192       /* bytes of the key itself */
#define KEY_BITS_MAX 16384 /* a longer one would cost too much */

static void free_key(void *arg) { EVP_PKEY_free(arg); }

/* Is the word in a list "a:b:c"? Absent lists hold everything. */
static bool in_list(struct str list, const char *word) {
  if (!str_is_set(list))
    return true;
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ':'));
    if (str_ieq_c(item, word) || str_eq_c(item, "*"))
      return true;
  }
  return false;
}

/* The contents of a DER element of that tag at the start of *rest, which is moved behind it. */
static bool der_take(struct str *rest, unsigned char tag, struct str *ret) {
  if (rest->len < 2 || (unsigned char)rest->p[0] != tag)
    return false;
  size_t at = 2, n = (unsigned char)rest->p[1];
  if (n >= 0x80) {
    size_t digits = n & 0x7f;
    if (digits < 1 || digits > 3 || rest->len < 2 + digits)
      return false;
    for (n = 0; at < 2 + digits; at++)
      n = n << 8 | (unsigned char)rest->p[at];
  }
  if (n > rest->len - at)
    return false;
  *ret = str_slice(*rest, at, at + n);
  *rest = str_from(*rest, at + n);
  return true;
}

/* The RSAPublicKey inside of a SubjectPublicKeyInfo; unset: it is none. By hand, since the library takes ten times as long for
that as for verifying the signature. */
static struct str bare_rsa_key(struct str der) {
  static const char oid[] = {0x06, 0x09, 0x2a, (char)0x86, 0x48, (char)0x86, (char)0xf7, 0x0d, 0x01, 0x01, 0x01};
  struct str all, algorithm, bits;
  if (!der_take(&der, 0x30, &all) || !der_take(&all, 0x30, &algorithm) || !str_starts(algorithm, str_n(oid, sizeof oid)) ||
      !der_take(&all, 0x03, &bits) || bits.len < 1 || bits.p[0] != 0)
    return STR_UNSET;
  return str_from(bits, 1);
}

EVP_PKEY *dkim_rsa_key(struct str der) {
  struct str bare = bare_rsa_key(der);
  if (!str_is_set(bare))
    bare = der; /* the bare RSAPublicKey, which RFC 6376 names and few publish */
  const unsigned char *p = (const unsigned char *)bare.p;
  EVP_PKEY *key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, (long)bare.len);
  if (key != NULL && (EVP_PKEY_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_bits(key) > KEY_BITS_MAX)) {
    EVP_PKEY_free(key);
    return NULL;
  }
  return key;
}

static EVP_PKEY *ed25519_key(struct str raw) {
  if (raw.len == 32)
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)raw.p, raw.len);
  const unsigned char *p = (const unsigned char *)raw.p;
  EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)raw.len); /* with its ASN.1 around: a draft had that */
  if (key != NULL && EVP_PKEY_base_id(key) != EVP_PKEY_ED25519) {
    EVP_PKEY_free(key);
    return NULL;
  }
  return key;
}

struct dkim_key *dkim_key_parse(struct arena *a, struct str record) {
  struct tag_list tags;
  struct str decoded;
  if (record.len > RECORD_MAX || !tags_parse(a, record, &tags))
    return NULL;
  struct dkim_key *k = arena_new_of(a, struct dkim_key);
  struct str version = tags_value(&tags, "v"), type = tags_value(&tags, "k"), p = tags_value(&tags, "p");
  struct str flags = tags_value(&tags, "t"), s = tags_value(&tags, "s"), g = tags_value(&tags, "g");
  if (str_is_set(version) && (!str_eq_c(version, "DKIM1") || !str_eq_c(tags.v[0].name, "v")))
    return NULL;
  if (str_is_set(type) && str_ieq_c(type, "ed25519"))
    k->type = DKIM_ED25519;
  else if (str_is_set(type) && !str_ieq_c(type, "rsa"))
    return NULL;
  k->hashes = tags_value(&tags, "h");
  k->service = str_is_set(s) ? s : STR("*");
  k->granularity = str_is_set(g) ? g : STR("*");
  k->notes = tags_value(&tags, "n");
  k->testing = str_is_set(flags) && in_list(flags, "y");
  k->no_subdomains = str_is_set(flags) && in_list(flags, "s");
  if (!str_is_set(p) || !base64_decode(a, tags_squeeze(a, p), false, &decoded) || decoded.len == 0 || decoded.len > KEY_MAX)
    return NULL; /* an empty one is revoked */
  k->pkey = k->type == DKIM_RSA ? dkim_rsa_key(decoded) : ed25519_key(decoded);
  if (k->pkey == NULL)
    return NULL;
  arena_cleanup(a, free_key, k->pkey);
  k->bits = EVP_PKEY_bits(k->pkey);
  return k;
}

bool dkim_key_fits(const struct dkim_key *k, const struct dkim_signature *s) {
  if (k->type != s->key_type || !in_list(k->hashes, s->hash_name) || !in_list(k->service, "email"))
    return false;
  if (!k->no_subdomains || !str_is_set(s->identity))
    return true;
  return str_ieq(str_from(s->identity, (size_t)str_rfind_byte(s->identity, '@') + 1), s->domain);
}
