/* EXTERNAL (RFC 4422, appendix A; Exim manual, chapter "The external
authenticator"): the client only names itself; what was established otherwise decides. */
#include "sasl/drivers.h"

struct external_options {
  struct option_expr client_send, server_param2, server_param3;
};

#define AT(field) offsetof(struct external_options, field)
static const struct option_def options[] = {
  {"client_send", OPTION_EXPR, AT(client_send)},
  {"server_param2", OPTION_EXPR, AT(server_param2)},
  {"server_param3", OPTION_EXPR, AT(server_param3)},
  OPTIONS_END,
};

static bool is_server(const struct instance *i) {
  return str_is_set(((const struct authenticator_options *)i->generic)->server_condition.text);
}

static bool is_client(const struct instance *i) {
  return str_is_set(((const struct external_options *)i->options)->client_send.text);
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct external_options *o = i->options;
  const struct option_expr *params[] = {&o->server_param2, &o->server_param3};
  struct str identity = initial;
  if (!str_is_set(initial)) {
    int rc = io->challenge(io->arg, STR_EMPTY, &identity, ret_text);
    if (rc != 0)
      return rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
  }
  sasl_set_auth(c, 1, identity);
  for (int n = 0; n < 2; n++) {
    struct str value;
    enum sasl_result r = sasl_server_value(c, params[n], &value, ret_text);
    if (r != SASL_OK)
      return r;
    if (str_is_set(params[n]->text))
      sasl_set_auth(c, n + 2, value);
  }
  return sasl_server_accept(c, i, ret_text);
}

static enum sasl_result client(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  const struct external_options *o = i->options;
  struct str identity, challenge;
  int code = 0;
  enum sasl_result r = sasl_client_value(c, &o->client_send, &identity, ret_text);
  if (r != SASL_OK)
    return r;
  r = sasl_client_start(c, i, io, identity, &code, &challenge, ret_text);
  if (r != SASL_OK || code != 334)
    return r;
  if (sasl_client_cancel(c, io, STR_EMPTY, ret_text) == SASL_GONE)
    return SASL_GONE;
  *ret_text = str_printf(c->arena, "Too few items in client_send in %.*s authenticator", STRF(i->name));
  return SASL_ERROR;
}

const struct authenticator_def sasl_external = {
  .driver = {.name = "external", .class = DRIVER_AUTHENTICATOR, .options = options, .options_size = sizeof(struct external_options),
    .summary = "EXTERNAL"},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
  .client = client,
};
