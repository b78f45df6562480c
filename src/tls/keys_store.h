/* The keys process's own part: which files may be asked for, the keys that were read from them, signatures. Knows no
sockets. May be used by several threads. */
#pragma once

#include <openssl/evp.h>
#include "tls/keys_wire.h"

struct arena;
struct keys_store;

struct keys_store *keys_store_new(void);
void keys_store_free(struct keys_store *s);
/* Before it is used: a file that may be asked for; `prefix`: all whose names begin so. Absolute; false: it cannot be. */
bool keys_store_allow(struct keys_store *s, struct str name, bool prefix);
bool keys_store_allows(const struct keys_store *s, struct str file);
/* Answers a request; the bytes in `to`. 0: it is no request, and who sends such a thing gets no more answers. */
size_t keys_store_serve(struct keys_store *s, const unsigned char *request, size_t n, unsigned char to[KEYS_REPLY_MAX]) MUST_CHECK;

/* A key that was not read from there (tests). */
void keys_store_add(struct keys_store *s, const char *file, EVP_PKEY *key, const unsigned char id[KEYS_ID_SIZE]);

/* Names of files in the text of an option, before its expansion: fn(arg, name, prefix) for each absolute one; with `prefix` it
is what stands in front of something that is expanded. */
void keys_names_in(struct str text, void (*fn)(void *arg, struct str name, bool prefix), void *arg);

/* A private key as options give it: PEM, or base64 of DER or of the 32 bytes of Ed25519. NULL: it is none, or has a passphrase. */
EVP_PKEY *keys_parse(struct arena *a, struct str text);
/* The public part (DER, to be freed with OPENSSL_free) and its SHA-256. Its length; 0: the library fails. */
size_t keys_public(EVP_PKEY *key, unsigned char **ret, unsigned char id[KEYS_ID_SIZE]);
