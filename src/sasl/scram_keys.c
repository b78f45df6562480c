#include "sasl/scram_keys.h"

#include <errno.h>
#include <openssl/evp.h>

#include "base/hash.h"
#include "loop/fiber.h"

struct job {
  const EVP_MD *md;
  struct str password, salt;
  int iterations;
  struct scram_keys *keys;
};

static int derive(void *arg) {
  struct job *j = arg;
  return PKCS5_PBKDF2_HMAC(j->password.p, (int)j->password.len, (const unsigned char *)j->salt.p, (int)j->salt.len, j->iterations, j->md,
             (int)j->keys->len, j->keys->salted) == 1 ? 0 : -EINVAL;
}

int scram_keys_make(const char *digest, struct str password, struct str salt, uint64_t iterations, struct scram_keys *ret) {
  const EVP_MD *md = strcmp(digest, "sha1") == 0 ? EVP_sha1() : strcmp(digest, "sha256") == 0 ? EVP_sha256() : NULL;
  unsigned char client[HASH_MAX];
  if (md == NULL || iterations < 1 || iterations > SCRAM_ITERATIONS_MAX || salt.len > 4096)
    return -EINVAL;
  *ret = (struct scram_keys){.len = (size_t)EVP_MD_get_size(md)};
  struct job j = {.md = md, .password = password, .salt = salt, .iterations = (int)iterations, .keys = ret};
  if (fiber_offload(derive, &j) != 0)
    return -EINVAL;
  struct str salted = str_n((const char *)ret->salted, ret->len);
  unsigned char server[HASH_MAX], stored[HASH_MAX];
  hmac_bytes(digest, salted, STR("Client Key"), client);
  hash_bytes(digest, str_n((const char *)client, ret->len), stored);
  hmac_bytes(digest, salted, STR("Server Key"), server);
  memcpy(ret->stored, stored, ret->len);
  memcpy(ret->server, server, ret->len);
  return 0;
}
