/* TLSA records for a client's handshake (RFC 6698, 7671, 7672); OpenSSL does the matching. */
#pragma once

#include "base/str.h"

struct ssl_st;
struct arena;
struct tls_params;

#define TLS_TLSA_MAX 64 /* records of one set that are used */

enum tls_tlsa_usage { TLSA_PKIX_TA, TLSA_PKIX_EE, TLSA_DANE_TA, TLSA_DANE_EE };

struct tls_tlsa {
  unsigned char usage, selector, matching;
  struct str data;
};

/* Reads the data of a record. false: not usable for SMTP (RFC 7672, 3.1.3): another usage than 2 or 3, an unknown selector
or matching type, a digest of the wrong length, a whole certificate or key that is none. ret->data points into rdata. */
bool tls_tlsa_read(struct str rdata, struct tls_tlsa *ret);

/* For the room: gives the records of p->tlsa to a session that is to begin. 0 or -EINVAL. */
int tls_dane_prepare(struct ssl_st *ssl, struct arena *a, const struct tls_params *p);
/* Was the peer verified by one of the records? */
bool tls_dane_verified(struct ssl_st *ssl);
