/* Keys of SCRAM (RFC 5802, section 3), made from passwords in an offload thread: that is meant to take time. */
#pragma once

#include "base/str.h"

#define SCRAM_ITERATIONS_MAX 5000000
#define SCRAM_KEY_MAX 32

struct scram_keys {
  size_t len; /* 20 or 32 bytes each */
  unsigned char salted[SCRAM_KEY_MAX], stored[SCRAM_KEY_MAX], server[SCRAM_KEY_MAX];
};

/* `digest`: "sha1" or "sha256"; the password is prepared (SASLprep), the salt raw. [suspends] 0 or -EINVAL. */
int scram_keys_make(const char *digest, struct str password, struct str salt, uint64_t iterations, struct scram_keys *ret);
