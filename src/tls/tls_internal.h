/* What the files of this room share; nobody else includes it. */
#pragma once

#include <openssl/ssl.h>
#include "loop/fiber.h"
#include "tls/tls.h"

#define TLS_ERROR_MAX 512

/* A context with its trust store; the caller holds a reference of each and
gives it back with tls_context_release. [suspends] 0, or -ENOENT, -EINVAL and a
text in `error`. */
struct tls_context {
  SSL_CTX *ctx;
  X509_STORE *store; /* NULL: nothing to verify with */
  unsigned char certificates[32]; /* of a server: the digest of all its certificates */
};
int tls_context_get(bool server, const struct tls_params *p, struct tls_context *ret, char error[TLS_ERROR_MAX]);
void tls_context_release(struct tls_context *c);

/* Sets up the callbacks of a server's context that need a session (session.c). */
void tls_session_callbacks(SSL_CTX *ctx);

/* For the callbacks of ocsp.c: the result for a server's session; what a client thinks of the answer, as OpenSSL wants to know it. */
void tls_session_note_ocsp(SSL *ssl, enum tls_ocsp_status status);
int tls_session_check_staple(SSL *ssl);
/* For those of resume.c: more bits; a ticket for a client. */
void tls_session_note_resumption(SSL *ssl, int bits);
void tls_session_note_ticket(SSL *ssl, struct str session, int64_t until);

/* The made certificate for this name, with its key; valid for *ret_seconds. */
bool tls_self_signed_use(SSL_CTX *ctx, struct str name, int lifetime, usec_t *ret_until);
void tls_self_signed_clear(void);

/* Writes "(where): error:…" with OpenSSL's oldest error, which is then forgotten with all others. */
void tls_error_text(char to[TLS_ERROR_MAX], const char *where);

/* The list for OpenSSL: an underscore means a hyphen, as in Exim. */
const char *tls_cipher_list(struct arena *a, struct str ciphers);

/* Diffie-Hellman parameters by name or from a file. */
bool tls_dh_use(SSL_CTX *ctx, struct str source, int64_t max_bits, char error[TLS_ERROR_MAX]);
