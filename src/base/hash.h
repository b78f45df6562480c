/* Cryptographic digests, thin wrappers of OpenSSL. Usable in any thread. */
#pragma once

#include "base/str.h"

struct arena;
struct hash;

#define HASH_MAX 64

/* Names: md5, sha1, sha224, sha256, sha384, sha512, sha3-224, sha3-256,
sha3-384, sha3-512; case is ignored. Length of its digest, or 0: unknown. */
size_t hash_length(const char *name);

/* The raw digest of a text into `to` (HASH_MAX bytes). Its length, or 0: unknown name. */
size_t hash_bytes(const char *name, struct str text, unsigned char *to);
/* The digest in lower case hexadecimal digits, in `a`, with the text's taint
bit; unset for an unknown name. */
struct str hash_hex(struct arena *a, const char *name, struct str text);
size_t hmac_bytes(const char *name, struct str key, struct str text, unsigned char *to);
struct str hmac_hex(struct arena *a, const char *name, struct str key, struct str text);

/* Piece by piece: ends with the arena. NULL: unknown name. */
struct hash *hash_new(struct arena *a, const char *name);
void hash_add(struct hash *h, struct str text);
size_t hash_end(struct hash *h, unsigned char *to);
