/* Session resumption by tickets (RFC 5077; RFC 8446, section 4.6.1). Of this room only. */
#pragma once

#include <openssl/ssl.h>
#include "base/str.h"
#include "tls/tls.h"

struct tls_context;

/* Bits of $tls_in_resumption and $tls_out_resumption. */
enum {
  TLS_RESUME_SUPPORTED = 1,
  TLS_RESUME_ASKED = 2,   /* the client wanted a ticket */
  TLS_RESUME_OFFERED = 4, /* the client had a session */
  TLS_RESUME_TICKET = 8,  /* the server gave one */
  TLS_RESUME_RESUMED = 16,
};

/* Has a server's context make and take tickets (keys: ticket_keys.h). A key makes tickets for an hour and takes them until the
next one is an hour old. */
void tls_tickets_use(SSL_CTX *ctx);
/* A session of such a context, before its hello is looked at: tickets are for those with the same certificates, wishes and name. */
void tls_tickets_bind(SSL *ssl, const struct tls_context *c, const struct tls_params *p, struct str name);
/* Fills c->certificates, once for a context: it costs as much as a good part of a handshake. */
bool tls_tickets_digest_certificates(struct tls_context *c);

/* The name that a client's hello carries, or empty. Only in the callback for the hello. */
struct str tls_hello_name(SSL *ssl);

/* Has a client's context tell of tickets (session.c: tls_session_note_ticket). */
void tls_tickets_collect(SSL_CTX *ctx);
/* Gives the client the session it is to resume. false: it cannot be read, or has expired. */
bool tls_ticket_offer(SSL *ssl, struct str session);
