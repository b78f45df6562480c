/* CRAM-MD5 (RFC 2195; Exim manual, chapter "The cram_md5 authenticator"). */
#include <openssl/crypto.h>
#include <time.h>
#include <unistd.h>
#include "base/ascii.h"
#include "base/encode.h"
#include "base/hash.h"
#include "base/random.h"
#include "core/build.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "sasl/drivers.h"

#define DIGEST_TEXT 32 /* 16 bytes in hexadecimal digits */

struct cram_md5_options {
  struct option_expr server_secret, client_secret, client_name;
};

#define AT(field) offsetof(struct cram_md5_options, field)
static const struct option_def options[] = {
  {"client_name", OPTION_EXPR, AT(client_name), "$primary_hostname"},
  {"client_secret", OPTION_EXPR, AT(client_secret)},
  {"server_secret", OPTION_EXPR, AT(server_secret)},
  OPTIONS_END,
};

static bool is_server(const struct instance *i) {
  return str_is_set(((const struct cram_md5_options *)i->options)->server_secret.text);
}

static bool is_client(const struct instance *i) {
  return str_is_set(((const struct cram_md5_options *)i->options)->client_secret.text);
}

static struct str make_challenge(struct ctx *c) {
  if (build.cram_md5_challenge != NULL)
    return str_c(build.cram_md5_challenge);
  return str_printf(c->arena, "<%d%llu.%lld@%.*s>", (int)getpid(), (unsigned long long)random_u64(), (long long)time(NULL),
      STRF(main_options(c->config)->primary_hostname));
}

/* The response is "user digest"; the user's name may hold blanks, but none at its end. */
static bool split_response(struct str response, struct str *ret_user, struct str *ret_digest) {
  ptrdiff_t blank = str_rfind_byte(response, ' ');
  if (blank < 0 || response.len - (size_t)blank - 1 != DIGEST_TEXT)
    return false;
  *ret_user = str_slice(response, 0, (size_t)blank);
  while (ret_user->len > 0 && ascii_is_space(ret_user->p[ret_user->len - 1]))
    ret_user->len--;
  *ret_digest = str_from(response, (size_t)blank + 1);
  return true;
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct cram_md5_options *o = i->options;
  struct str response, user, digest, secret;
  if (str_is_set(initial)) /* "=", too */
    return SASL_UNEXPECTED;
  struct str challenge = make_challenge(c);
  int rc = io->challenge(io->arg, challenge, &response, ret_text);
  if (rc != 0)
    return rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
  if (!split_response(response, &user, &digest)) {
    ptrdiff_t blank = str_rfind_byte(response, ' ');
    sasl_set_auth(c, 1, blank < 0 ? response : str_slice(response, 0, (size_t)blank)); /* for server_set_id */
    return SASL_FAIL;
  }
  sasl_set_auth(c, 1, user);
  rc = expand_option(c, &o->server_secret, &secret);
  if (rc == OUTCOME_FORCED)
    return SASL_FAIL;
  if (rc != 0) {
    *ret_text = c->error;
    return SASL_DEFER;
  }
  struct str expected = hmac_hex(c->arena, "md5", secret, challenge);
  /* Clients write the digest in either case; the comparison takes the same time wherever they differ. */
  struct str given = str_lower(c->arena, digest);
  if (expected.len != DIGEST_TEXT || CRYPTO_memcmp(given.p, expected.p, DIGEST_TEXT) != 0)
    return SASL_FAIL;
  return sasl_server_accept(c, i, ret_text);
}

static enum sasl_result client(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  const struct cram_md5_options *o = i->options;
  struct str secret, name, reply, challenge;
  int code = 0;
  enum sasl_result r = sasl_client_value(c, &o->client_secret, &secret, ret_text);
  if (r == SASL_OK)
    r = sasl_client_value(c, &o->client_name, &name, ret_text);
  if (r != SASL_OK)
    return r;
  r = sasl_client_start(c, i, io, STR_UNSET, &code, &challenge, ret_text);
  if (r != SASL_OK)
    return r;
  if (code != 334)
    return SASL_DEFER; /* a success without a challenge */
  struct str digest = hmac_hex(c->arena, "md5", secret, challenge);
  r = sasl_client_answer(c, io, str_printf(c->arena, "%.*s %.*s", STRF(name), STRF(digest)), &code, &reply, ret_text);
  return r == SASL_OK && code == 334 ? SASL_DEFER : r;
}

const struct authenticator_def sasl_cram_md5 = {
  .driver = {.name = "cram_md5", .class = DRIVER_AUTHENTICATOR, .options = options,
    .options_size = sizeof(struct cram_md5_options), .summary = "CRAM-MD5"},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
  .client = client,
};
