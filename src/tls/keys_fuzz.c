/* What a worker that was taken over can send to the keys process: any bytes, as one request. No file of the system may be
opened for it; keys are there, so that signatures are reached. */
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "base/arena.h"
#include "tls/keys_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KINDS 3
static struct keys_store *store;
static char files[KINDS][64];
static unsigned char ids[KINDS][KEYS_ID_SIZE];

static void make(int i, EVP_PKEY *key) {
  unsigned char *der;
  snprintf(files[i], sizeof files[i], "/nonexistent/martlet/%d", i);
  (void)keys_public(key, &der, ids[i]);
  OPENSSL_free(der);
  keys_store_add(store, files[i], key, ids[i]);
  EVP_PKEY_free(key);
}

static void begin(void) {
  store = keys_store_new();
  make(0, EVP_RSA_gen(1024));
  make(1, EVP_EC_gen("P-256"));
  make(2, EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
  keys_store_allow(store, STR("/nonexistent/martlet/"), true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  unsigned char reply[KEYS_REPLY_MAX];
  if (!store)
    begin();
  if (size < 1 || size > KEYS_REQUEST_MAX + 100)
    return 0;
  /* The first byte asks for one of the keys that are there, so that the rest is reached. */
  int with = data[0] % (KINDS + 1);
  size_t n = size - 1;
  unsigned char *p = xmalloc(n + 64);
  memcpy(p, data + 1, n);
  struct keys_head head;
  if (with < KINDS && n >= sizeof head) {
    memcpy(&head, p, sizeof head);
    size_t name_n = strlen(files[with]), rest = n - sizeof head;
    memcpy(head.id, ids[with], sizeof head.id);
    head.file_n = (uint16_t)name_n;
    head.data_n = (uint16_t)rest;
    memmove(p + sizeof head + name_n, p + sizeof head, rest);
    memcpy(p + sizeof head, files[with], name_n);
    memcpy(p, &head, sizeof head);
    n += name_n;
  }
  size_t got = keys_store_serve(store, p, n, reply);
  if (got && got < sizeof(struct keys_answer))
    abort();
  free(p);
  return 0;
}
