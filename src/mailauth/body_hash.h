/* Hashes of a body, all of them in one pass: each different wish (digest,
canonical form, length) is computed once however many signatures have it. */
#pragma once

#include <openssl/evp.h>

#include "mailauth/canon.h"

#define BODY_HASHES_MAX 24 /* different ones for one message */

struct body_hash {
  const EVP_MD *md;
  struct canon_body body;
  EVP_MD_CTX *ctx;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_n;       /* 0: not finished */
  struct body_hash *next;
};

struct body_hashes {
  struct arena *arena;     /* frees what OpenSSL holds when it goes */
  struct body_hash *first;
  int n;
};

/* The hash that computes this, new or one that is there; NULL: too many, or the library fails. */
struct body_hash *body_hash_want(struct body_hashes *all, const EVP_MD *md, enum canon how, uint64_t limit);
void body_hashes_add(struct body_hashes *all, struct str data);
void body_hashes_end(struct body_hashes *all);

#define BODY_LINE_MAX 16384 /* bytes of a line with its CRLF: longer ones are not signed, and signatures over them not judged */
struct line_watch {
  size_t length; /* of the line so far */
  bool too_long; /* one was */
};
void line_watch_add(struct line_watch *w, struct str data);
