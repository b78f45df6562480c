/* Proofs that a certificate is not revoked (RFC 6960), stapled to the handshake
(RFC 6066 section 8). Of this room only. */
#pragma once

#include <openssl/ssl.h>
#include "loop/fiber.h"
#include "tls/tls.h"

/* One proof of a server, checked when it was loaded. */
struct tls_proof {
  unsigned char *der;
  int size;
  X509 *cert;     /* the certificate that it is for */
  int64_t until;  /* seconds since 1970: not to be shown from then on */
  struct tls_proof *next;
};

/* Reads a file, DER or PEM, and keeps its proof if it is a good one for a certificate of the context; `store` (may be NULL) has
more of its issuers. *ret is NULL if it is not; `why` is then the reason, else empty, or a warning. */
void tls_proof_load(SSL_CTX *ctx, X509_STORE *store, const char *file, bool pem, struct tls_proof **ret, char *why, size_t size);
/* The middle of the time of what is in the file (of the first to end): a newer one should be there from then on. 0: there is
nothing that could be told from. */
int64_t tls_proof_half_time(const char *file, bool pem);
void tls_proofs_free(struct tls_proof *list);

/* Puts the list, which then is the context's, where its sessions find it, and staples from it. */
void tls_proofs_use(SSL_CTX *ctx, struct tls_proof *list);
/* Has the client's context look at what is stapled (session.c: tls_session_check_staple). */
void tls_proofs_watch(SSL_CTX *ctx);

/* The answer of the server for the session of a client, whose handshake is not done. The enum's value, and for what is wrong a text
in `why`; *ret_revoked: and the issuer says that it is revoked. */
enum tls_ocsp_status tls_proof_check(SSL *ssl, char *why, size_t size, bool *ret_revoked);
