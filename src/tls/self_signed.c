/* The certificate that a server without tls_certificate uses. The key lives as
long as the process; the certificate is made again before it expires. */
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include "base/arena.h"
#include "tls/tls_internal.h"

#define LIFETIME_DEFAULT (7 * 24 * 3600)
#define NAME_MAX_LEN 255

static EVP_PKEY *key;
static pthread_mutex_t key_mutex = PTHREAD_MUTEX_INITIALIZER; /* contexts are made in offload threads */

static EVP_PKEY *the_key(void) {
  pthread_mutex_lock(&key_mutex);
  if (!key)
    key = EVP_EC_gen("P-256");
  EVP_PKEY *k = key;
  if (k)
    EVP_PKEY_up_ref(k);
  pthread_mutex_unlock(&key_mutex);
  return k;
}

void tls_self_signed_clear(void) {
  pthread_mutex_lock(&key_mutex);
  EVP_PKEY_free(key);
  key = NULL;
  pthread_mutex_unlock(&key_mutex);
}

static bool add_entry(X509_NAME *name, struct str type, struct str value) {
  char text[16];
  if (type.len >= sizeof text || value.len > NAME_MAX_LEN)
    return false;
  memcpy(text, type.p, type.len);
  text[type.len] = '\0';
  return X509_NAME_add_entry_by_txt(
      name, text, MBSTRING_UTF8, (const unsigned char *)value.p, (int)value.len, -1, 0);
}

/* "host.example" or "/C=UK/O=Organisation/CN=host.example". */
static bool set_subject(X509 *cert, struct str subject) {
  X509_NAME *name = X509_get_subject_name(cert);
  if (subject.len == 0)
    subject = STR("localhost");
  if (subject.p[0] != '/')
    return add_entry(name, STR("CN"), subject);
  struct str rest = str_from(subject, 1);
  while (str_is_set(rest)) {
    struct str value = str_cut(&rest, '/');
    struct str type = str_cut(&value, '=');
    if (!str_is_set(value) || !add_entry(name, type, value))
      return false;
  }
  return true;
}

static X509 *make(EVP_PKEY *k, struct str subject, int lifetime) {
  X509 *cert = X509_new();
  uint64_t serial = 0;
  RAND_bytes((unsigned char *)&serial, sizeof serial);
  bool ok = cert && X509_set_version(cert, X509_VERSION_3) &&
            ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1 | 1) &&
            X509_gmtime_adj(X509_getm_notBefore(cert), -60) && X509_gmtime_adj(X509_getm_notAfter(cert), lifetime) &&
            set_subject(cert, subject) && X509_set_issuer_name(cert, X509_get_subject_name(cert)) &&
            X509_set_pubkey(cert, k) && X509_sign(cert, k, EVP_sha256());
  if (ok)
    return cert;
  X509_free(cert);
  return NULL;
}

bool tls_self_signed_use(SSL_CTX *ctx, struct str name, int lifetime, usec_t *ret_until) {
  if (lifetime <= 0)
    lifetime = LIFETIME_DEFAULT;
  EVP_PKEY *k = the_key();
  X509 *cert = k ? make(k, name, lifetime) : NULL;
  bool ok = cert && SSL_CTX_use_certificate(ctx, cert) && SSL_CTX_use_PrivateKey(ctx, k);
  X509_free(cert);
  EVP_PKEY_free(k);
  /* A client must not meet one that expires while it looks. */
  *ret_until = loop_now_fresh() + lifetime * USEC_PER_SEC / 2;
  return ok;
}
