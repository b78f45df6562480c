#include "tls/dane.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include "base/arena.h"
#include "tls/tls.h"

#define CERTIFICATE_MAX (64u << 10)

/* Does the DER form make a certificate (selector 0) or a key (1), with nothing behind it? */
static bool is_whole(struct str data, int selector) {
  const unsigned char *p = (const unsigned char *)data.p;
  bool good;
  if (data.len == 0 || data.len > CERTIFICATE_MAX)
    return false;
  if (selector == 0) {
    X509 *cert = d2i_X509(NULL, &p, (long)data.len);
    good = cert != NULL && X509_get0_pubkey(cert) != NULL;
    X509_free(cert);
  } else {
    EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)data.len);
    good = key != NULL;
    EVP_PKEY_free(key);
  }
  ERR_clear_error();
  return good && p == (const unsigned char *)data.p + data.len;
}

bool tls_tlsa_read(struct str rdata, struct tls_tlsa *ret) {
  if (rdata.len < 4)
    return false;
  const unsigned char *p = (const unsigned char *)rdata.p;
  *ret = (struct tls_tlsa){p[0], p[1], p[2], str_from(rdata, 3)};
  if ((ret->usage != TLSA_DANE_TA && ret->usage != TLSA_DANE_EE) || ret->selector > 1)
    return false;
  switch (ret->matching) {
  case 0: return is_whole(ret->data, ret->selector);
  case 1: return ret->data.len == 32; /* SHA2-256 */
  case 2: return ret->data.len == 64; /* SHA2-512 */
  default: return false;
  }
}

int tls_dane_prepare(SSL *ssl, struct arena *a, const struct tls_params *p) {
  int usable = 0;
  if (SSL_dane_enable(ssl, str_dup_c(a, p->dane_base)) <= 0)
    return -EINVAL;
  /* RFC 7672, 3.1.1: a key that the record names is the server's, whatever name and dates its certificate has. */
  SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_SINGLE_LABEL_SUBDOMAINS);
  for (size_t i = 0; i < p->dane_names_n; i++)
    if (p->dane_names[i].len && !SSL_add1_host(ssl, str_dup_c(a, p->dane_names[i])))
      return -EINVAL;
  for (size_t i = 0; i < p->tlsa_n; i++) {
    const struct tls_tlsa *r = &p->tlsa[i];
    usable += SSL_dane_tlsa_add(ssl, r->usage, r->selector, r->matching, (const unsigned char *)r->data.p, r->data.len) > 0;
  }
  ERR_clear_error();
  return usable ? 0 : -EINVAL;
}

bool tls_dane_verified(SSL *ssl) {
  return SSL_get_verify_result(ssl) == X509_V_OK && SSL_get0_dane_authority(ssl, NULL, NULL) >= 0;
}
