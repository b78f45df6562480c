/* What workers and the keys process say to each other (docs/internals/keys.md): one datagram each, of a fixed head and two
strings. Both sides have the same program; the process still believes nothing of what a worker sends. */
#pragma once

#include "base/outcome.h"
#include "base/str.h"

#define KEYS_NAME_MAX 1024        /* of a file */
#define KEYS_DATA_MAX 8192        /* what is signed: a digest, or for EdDSA all of it */
#define KEYS_ANSWER_MAX 4096      /* a public key, a signature, or a text */
#define KEYS_ID_SIZE 32           /* SHA-256 of the public key (SubjectPublicKeyInfo) */

enum keys_op { KEYS_LOAD = 1, KEYS_SIGN };
enum keys_digest { KEYS_NO_DIGEST, KEYS_SHA1, KEYS_SHA224, KEYS_SHA256, KEYS_SHA384, KEYS_SHA512, KEYS_DIGESTS };
enum keys_padding { KEYS_NO_PADDING, KEYS_PKCS1, KEYS_PSS, KEYS_PADDINGS };

struct keys_request {
  uint32_t number;
  enum keys_op op;
  enum keys_digest digest;
  enum keys_padding padding;   /* of an RSA key's signature */
  int salt;                    /* of KEYS_PSS: bytes, or -1: as many as the digest has */
  unsigned char id[KEYS_ID_SIZE]; /* of KEYS_SIGN */
  struct str file, data;       /* data: of KEYS_SIGN */
};
struct keys_head {
  uint32_t number;
  uint16_t op, digest, padding, file_n, data_n;
  int16_t salt;
  unsigned char id[KEYS_ID_SIZE];
};
#define KEYS_REQUEST_MAX (sizeof(struct keys_head) + KEYS_NAME_MAX + KEYS_DATA_MAX)

/* Bytes written to `to`, or 0: something is too long. */
size_t keys_request_write(const struct keys_request *r, unsigned char to[KEYS_REQUEST_MAX]) MUST_CHECK;
/* false: not as it must be. The strings are views of p, tainted. */
bool keys_request_read(const unsigned char *p, size_t n, struct keys_request *ret) MUST_CHECK;

/* An answer: this, and a public key (DER), a signature, or what is wrong. */
struct keys_answer {
  uint32_t number;
  uint32_t failed;
};
#define KEYS_REPLY_MAX (sizeof(struct keys_answer) + KEYS_ANSWER_MAX)

const char *keys_digest_name(enum keys_digest d); /* "SHA256"; NULL for KEYS_NO_DIGEST */
enum keys_digest keys_digest_of(const char *name); /* KEYS_NO_DIGEST: none of ours */
