/* What proves a password in NTLM. MD4 and DES are in OpenSSL's legacy provider, which is loaded beside the rest of the program. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/time.h"
#include "sasl/ntlm.h"

#define FILETIME_1970 116444736000000000ULL /* 100 ns since 1601 */

static struct {
  OSSL_LIB_CTX *context;
  EVP_MD *md4;
  EVP_CIPHER *des;
} legacy;

bool ntlm_crypt_there(void) {
  if (legacy.context == NULL && (legacy.context = OSSL_LIB_CTX_new()) != NULL &&
      OSSL_PROVIDER_load(legacy.context, "legacy") != NULL) {
    legacy.md4 = EVP_MD_fetch(legacy.context, "MD4", NULL);
    legacy.des = EVP_CIPHER_fetch(legacy.context, "DES-ECB", NULL);
  }
  return legacy.md4 != NULL && legacy.des != NULL;
}

/* MD4 of the password. */
static bool nt_hash(struct arena *a, struct str password, unsigned char *to) {
  struct str wide = ntlm_utf16(a, password);
  return ntlm_crypt_there() && EVP_Digest(wide.p, wide.len, to, NULL, legacy.md4, NULL) == 1;
}

/* Eight bytes with a key of seven, whose bits are spread over eight. */
static bool des(const unsigned char *key7, const unsigned char *in, unsigned char *out) {
  unsigned char key[8], rest[16];
  for (int i = 0; i < 8; i++) {
    unsigned before = i > 0 ? key7[i - 1] : 0, here = i < 7 ? key7[i] : 0;
    key[i] = (unsigned char)((before << (8 - i) | here >> i) & 0xfe);
  }
  int n = 0, last = 0;
  EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
  bool ok = x != NULL && EVP_EncryptInit_ex(x, legacy.des, NULL, key, NULL) == 1 && EVP_CIPHER_CTX_set_padding(x, 0) == 1 &&
            EVP_EncryptUpdate(x, rest, &n, in, NTLM_CHALLENGE) == 1 && EVP_EncryptFinal_ex(x, rest + n, &last) == 1 && n == 8;
  EVP_CIPHER_CTX_free(x);
  if (ok)
    memcpy(out, rest, 8);
  return ok;
}

/* The response of version 1: the challenge encrypted with the hash in three pieces. */
static bool response1(const unsigned char *hash, const unsigned char *challenge, unsigned char *to) {
  unsigned char keys[21] = {0};
  memcpy(keys, hash, NTLM_HASH);
  return des(keys, challenge, to) && des(keys + 7, challenge, to + 8) && des(keys + 14, challenge, to + 16);
}

/* The key of version 2: of the hash, the user in capitals and the domain as it is. */
static bool key2(struct arena *a, struct str user, struct str domain, struct str password, unsigned char *to) {
  unsigned char hash[NTLM_HASH], mac[HASH_MAX];
  if (!nt_hash(a, password, hash))
    return false;
  struct str who = str_cat(a, ntlm_utf16(a, str_upper(a, user)), ntlm_utf16(a, domain));
  if (hmac_bytes("md5", str_n((const char *)hash, sizeof hash), who, mac) != NTLM_HASH)
    return false;
  memcpy(to, mac, NTLM_HASH);
  return true;
}

static bool prove2(struct arena *a, const unsigned char *key, const unsigned char *challenge, struct str data, unsigned char *to) {
  unsigned char mac[HASH_MAX];
  struct str all = str_cat(a, str_n((const char *)challenge, NTLM_CHALLENGE), data);
  if (hmac_bytes("md5", str_n((const char *)key, NTLM_HASH), all, mac) != NTLM_HASH)
    return false;
  memcpy(to, mac, NTLM_HASH);
  return true;
}

bool ntlm_verify(struct arena *a, const struct ntlm_response *r, const unsigned char *challenge, struct str password) {
  unsigned char hash[NTLM_HASH], want[NTLM_RESPONSE];
  if (r->nt.len == NTLM_RESPONSE)
    return nt_hash(a, password, hash) && response1(hash, challenge, want) && CRYPTO_memcmp(r->nt.p, want, NTLM_RESPONSE) == 0;
  return r->nt.len > NTLM_RESPONSE && key2(a, r->user, r->domain, password, hash) &&
         prove2(a, hash, challenge, str_from(r->nt, NTLM_HASH), want) && CRYPTO_memcmp(r->nt.p, want, NTLM_HASH) == 0;
}

/* The server's clock, which it may have told among its names (7); else ours. */
static uint64_t clock_of(struct str info) {
  for (uint32_t i = 0; i + 4 <= info.len;) {
    const unsigned char *p = (const unsigned char *)info.p + i;
    uint32_t kind = p[0] | (uint32_t)p[1] << 8, len = p[2] | (uint32_t)p[3] << 8;
    if (kind == 0 || len > info.len - i - 4)
      break;
    if (kind == 7 && len == 8) {
      uint64_t v = 0;
      for (int k = 7; k >= 0; k--)
        v = v << 8 | p[4 + k];
      return v;
    }
    i += 4 + len;
  }
  return FILETIME_1970 + (uint64_t)time_now_usec() * 10;
}

static bool answer2(struct arena *a, const struct ntlm_challenge *to, struct str password, struct ntlm_response *ret) {
  unsigned char key[NTLM_HASH], nonce[8], proof[NTLM_HASH];
  struct buf b;
  uint64_t now = clock_of(to->target_info);
  random_bytes(nonce, sizeof nonce);
  if (!key2(a, ret->user, ret->domain, password, key))
    return false;
  buf_init(&b, a, NTLM_MESSAGE_MAX);
  buf_add_n(&b, "\1\1\0\0\0\0\0\0", 8);
  for (int i = 0; i < 8; i++)
    buf_add_byte(&b, (char)(now >> 8 * i));
  buf_add_n(&b, (const char *)nonce, sizeof nonce);
  buf_add_n(&b, "\0\0\0\0", 4);
  buf_add(&b, to->target_info);
  buf_add_n(&b, "\0\0\0\0", 4);
  if (b.overflow || !prove2(a, key, to->challenge, buf_str(&b), proof))
    return false;
  ret->nt = str_cat(a, str_n((const char *)proof, NTLM_HASH), buf_str(&b));
  struct str mine = str_n((const char *)nonce, sizeof nonce);
  if (!prove2(a, key, to->challenge, mine, proof))
    return false;
  ret->lm = str_cat(a, str_n((const char *)proof, NTLM_HASH), mine);
  return true;
}

bool ntlm_answer(struct arena *a, const struct ntlm_challenge *to, struct str user, struct str domain, struct str password,
    struct ntlm_response *ret) {
  unsigned char hash[NTLM_HASH], response[NTLM_RESPONSE];
  *ret = (struct ntlm_response){.flags = (to->flags & (NTLM_UNICODE | NTLM_OEM | NTLM_ALWAYS_SIGN)) | NTLM_NTLM, .user = user,
      .domain = domain};
  if (to->target_info.len > 0)
    return answer2(a, to, password, ret);
  if (!nt_hash(a, password, hash) || !response1(hash, to->challenge, response))
    return false;
  ret->nt = str_dup(a, str_n((const char *)response, NTLM_RESPONSE));
  ret->lm = ret->nt; /* the weaker one is not given away */
  return true;
}
