#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "base/arena.h"
#include "base/encode.h"

struct hash {
  EVP_MD_CTX *ctx;
};

static const char *const names[] = {
    "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"};
#define NAMES (sizeof names / sizeof *names)

/* Fetching is slow in OpenSSL 3: each digest is fetched once. */
static const EVP_MD *find(const char *name) {
  static EVP_MD *fetched[NAMES];
  for (size_t i = 0; i < NAMES; i++) {
    if (!str_ieq_c(str_c(name), names[i]))
      continue;
    EVP_MD *md = __atomic_load_n(&fetched[i], __ATOMIC_ACQUIRE), *none = NULL;
    if (md)
      return md;
    md = EVP_MD_fetch(NULL, names[i], NULL);
    if (__atomic_compare_exchange_n(&fetched[i], &none, md, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      return md;
    EVP_MD_free(md); /* another thread was faster */
    return none;
  }
  return NULL;
}

size_t hash_length(const char *name) {
  const EVP_MD *md = find(name);
  return md ? (size_t)EVP_MD_get_size(md) : 0;
}

size_t hash_bytes(const char *name, struct str text, unsigned char *to) {
  const EVP_MD *md = find(name);
  unsigned n = 0;
  return md && EVP_Digest(text.p ? text.p : "", text.len, to, &n, md, NULL) ? n : 0;
}

size_t hmac_bytes(const char *name, struct str key, struct str text, unsigned char *to) {
  const EVP_MD *md = find(name);
  unsigned n = 0;
  if (!md || !HMAC(md, key.p ? key.p : "", (int)key.len, (const unsigned char *)(text.p ? text.p : ""), text.len, to, &n))
    return 0;
  return n;
}

static struct str as_hex(struct arena *a, const unsigned char *digest, size_t n, uint32_t taint) {
  if (!n)
    return STR_UNSET;
  struct str hex = hex_encode(a, str_n((const char *)digest, n));
  hex.taint = taint & STR_TAINTED;
  return hex;
}

struct str hash_hex(struct arena *a, const char *name, struct str text) {
  unsigned char digest[HASH_MAX];
  return as_hex(a, digest, hash_bytes(name, text, digest), text.taint);
}

struct str hmac_hex(struct arena *a, const char *name, struct str key, struct str text) {
  unsigned char digest[HASH_MAX];
  return as_hex(a, digest, hmac_bytes(name, key, text, digest), key.taint | text.taint);
}

static void ctx_free(void *arg) { EVP_MD_CTX_free(arg); }

struct hash *hash_new(struct arena *a, const char *name) {
  const EVP_MD *md = find(name);
  if (!md)
    return NULL;
  struct hash *h = arena_new_of(a, struct hash);
  h->ctx = EVP_MD_CTX_new();
  arena_cleanup(a, ctx_free, h->ctx);
  return EVP_DigestInit_ex(h->ctx, md, NULL) ? h : NULL;
}

void hash_add(struct hash *h, struct str text) {
  if (text.len)
    EVP_DigestUpdate(h->ctx, text.p, text.len);
}

size_t hash_end(struct hash *h, unsigned char *to) {
  unsigned n = 0;
  return EVP_DigestFinal_ex(h->ctx, to, &n) ? n : 0;
}
