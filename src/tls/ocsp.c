#include "tls/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "base/arena.h"
#include "tls/tls_internal.h"

#define FILE_MAX_SIZE (64 * 1024) /* a proof has some hundred bytes, with the certificates of its signer a few thousand */
#define SINGLES_MAX 16
#define SKEW 300
#define DAY (24 * 3600)

/* --- what both sides check --- */

static bool same(const X509 *a, const X509 *b) { return X509_cmp(a, b) == 0; }

static bool weak_signature(const OCSP_BASICRESP *b) {
  int digest = NID_undef, key;
  OBJ_find_sigid_algs(OBJ_obj2nid(OCSP_resp_get0_tbs_sigalg(b)->algorithm), &digest, &key);
  return digest == NID_sha1 || digest == NID_md5;
}

static bool in_time(const X509 *cert) {
  return X509_cmp_current_time(X509_get0_notBefore(cert)) < 0 && X509_cmp_current_time(X509_get0_notAfter(cert)) > 0;
}

/* RFC 6960 section 4.2.2.2: the issuer itself, one above it in the chain, or whom the issuer has made a signer of proofs. */
static const char *signer_fault(X509 *signer, STACK_OF(X509) *chain) {
  for (int i = sk_X509_num(chain) > 1 ? 1 : 0; i < sk_X509_num(chain); i++)
    if (same(sk_X509_value(chain, i), signer))
      return NULL;
  X509 *issuer = sk_X509_value(chain, sk_X509_num(chain) > 1 ? 1 : 0);
  if (X509_check_issued(issuer, signer) != X509_V_OK || X509_verify(signer, X509_get0_pubkey(issuer)) != 1)
    return "signer is not of the certificate's issuer";
  if (!(X509_get_extended_key_usage(signer) & XKU_OCSP_SIGN) || X509_get_extended_key_usage(signer) == UINT32_MAX)
    return "signer's certificate is not for signing OCSP responses";
  return in_time(signer) ? NULL : "signer's certificate has expired";
}

/* Who signed, if it is known; the signature is right. The chain begins with the certificate in question. */
static const char *signature_fault(OCSP_BASICRESP *b, STACK_OF(X509) *chain, X509 **ret_signer) {
  *ret_signer = NULL;
  if (weak_signature(b))
    return "signature algorithm is too weak";
  if (!OCSP_resp_get0_signer(b, ret_signer, chain) || !*ret_signer)
    return "signer's certificate not found";
  const char *fault = signer_fault(*ret_signer, chain);
  if (!fault && OCSP_basic_verify(b, chain, NULL, OCSP_NOVERIFY) <= 0)
    fault = "signature failure";
  ERR_clear_error();
  return fault;
}

/* Is the response about the certificate? The issuer may be NULL: then only its name is compared. */
static bool is_about(const OCSP_CERTID *id, const X509 *cert, const X509 *issuer) {
  ASN1_OBJECT *algorithm;
  ASN1_OCTET_STRING *name_hash, *key_hash;
  ASN1_INTEGER *serial;
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned n;
  OCSP_id_get0_info(&name_hash, &algorithm, &key_hash, &serial, (OCSP_CERTID *)(uintptr_t)id);
  const EVP_MD *md = EVP_get_digestbyobj(algorithm);
  if (!md || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(cert)) != 0)
    return false;
  if (!X509_NAME_digest(X509_get_issuer_name(cert), md, bytes, &n) || ASN1_STRING_length(name_hash) != (int)n ||
      memcmp(ASN1_STRING_get0_data(name_hash), bytes, n) != 0)
    return false;
  return !issuer || (X509_pubkey_digest(issuer, md, bytes, &n) && ASN1_STRING_length(key_hash) == (int)n &&
                        memcmp(ASN1_STRING_get0_data(key_hash), bytes, n) == 0);
}

struct verdict {
  int status; /* V_OCSP_CERTSTATUS_… */
  int reason;
  bool in_time;
  int64_t until;
};

static int64_t seconds_of(const ASN1_GENERALIZEDTIME *t) {
  struct tm tm;
  return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

/* What it says of the certificate: false if nothing. A response without an end of its validity is never in time. */
static bool find_verdict(OCSP_BASICRESP *b, const X509 *cert, const X509 *issuer, struct verdict *ret) {
  for (int i = 0; i < OCSP_resp_count(b) && i < SINGLES_MAX; i++) {
    OCSP_SINGLERESP *one = OCSP_resp_get0(b, i);
    ASN1_GENERALIZEDTIME *revoked = NULL, *from = NULL, *until = NULL;
    if (!is_about(OCSP_SINGLERESP_get0_id(one), cert, issuer))
      continue;
    ret->reason = -1;
    ret->status = OCSP_single_get0_status(one, &ret->reason, &revoked, &from, &until);
    ret->in_time = until && OCSP_check_validity(from, until, SKEW, -1);
    ret->until = seconds_of(until);
    ERR_clear_error();
    return true;
  }
  return false;
}

static OCSP_BASICRESP *basic_of(OCSP_RESPONSE *r) {
  return r && OCSP_response_status(r) == OCSP_RESPONSE_STATUS_SUCCESSFUL ? OCSP_response_get1_basic(r) : NULL;
}

/* --- a server's files --- */

/* The only PEM part that counts, or all of a DER file. */
static OCSP_RESPONSE *read_file(const char *name, bool pem, const char **ret_fault) {
  struct stat st;
  OCSP_RESPONSE *r = NULL;
  *ret_fault = "cannot be read";
  if (stat(name, &st) < 0)
    return NULL;
  *ret_fault = "is no ordinary file, or too large";
  if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX_SIZE)
    return NULL;
  BIO *in = BIO_new_file(name, "rb");
  *ret_fault = in ? "is no OCSP response" : "cannot be read";
  if (in && !pem)
    r = d2i_OCSP_RESPONSE_bio(in, NULL);
  else if (in)
    r = PEM_ASN1_read_bio((d2i_of_void *)(void *)d2i_OCSP_RESPONSE, "OCSP RESPONSE", in, NULL, NULL, NULL);
  BIO_free(in);
  return r;
}

int64_t tls_proof_half_time(const char *file, bool pem) {
  const char *fault;
  OCSP_RESPONSE *r = read_file(file, pem, &fault);
  OCSP_BASICRESP *b = basic_of(r);
  int64_t half = 0;
  for (int i = 0; b && i < OCSP_resp_count(b) && i < SINGLES_MAX; i++) {
    ASN1_GENERALIZEDTIME *revoked = NULL, *from = NULL, *until = NULL;
    int reason;
    (void)OCSP_single_get0_status(OCSP_resp_get0(b, i), &reason, &revoked, &from, &until);
    int64_t first = seconds_of(from), last = seconds_of(until), middle = first + (last - first) / 2;
    if (first > 0 && last > first && (half == 0 || middle < half))
      half = middle;
  }
  OCSP_BASICRESP_free(b);
  OCSP_RESPONSE_free(r);
  ERR_clear_error();
  return half;
}

/* The certificate, what was loaded with it, and from the store what lies above: its issuer may be unknown. */
static STACK_OF(X509) *chain_of(SSL_CTX *ctx, X509_STORE *store, X509 *cert, bool *ret_issuer_known) {
  STACK_OF(X509) *extra = NULL, *chain = sk_X509_new_null();
  SSL_CTX_get0_chain_certs(ctx, &extra);
  X509_STORE *none = store ? NULL : X509_STORE_new();
  X509_STORE_CTX *find = X509_STORE_CTX_new();
  X509 *issuer = NULL;
  X509_up_ref(cert);
  sk_X509_push(chain, cert);
  for (int i = 0; i < sk_X509_num(extra); i++) {
    X509_up_ref(sk_X509_value(extra, i));
    sk_X509_push(chain, sk_X509_value(extra, i));
  }
  X509 *second = sk_X509_num(chain) > 1 ? sk_X509_value(chain, 1) : NULL;
  *ret_issuer_known = second && X509_check_issued(second, cert) == X509_V_OK;
  if (!*ret_issuer_known && find && X509_STORE_CTX_init(find, store ? store : none, cert, chain) &&
      X509_STORE_CTX_get1_issuer(&issuer, find, cert) == 1) {
    sk_X509_insert(chain, issuer, 1);
    *ret_issuer_known = true;
  }
  X509_STORE_CTX_free(find);
  X509_STORE_free(none);
  ERR_clear_error();
  return chain;
}

/* Is the response a good proof for the certificate? The fault if it is not; *ret_mine: it is about this certificate. */
static const char *proof_fault(SSL_CTX *ctx, X509_STORE *store, OCSP_BASICRESP *b, X509 *cert, bool *ret_mine, int64_t *ret_until) {
  struct verdict v;
  bool issuer_known;
  X509 *signer = NULL;
  const char *fault = NULL;
  STACK_OF(X509) *chain = chain_of(ctx, store, cert, &issuer_known);
  *ret_mine = find_verdict(b, cert, issuer_known ? sk_X509_value(chain, 1) : NULL, &v);
  if (!*ret_mine)
    fault = "is not about a certificate in tls_certificate";
  else if (v.status != V_OCSP_CERTSTATUS_GOOD)
    fault = v.status == V_OCSP_CERTSTATUS_REVOKED ? "says that the certificate is revoked" : "does not know the certificate";
  else if (!v.until)
    fault = "has no time of its next update";
  else if (!v.in_time || v.until <= (int64_t)time(NULL))
    fault = "is not valid at this time";
  else if (issuer_known) /* else the clients may know the issuer */
    fault = signature_fault(b, chain, &signer);
  *ret_until = v.until;
  if (!fault && signer && seconds_of(X509_get0_notAfter(signer)) < v.until && !same(signer, sk_X509_value(chain, 1)))
    *ret_until = seconds_of(X509_get0_notAfter(signer));
  sk_X509_pop_free(chain, X509_free);
  return fault;
}

static struct tls_proof *proof_new(OCSP_RESPONSE *r, X509 *cert, int64_t until) {
  struct tls_proof *p = xcalloc(1, sizeof *p);
  p->size = i2d_OCSP_RESPONSE(r, &p->der);
  p->cert = cert;
  X509_up_ref(cert);
  p->until = until;
  return p;
}

void tls_proof_load(SSL_CTX *ctx, X509_STORE *store, const char *file, bool pem, struct tls_proof **ret, char *why, size_t size) {
  const char *fault;
  OCSP_RESPONSE *r = read_file(file, pem, &fault);
  OCSP_BASICRESP *b = basic_of(r);
  *ret = NULL;
  why[0] = '\0';
  if (r && !b)
    fault = "is an OCSP response that says nothing";
  for (int ok = b ? SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST) : 0; ok > 0 && !*ret;
       ok = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT)) {
    X509 *cert = SSL_CTX_get0_certificate(ctx);
    bool mine;
    int64_t until;
    fault = proof_fault(ctx, store, b, cert, &mine, &until);
    if (!fault)
      *ret = proof_new(r, cert, until);
    if (mine)
      break;
  }
  if (!*ret)
    snprintf(why, size, "OCSP proof %s %s: not used", file, fault);
  else if ((*ret)->until - (int64_t)time(NULL) < DAY)
    snprintf(why, size, "OCSP proof %s is valid for less than a day", file);
  OCSP_BASICRESP_free(b);
  OCSP_RESPONSE_free(r);
  ERR_clear_error();
}

void tls_proofs_free(struct tls_proof *list) {
  for (struct tls_proof *next; list; list = next) {
    next = list->next;
    OPENSSL_free(list->der);
    X509_free(list->cert);
    free(list);
  }
}

/* --- in the handshake --- */

static int index_of_proofs = -1;

static void release(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int i, long argl, void *argp) { tls_proofs_free(ptr); }

__attribute__((constructor)) static void make_index(void) {
  index_of_proofs = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, release);
}

/* Only called when the client has asked. */
static int staple(SSL *ssl, void *arg) {
  X509 *cert = SSL_get_certificate(ssl);
  int64_t now = (int64_t)time(NULL);
  tls_session_note_ocsp(ssl, TLS_OCSP_NONE);
  for (struct tls_proof *p = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), index_of_proofs); p; p = p->next) {
    if (now >= p->until || !cert || !same(cert, p->cert))
      continue;
    unsigned char *copy = OPENSSL_memdup(p->der, (size_t)p->size);
    if (!copy || !SSL_set_tlsext_status_ocsp_resp(ssl, copy, p->size))
      return SSL_TLSEXT_ERR_NOACK;
    tls_session_note_ocsp(ssl, TLS_OCSP_GOOD);
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

void tls_proofs_use(SSL_CTX *ctx, struct tls_proof *list) {
  SSL_CTX_set_ex_data(ctx, index_of_proofs, list);
  SSL_CTX_set_tlsext_status_cb(ctx, staple);
}

static int check_staple(SSL *ssl, void *arg) { return tls_session_check_staple(ssl); }

void tls_proofs_watch(SSL_CTX *ctx) { SSL_CTX_set_tlsext_status_cb(ctx, check_staple); }

/* --- what a client got --- */

static enum tls_ocsp_status failed(char *why, size_t size, const char *text) {
  snprintf(why, size, "%s", text);
  return TLS_OCSP_FAILED;
}

/* Of each certificate of the chain that the response is about; the first must be among them. */
static enum tls_ocsp_status check_verdicts(OCSP_BASICRESP *b, STACK_OF(X509) *chain, char *why, size_t size, bool *ret_revoked) {
  int n = sk_X509_num(chain);
  for (int i = 0; i < n; i++) {
    struct verdict v;
    X509 *cert = sk_X509_value(chain, i), *issuer = sk_X509_value(chain, i + 1 < n ? i + 1 : i);
    bool found = find_verdict(b, cert, issuer, &v);
    if (!found && i == 0)
      return failed(why, size, "Server certificate status not in the OCSP response");
    if (!found)
      continue;
    if (!v.in_time)
      return failed(why, size, "Server OCSP dates invalid");
    if (v.status == V_OCSP_CERTSTATUS_REVOKED) {
      *ret_revoked = true;
      snprintf(why, size, "Server certificate revoked; reason: %s", v.reason >= 0 ? OCSP_crl_reason_str(v.reason) : "not given");
      return TLS_OCSP_FAILED;
    }
    if (v.status != V_OCSP_CERTSTATUS_GOOD)
      return failed(why, size, "Server certificate status unknown, in OCSP stapling");
  }
  return TLS_OCSP_GOOD;
}

enum tls_ocsp_status tls_proof_check(SSL *ssl, char *why, size_t size, bool *ret_revoked) {
  unsigned char *der = NULL;
  long n = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
  const unsigned char *p = der;
  STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
  *ret_revoked = false;
  if (!der || n <= 0) {
    snprintf(why, size, "Received TLS status callback, null content");
    return TLS_OCSP_NONE;
  }
  OCSP_RESPONSE *r = n <= FILE_MAX_SIZE ? d2i_OCSP_RESPONSE(NULL, &p, n) : NULL;
  OCSP_BASICRESP *b = basic_of(r);
  enum tls_ocsp_status status;
  long verified = SSL_get_verify_result(ssl);
  X509 *signer;
  const char *fault;
  if (!b)
    status = failed(why, size, "Server OCSP response cannot be read");
  else if (sk_X509_num(chain) < 1 || (verified != X509_V_OK && verified != X509_V_ERR_HOSTNAME_MISMATCH))
    status = (snprintf(why, size, "Server OCSP response not checked: the certificate is not verified"), TLS_OCSP_UNCHECKED);
  else if ((fault = signature_fault(b, chain, &signer)))
    status = (snprintf(why, size, "Server OCSP response: %s", fault), TLS_OCSP_FAILED);
  else
    status = check_verdicts(b, chain, why, size, ret_revoked);
  OCSP_BASICRESP_free(b);
  OCSP_RESPONSE_free(r);
  ERR_clear_error();
  return status;
}
