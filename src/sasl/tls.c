/* Authentication by what TLS has shown, without a command (Exim manual, chapter "The tls authenticator"). */
#include "sasl/drivers.h"

struct tls_auth_options {
  struct option_expr param[3];
};

#define AT(n) offsetof(struct tls_auth_options, param[n])
static const struct option_def options[] = {
  {"server_param", OPTION_EXPR, AT(0), .flags = OPTION_ALIAS | OPTION_HIDDEN, .alias_of = "server_param1"},
  {"server_param1", OPTION_EXPR, AT(0)},
  {"server_param2", OPTION_EXPR, AT(1)},
  {"server_param3", OPTION_EXPR, AT(2)},
  OPTIONS_END,
};

static bool is_server(const struct instance *i) { return true; }
static bool is_client(const struct instance *i) { return false; }

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct tls_auth_options *o = i->options;
  const struct authenticator_options *g = i->generic;
  for (int n = 0; n < 3; n++) {
    struct str value;
    if (!str_is_set(o->param[n].text))
      continue;
    enum sasl_result r = sasl_server_value(c, &o->param[n], &value, ret_text);
    if (r != SASL_OK)
      return r;
    sasl_set_auth(c, n + 1, value);
  }
  /* Without a condition nothing would say who may. */
  return str_is_set(g->server_condition.text) ? sasl_server_accept(c, i, ret_text) : SASL_FAIL;
}

const struct authenticator_def sasl_tls = {
  .driver = {.name = "tls", .class = DRIVER_AUTHENTICATOR, .options = options, .options_size = sizeof(struct tls_auth_options),
    .summary = "client certificates"},
  .not_smtp = true,
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
};
