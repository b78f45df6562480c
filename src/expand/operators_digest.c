/* Digests and binary encodings. */
#include "expand/items.h"

#include "base/ascii.h"
#include "base/encode.h"
#include "base/hash.h"
#include "expand/internal.h"

static int add_digest(struct ctx *c, const char *name, bool upper, struct str s, struct buf *out) {
  struct str hex = hash_hex(c->arena, name, s);
  if (!str_is_set(hex))
    return ctx_fail(c, OUTCOME_ERROR, "digest %s is not available", name);
  buf_add(out, str_untainted(upper ? str_upper(c->arena, hex) : hex));
  return 0;
}

static int eval_md5(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  return add_digest(c, "md5", false, s, out);
}

static int eval_sha1(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  return add_digest(c, "sha1", true, s, out);
}

static int eval_sha2(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  const char *name = !str_is_set(arg) || str_eq_c(arg, "256") ? "sha256"
                     : str_eq_c(arg, "384")                   ? "sha384"
                     : str_eq_c(arg, "512")                   ? "sha512"
                                                              : NULL;
  if (name == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "unrecognised sha2 variant");
  return add_digest(c, name, true, s, out);
}

static int eval_sha3(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  const char *name = !str_is_set(arg) || str_eq_c(arg, "256") ? "sha3-256"
                     : str_eq_c(arg, "224")                   ? "sha3-224"
                     : str_eq_c(arg, "384")                   ? "sha3-384"
                     : str_eq_c(arg, "512")                   ? "sha3-512"
                                                              : NULL;
  if (name == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "unrecognised sha3 variant");
  return add_digest(c, name, true, s, out);
}

static int eval_base64(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  buf_add(out, base64_encode(c->arena, s));
  return 0;
}

static int eval_base64d(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str value;
  if (!base64_decode(c->arena, s, false, &value))
    return ctx_fail(c, OUTCOME_ERROR, "string \"%.*s\" is not well-formed for \"base64d\" operator", STRF(s));
  buf_add(out, value);
  return 0;
}

static int eval_hex2b64(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str bytes;
  for (size_t i = 0; i < s.len; i++)
    if (!ascii_is_xdigit(s.p[i]))
      return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not a hex string", STRF(s));
  if (!hex_decode(c->arena, s, &bytes))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" contains an odd number of characters", STRF(s));
  buf_add(out, base64_encode(c->arena, bytes));
  return 0;
}

const struct expand_operator_def digest_operators[] = {
  {"base64", 0, false, eval_base64},
  {"base64d", 0, false, eval_base64d},
  {"hex2b64", 0, false, eval_hex2b64},
  {"md5", EXPAND_DIGEST, false, eval_md5},
  {"sha1", 0, false, eval_sha1},
  {"sha2", 0, true, eval_sha2},
  {"sha256", 0, true, eval_sha2},
  {"sha3", 0, true, eval_sha3},
  {"str2b64", 0, false, eval_base64},
  {0},
};
