/* Between the channel to the keys process and OpenSSL's keys. */
#pragma once

#include "tls/keys.h"
#include "tls/keys_wire.h"

/* A key of ours: what it signs with, and for everything else the public key in OpenSSL's own form. */
struct keys_key {
  const char *type;      /* "RSA", as OpenSSL names it */
  EVP_PKEY *public;      /* NULL: there is nothing in it yet */
  bool private;          /* `file` and `id` say who signs */
  char *file;
  unsigned char id[KEYS_ID_SIZE];
};

/* One question and its answer, in `to`; the number is filled in. [suspends] Bytes; or -errno, and a text in `error`. */
int keys_ask(struct keys_request *r, unsigned char to[KEYS_ANSWER_MAX], char error[KEYS_ERROR_MAX]) MUST_CHECK;

/* Teaches OpenSSL such keys, once in a process. */
bool keys_provider_load(void);
/* One with a copy of file and id; NULL: a kind that cannot be used. */
EVP_PKEY *keys_provider_key(EVP_PKEY *public, struct str file, const unsigned char id[KEYS_ID_SIZE]);
