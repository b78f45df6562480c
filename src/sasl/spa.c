/* NTLM, "Secure Password Authentication" (Exim manual, chapter "The spa authenticator"). */
#include "base/encode.h"
#include "base/random.h"
#include "core/main_options.h"
#include "sasl/drivers.h"
#include "sasl/ntlm.h"

struct spa_options {
  struct option_expr client_domain, client_password, client_username, server_password;
};

#define AT(field) offsetof(struct spa_options, field)
static const struct option_def options[] = {
  {"client_domain", OPTION_EXPR, AT(client_domain)},
  {"client_password", OPTION_EXPR, AT(client_password)},
  {"client_username", OPTION_EXPR, AT(client_username)},
  {"server_password", OPTION_EXPR, AT(server_password)},
  OPTIONS_END,
};

static bool has(const struct option_expr *o) { return str_is_set(o->text); }

static bool is_server(const struct instance *i) { return has(&((const struct spa_options *)i->options)->server_password); }

static bool is_client(const struct instance *i) { return has(&((const struct spa_options *)i->options)->client_username); }

static enum sasl_result asked(int rc) {
  return rc == 0 ? SASL_OK : rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct spa_options *o = i->options;
  struct str message = initial, password;
  struct ntlm_response response;
  uint32_t flags;
  unsigned char nonce[NTLM_CHALLENGE];
  enum sasl_result r = str_is_set(initial) ? SASL_OK : asked(io->prompt(io->arg, STR("NTLM supported"), &message, ret_text));
  if (r != SASL_OK)
    return r;
  if (!ntlm_read_negotiate(message, &flags))
    return SASL_FAIL;
  random_bytes(nonce, sizeof nonce);
  uint32_t ours = (flags & NTLM_UNICODE ? NTLM_UNICODE : NTLM_OEM) | NTLM_NTLM | NTLM_TARGET_TYPE_SERVER | NTLM_TARGET_INFO |
                  (flags & (NTLM_REQUEST_TARGET | NTLM_ALWAYS_SIGN));
  struct str offer = ntlm_write_challenge(c->arena, ours, nonce, main_options(c->config)->primary_hostname);
  r = asked(io->challenge(io->arg, offer, &message, ret_text));
  if (r != SASL_OK)
    return r;
  if (!ntlm_read_response(c->arena, message, &response) || memchr(response.user.p, 0, response.user.len))
    return SASL_FAIL;
  sasl_set_auth(c, 1, response.user);
  r = sasl_server_value(c, &o->server_password, &password, ret_text);
  if (r != SASL_OK)
    return r;
  return ntlm_verify(c->arena, &response, nonce, password) ? sasl_server_accept(c, i, ret_text) : SASL_FAIL;
}

static enum sasl_result client(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  const struct spa_options *o = i->options;
  struct str user, password, domain, reply, message;
  struct ntlm_challenge challenged;
  struct ntlm_response response;
  int code = 0;
  enum sasl_result r = sasl_client_value(c, &o->client_username, &user, ret_text);
  if (r == SASL_OK)
    r = sasl_client_value(c, &o->client_password, &password, ret_text);
  if (r == SASL_OK)
    r = sasl_client_value(c, &o->client_domain, &domain, ret_text);
  if (r != SASL_OK)
    return r;
  /* What the first 334 says is not always base64. */
  if (io->converse(io->arg, str_printf(c->arena, "AUTH %.*s", STRF(sasl_public_name(i))), &code, &reply) != 0)
    return SASL_GONE;
  *ret_text = reply;
  if (code != 334) /* a success without a question is out of step */
    return code / 100 == 5 ? SASL_FAIL : SASL_DEFER;
  message = ntlm_write_negotiate(c->arena, NTLM_UNICODE | NTLM_OEM | NTLM_REQUEST_TARGET | NTLM_NTLM | NTLM_ALWAYS_SIGN);
  r = sasl_client_answer(c, io, message, &code, &reply, ret_text);
  if (r != SASL_OK || code != 334)
    return r;
  if (!ntlm_read_challenge(reply, &challenged))
    return sasl_client_cancel(c, io, STR("bad challenge"), ret_text);
  if (!ntlm_answer(c->arena, &challenged, user, domain, password, &response))
    return sasl_client_cancel(c, io, STR("NTLM response could not be made"), ret_text);
  message = ntlm_write_response(c->arena, &response, challenged.flags & NTLM_UNICODE);
  r = sasl_client_answer(c, io, message, &code, &reply, ret_text);
  return r == SASL_OK && code == 334 ? SASL_DEFER : r;
}

static int init(struct config_reader *r, struct instance *i) {
  const struct spa_options *o = i->options;
  if (!ntlm_crypt_there())
    return config_error_at(r, i->where, "authenticator %.*s: the driver \"spa\" needs OpenSSL's legacy provider (MD4, DES)", STRF(i->name));
  if (has(&o->client_username) != has(&o->client_password))
    return config_error(r, "one of client_username and client_password cannot be set without the other");
  return 0;
}

const struct authenticator_def sasl_spa = {
  .driver = {.name = "spa", .class = DRIVER_AUTHENTICATOR, .options = options, .options_size = sizeof(struct spa_options),
    .summary = "NTLM", .init = init},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
  .client = client,
};
