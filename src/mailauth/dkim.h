/* DKIM signatures (RFC 6376, 8301, 8463): reading and verifying. What asks the
DNS is the caller's, so that tests and fuzzers need no network. */
#pragma once

#include <openssl/evp.h>

#include "mailauth/body_hash.h"
#include "mailauth/tags.h"

struct header_index;

enum dkim_status { DKIM_NONE, DKIM_INVALID, DKIM_FAIL, DKIM_PASS };
enum dkim_reason {
  DKIM_OK,
  DKIM_MALFORMED,       /* a tag of the signature is missing or wrong */
  DKIM_VERSION,         /* not version 1 */
  DKIM_ALGORITHM,       /* not one that is known, or that the configuration takes */
  DKIM_KEY_UNAVAILABLE, DKIM_KEY_SYNTAX,
  DKIM_KEY_UNFIT,       /* the key record forbids this use */
  DKIM_KEY_SIZE,        /* shorter than the configuration demands */
  DKIM_BODYHASH, DKIM_SIGNATURE,
};
enum dkim_key_type { DKIM_RSA, DKIM_ED25519 };

#define DKIM_BODY_ALL UINT64_MAX
#define DKIM_NO_TIME (-1)

/* A signature header as it was taken apart; texts are tainted views of it or live in the message's arena. */
struct dkim_signature {
  struct str field;                      /* the header field as it came */
  struct tag_list tags;
  struct str domain, selector, identity; /* d=, s=, i= (unset: not given) */
  struct str algorithm;                  /* "rsa-sha256" */
  enum dkim_key_type key_type;
  const char *hash_name;                 /* "sha256" */
  const EVP_MD *md;
  enum canon header_canon, body_canon;
  uint64_t body_length;                  /* l=, or DKIM_BODY_ALL */
  int64_t created, expires;              /* t=, x=; DKIM_NO_TIME: absent */
  struct str header_names;               /* h=, without white space */
  bool covers_author;                    /* From: is among them; else it says nothing of the author (RFC 6376, section 6.1.1) */
  struct str copied_headers;             /* z=, decoded */
  struct str signature, body_digest;     /* b=, bh=, decoded */
  struct body_hash *hash;
  struct dkim_key *key;                  /* NULL: none yet */
  enum dkim_status status;
  enum dkim_reason reason;
  bool timed_out;                        /* the key may be there later */
  struct dkim_signature *next;
};

/* A published key (RFC 6376, section 3.6.1). */
struct dkim_key {
  struct str service, granularity, notes; /* "*", "*", unset by default */
  bool testing, no_subdomains, revoked;
  int bits;
  enum dkim_key_type type;
  struct str hashes;                     /* h=; unset: any */
  EVP_PKEY *pkey;                        /* freed with the arena */
};

/* Takes a DKIM-Signature field apart. What is wrong with it is in status (INVALID) and reason; NULL when it has not even
tags. Everything lives in `a`. */
struct dkim_signature *dkim_signature_parse(struct arena *a, struct str field);
/* The same for fields that are made alike: those of ARC have no version, their i= is an instance; seals have neither h= nor bh=. */
enum dkim_field { DKIM_FIELD, DKIM_ARC_MESSAGE, DKIM_ARC_SEAL };
struct dkim_signature *dkim_signature_parse_as(struct arena *a, struct str field, enum dkim_field kind);
/* The name of the key's TXT record. */
struct str dkim_key_name(struct arena *a, const struct dkim_signature *s);
/* An RSA key of a key record, for the caller to free; NULL: it is none. */
EVP_PKEY *dkim_rsa_key(struct str der);
/* Takes a key record apart; NULL: it is none (syntax, unknown type), or it is revoked. */
struct dkim_key *dkim_key_parse(struct arena *a, struct str record);
/* Does the key let itself be used for this signature (service, hash, subdomains, type)? */
bool dkim_key_fits(const struct dkim_key *k, const struct dkim_signature *s);

/* The header fields of a message as they came, by name. `fields` in their order; the array is copied. */
struct header_index *header_index_new(struct arena *a, const struct str *fields, size_t n);
/* Adds those that a list of names ("from:to:from") takes, the last of a name first, in their canonical form (RFC 6376,
section 5.4.2). */
void header_index_select(struct header_index *index, struct str names, enum canon how, struct buf *out);
/* The index's own room for what a signature covers, emptied: for use until it is asked for again. */
struct buf *header_index_data(struct header_index *index);
/* Adds a signature's own field, the value of its tag b= left out, without an end of line. */
void dkim_add_own_field(const struct dkim_signature *s, struct buf *out);
/* Is the body the one that was signed? Its hash is finished. */
bool dkim_body_holds(const struct dkim_signature *s);
/* Judges a signature whose key is there and whose body holds: sets status and reason. `min_bits` is for its type
of key. */
void dkim_verify(struct header_index *index, struct dkim_signature *s, int min_bits);
/* The same where what was signed is at hand. */
struct buf;
void dkim_verify_data(struct dkim_signature *s, struct buf *data, int min_bits);
/* Asks the DNS for the key; what is wrong is in status (INVALID), reason and timed_out. [suspends] The first usable record counts. */
struct ctx;
void dkim_fetch_key(struct ctx *c, struct arena *a, struct dkim_signature *s);

const char *dkim_status_name(enum dkim_status s);
/* Is `domain` the same as `parent`, or below it? */
bool dkim_is_subdomain(struct str domain, struct str parent);
