#include "tls/resume.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>
#include "base/arena.h"
#include "core/build.h"
#include "tls/ticket_keys.h"
#include "tls/tls_internal.h"

#define NAME_MAX_LEN 255
#define SESSION_MAX 16384

/* --- tickets of a server --- */

/* Looking an algorithm up costs OpenSSL 3 more than its use for so few bytes. */
static const EVP_MD *sha256(void) {
  static EVP_MD *md;
  if (!md)
    md = EVP_MD_fetch(NULL, "SHA256", NULL);
  return md;
}

static const EVP_CIPHER *aes(void) {
  static EVP_CIPHER *cipher;
  if (!cipher)
    cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
  return cipher;
}

static bool key_use(struct ticket_key *k, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc) {
  OSSL_PARAM params[] = {OSSL_PARAM_octet_string(OSSL_MAC_PARAM_KEY, k->mac, sizeof k->mac),
      OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"sha256", 0), OSSL_PARAM_END};
  params[1].data_size = strlen("sha256");
  return EVP_CipherInit_ex(cipher, aes(), NULL, k->cipher, iv, enc) && EVP_MAC_CTX_set_params(mac, params);
}

static int on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc) {
  struct ticket_key k;
  int r = ticket_key_get(enc ? NULL : name, &k);
  tls_session_note_resumption(ssl, enc ? TLS_RESUME_ASKED | TLS_RESUME_TICKET : TLS_RESUME_ASKED | TLS_RESUME_OFFERED);
  if (r == 0)
    return 0;
  if (enc) {
    memcpy(name, k.name, sizeof k.name);
    if (RAND_bytes(iv, 16) != 1)
      r = -1;
  }
  if (r > 0 && !key_use(&k, iv, cipher, mac, enc))
    r = -1;
  OPENSSL_cleanse(&k, sizeof k);
  return r;
}

void tls_tickets_use(SSL_CTX *ctx) {
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_key);
  SSL_CTX_set_timeout(ctx, build.tls_ticket_life ? build.tls_ticket_life : 2 * (long)ticket_period());
}

/* --- what a ticket is for --- */

static void digest_part(EVP_MD_CTX *d, struct str s) {
  uint32_t n = s.len;
  EVP_DigestUpdate(d, &n, sizeof n);
  EVP_DigestUpdate(d, s.p, s.len);
}

bool tls_tickets_digest_certificates(struct tls_context *c) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned n;
  SSL_CTX *ctx = c->ctx;
  EVP_MD_CTX *d = EVP_MD_CTX_new();
  bool good = d && EVP_DigestInit_ex(d, EVP_sha256(), NULL);
  for (int ok = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST); good && ok > 0; ok = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT))
    good = X509_digest(SSL_CTX_get0_certificate(ctx), EVP_sha256(), bytes, &n) && EVP_DigestUpdate(d, bytes, n);
  good = good && EVP_DigestFinal_ex(d, c->certificates, NULL);
  EVP_MD_CTX_free(d);
  return good;
}

void tls_tickets_bind(SSL *ssl, const struct tls_context *c, const struct tls_params *p, struct str name) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  EVP_MD_CTX *d = EVP_MD_CTX_new();
  if (d && EVP_DigestInit_ex(d, sha256(), NULL)) {
    int verify = (int)p->verify;
    EVP_DigestUpdate(d, c->certificates, sizeof c->certificates);
    EVP_DigestUpdate(d, &verify, sizeof verify);
    digest_part(d, p->verify_certificates);
    digest_part(d, p->crl);
    digest_part(d, name);
    EVP_DigestFinal_ex(d, bytes, &n);
  }
  EVP_MD_CTX_free(d);
  if (n >= SSL_MAX_SID_CTX_LENGTH)
    SSL_set_session_id_context(ssl, bytes, SSL_MAX_SID_CTX_LENGTH);
  ERR_clear_error();
}

/* RFC 6066, section 3: a list with one name of type 0. What is malformed is OpenSSL's to refuse. */
struct str tls_hello_name(SSL *ssl) {
  const unsigned char *p;
  size_t n;
  if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) || n < 6 || p[2] != TLSEXT_NAMETYPE_host_name)
    return STR_EMPTY;
  size_t length = (size_t)p[3] << 8 | p[4];
  if ((size_t)(p[0] << 8 | p[1]) != n - 2 || length != n - 5 || length > NAME_MAX_LEN || memchr(p + 5, 0, length))
    return STR_EMPTY;
  return str_tainted(str_n((const char *)p + 5, length));
}

/* --- a client's sessions --- */

static int on_ticket(SSL *ssl, SSL_SESSION *session) {
  unsigned char *der = NULL;
  int n = i2d_SSL_SESSION(session, &der);
  int64_t lifetime = (int64_t)SSL_SESSION_get_ticket_lifetime_hint(session);
  if (!lifetime)
    lifetime = SSL_SESSION_get_timeout(session);
  if (n > 0 && n <= SESSION_MAX && (SSL_SESSION_has_ticket(session) || SSL_version(ssl) >= TLS1_3_VERSION))
    tls_session_note_ticket(ssl, str_n((char *)der, (size_t)n), SSL_SESSION_get_time(session) + lifetime);
  OPENSSL_clear_free(der, n > 0 ? (size_t)n : 0);
  return 0;
}

void tls_tickets_collect(SSL_CTX *ctx) {
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, on_ticket);
}

bool tls_ticket_offer(SSL *ssl, struct str session) {
  const unsigned char *p = (const unsigned char *)session.p;
  SSL_SESSION *s = session.len <= SESSION_MAX ? d2i_SSL_SESSION(NULL, &p, (long)session.len) : NULL;
  bool ok = s && SSL_SESSION_is_resumable(s) && SSL_set_session(ssl, s);
  SSL_SESSION_free(s);
  ERR_clear_error();
  return ok;
}
