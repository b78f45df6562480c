/* crypteq: a password against its encrypted form. */
#include "expand/conditions.h"

#include <crypt.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/encode.h"
#include "base/hash.h"
#include "expand/internal.h"
#include "loop/fiber.h"

/* Both are compared in full, so that the time taken tells nothing. */
static bool same(struct str a, struct str b) {
  unsigned diff = a.len != b.len;
  for (size_t i = 0; i < a.len && i < b.len; i++)
    diff |= (unsigned char)(a.p[i] ^ b.p[i]);
  return diff == 0;
}

static bool digest_matches(struct arena *a, const char *name, struct str password, struct str stored) {
  unsigned char bytes[HASH_MAX];
  size_t n = hash_bytes(name, password, bytes);
  if (stored.len == 2 * n)
    return same(str_lower(a, stored), str_untainted(hash_hex(a, name, password)));
  if (stored.len == (n + 2) / 3 * 4)
    return same(stored, base64_encode(a, str_n((char *)bytes, n)));
  return false;
}

struct crypt_call {
  const char *key, *salt;
  bool crypt16;
  struct crypt_data data;
  char result[CRYPT_OUTPUT_SIZE * 2];
};

static bool crypt_one(struct crypt_call *call, const char *key, const char *salt, char *to, size_t room) {
  const char *r = crypt_r(key, salt, &call->data);
  size_t n = r != NULL ? strlen(r) : 0;
  if (r == NULL || r[0] == '*' || n >= room)
    return false;
  memcpy(to, r, n + 1);
  return true;
}

/* Takes long on purpose: in an offload thread. crypt16 is two traditional crypts, one of the first and one of the next eight
characters, with the same salt. */
static int crypt_offloaded(void *arg) {
  struct crypt_call *call = arg;
  size_t len = strlen(call->key);
  if (!crypt_one(call, call->key, call->salt, call->result, sizeof call->result))
    return -1;
  if (!call->crypt16)
    return 0;
  char second[CRYPT_OUTPUT_SIZE];
  if (!crypt_one(call, len > 8 ? call->key + 8 : "", call->salt, second, sizeof second) || strlen(second) < 2)
    return -1;
  size_t n = strlen(call->result);
  memcpy(call->result + n, second + 2, strlen(second + 2) + 1);
  return 0;
}

static bool crypt_matches(struct ctx *c, bool crypt16, struct str password, struct str stored) {
  if (stored.len < 2 || str_find_byte(password, '\0') >= 0)
    return false;
  struct crypt_call *call = xcalloc(1, sizeof *call);
  call->key = str_dup_c(c->arena, password);
  call->salt = str_dup_c(c->arena, stored);
  call->crypt16 = crypt16;
  bool ok = fiber_offload(crypt_offloaded, call) == 0 && same(str_c(call->result), stored);
  explicit_bzero(call, sizeof *call);
  free(call);
  return ok;
}

static int eval_crypteq(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  struct str password = args->value[0], stored = args->value[1], kind = STR("crypt");
  if (stored.len > 0 && stored.p[0] == '{') {
    ptrdiff_t end = str_find_byte(stored, '}');
    kind = end < 0 ? STR_EMPTY : str_slice(stored, 1, (size_t)end);
    stored = end < 0 ? STR_EMPTY : str_from(stored, (size_t)end + 1);
  }
  if (str_ieq_c(kind, "md5"))
    *ret = digest_matches(c->arena, "md5", password, stored);
  else if (str_ieq_c(kind, "sha1"))
    *ret = digest_matches(c->arena, "sha1", password, stored);
  else if (str_ieq_c(kind, "crypt") || str_ieq_c(kind, "crypt16"))
    *ret = crypt_matches(c, kind.len == 7, password, stored);
  else
    return ctx_fail(c, OUTCOME_ERROR, "unknown encryption mechanism in \"%.*s\"", STRF(args->value[1]));
  return 0;
}

const struct expand_condition_def crypt_conditions[] = {
  {"crypteq", 2, 2, 0, NULL, eval_crypteq},
  {0},
};
