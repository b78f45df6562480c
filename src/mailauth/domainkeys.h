/* DomainKeys (RFC 4870, historic): signatures over header and body together, for messages of old and for old peers. */
#pragma once

#include <openssl/evp.h>

#include "mailauth/canon.h"
#include "mailauth/tags.h"

enum dk_canon { DK_SIMPLE, DK_NOFWS };
enum dk_source { DK_SOURCE_NONE, DK_SOURCE_FROM, DK_SOURCE_SENDER };

/* Whose signature counts: the address of Sender:, else the first of From:. Texts are tainted. */
struct dk_author {
  enum dk_source source;  /* NONE: there is no usable address; the rest is empty */
  struct str address, local_part, domain; /* the domain in lower case */
  size_t field;           /* its place in the header */
};
void dk_find_author(struct arena *a, const struct str *fields, size_t n, struct dk_author *ret);

struct dk_signature {
  struct str domain, selector, names; /* d=, s=, h= (unset: all) */
  struct str signature;               /* b=, decoded */
  enum dk_canon canon;
  size_t field;
};
/* Takes the value of a DomainKey-Signature field apart. False: it has not what it must have. */
bool dk_signature_parse(struct arena *a, struct str value, struct dk_signature *ret);
/* The topmost signature that speaks for the author and covers that field. *ret_any: there was a signature at all. */
bool dk_find_signature(struct arena *a, const struct str *fields, size_t n, const struct dk_author *author, struct dk_signature *ret,
    bool *ret_any);

/* What is signed, and its SHA-1, piece by piece. Lives in its arena. */
struct dk_stream {
  struct canon_body canon;
  enum dk_canon how;
  EVP_MD_CTX *ctx;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_n;
};
struct dk_stream *dk_stream_new(struct arena *a, enum dk_canon how); /* NULL: the library fails */
/* The header fields behind `from` that `names` (unset: all) tell of, and the empty line. */
void dk_stream_header(struct dk_stream *s, struct arena *a, const struct str *fields, size_t n, size_t from, struct str names);
void dk_stream_body(struct dk_stream *s, struct str data);
void dk_stream_end(struct dk_stream *s);

enum dk_key_state { DK_KEY_OK, DK_KEY_REVOKED, DK_KEY_BAD };
struct dk_key {
  EVP_PKEY *pkey; /* freed with the arena */
  int bits;
  bool testing;
};
/* A key record for a sender's local part (g=). */
enum dk_key_state dk_key_parse(struct arena *a, struct str record, struct str local_part, struct dk_key *ret);
bool dk_signature_holds(const struct dk_key *k, const struct dk_signature *sig, const struct dk_stream *s);

/* The policy of a domain (section 3.6); false: it is no such record. */
bool dk_policy_parse(struct arena *a, struct str record, bool *ret_signs_all, bool *ret_testing);
