/* Private keys that this process does not have (key_isolation): the keys process reads the files and signs, and here are keys of
OpenSSL that ask it (docs/internals/keys.md). */
#pragma once

#include <openssl/evp.h>
#include "base/outcome.h"
#include "base/str.h"

#define KEYS_ERROR_MAX 256

/* From now on this process does so. `connect` is asked for a channel when there is none: a descriptor that it gives away, or
-errno; NULL: there is none until keys_use_channel brings one. */
void keys_isolate(int (*connect)(void *arg), void *arg);
bool keys_isolated(void);
/* A channel to the keys process, in place of the one before. Takes the descriptor. */
void keys_use_channel(int fd);
/* The private key in this file, which is not tainted. [suspends] 0, or -errno and a text in `error`. */
int keys_load(struct str file, EVP_PKEY **ret, char error[KEYS_ERROR_MAX]) MUST_CHECK;
/* Gives the channel back (leak checkers). */
void keys_done(void);
