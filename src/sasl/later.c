/* Authenticators that are known but not there yet: a configuration that uses
one is refused with its name (Exim manual, chapters 36 to 42). */
#include "sasl/sasl.h"

struct later {
  struct option_expr text[16];
  struct str string[2];
  bool flag[2];
};

#define TEXT(n) offsetof(struct later, text) + (n) * sizeof(struct option_expr)
#define STRING(n) offsetof(struct later, string) + (n) * sizeof(struct str)
#define FLAG(n) offsetof(struct later, flag) + (n) * sizeof(bool)

static const struct option_def cyrus_sasl_options[] = {
  {"server_hostname", OPTION_EXPR, TEXT(0), "$primary_hostname"},
  {"server_mech", OPTION_STRING, STRING(0)},
  {"server_realm", OPTION_EXPR, TEXT(1)},
  {"server_service", OPTION_STRING, STRING(1), "smtp"},
  OPTIONS_END,
};

static const struct option_def dovecot_options[] = {
  {"server_socket", OPTION_STRING, STRING(0)},
  {"server_tls", OPTION_BOOL, FLAG(0)},
  OPTIONS_END,
};

static const struct option_def external_options[] = {
  {"client_send", OPTION_EXPR, TEXT(0)},
  {"server_param2", OPTION_EXPR, TEXT(1)},
  {"server_param3", OPTION_EXPR, TEXT(2)},
  OPTIONS_END,
};

static const struct option_def gsasl_options[] = {
  {"client_authz", OPTION_EXPR, TEXT(0)},
  {"client_channelbinding", OPTION_BOOL, FLAG(0)},
  {"client_password", OPTION_EXPR, TEXT(1)},
  {"client_spassword", OPTION_EXPR, TEXT(2)},
  {"client_username", OPTION_EXPR, TEXT(3)},
  {"server_channelbinding", OPTION_BOOL, FLAG(1)},
  {"server_hostname", OPTION_EXPR, TEXT(4), "$primary_hostname"},
  {"server_key", OPTION_EXPR, TEXT(5)},
  {"server_mech", OPTION_STRING, STRING(0)},
  {"server_password", OPTION_EXPR, TEXT(6)},
  {"server_realm", OPTION_EXPR, TEXT(7)},
  {"server_scram_iter", OPTION_EXPR, TEXT(8), "4096"},
  {"server_scram_salt", OPTION_EXPR, TEXT(9)},
  {"server_service", OPTION_STRING, STRING(1), "smtp"},
  {"server_skey", OPTION_EXPR, TEXT(10)},
  OPTIONS_END,
};

static const struct option_def heimdal_gssapi_options[] = {
  {"server_hostname", OPTION_EXPR, TEXT(0), "$primary_hostname"},
  {"server_keytab", OPTION_EXPR, TEXT(1)},
  {"server_service", OPTION_EXPR, TEXT(2), "smtp"},
  OPTIONS_END,
};

static const struct option_def spa_options[] = {
  {"client_domain", OPTION_EXPR, TEXT(0)},
  {"client_password", OPTION_EXPR, TEXT(1)},
  {"client_username", OPTION_EXPR, TEXT(2)},
  {"server_password", OPTION_EXPR, TEXT(3)},
  OPTIONS_END,
};

static const struct option_def tls_options[] = {
  {"server_param", OPTION_EXPR, TEXT(0), .flags = OPTION_ALIAS | OPTION_HIDDEN, .alias_of = "server_param1"},
  {"server_param1", OPTION_EXPR, TEXT(0)},
  {"server_param2", OPTION_EXPR, TEXT(1)},
  {"server_param3", OPTION_EXPR, TEXT(2)},
  OPTIONS_END,
};

static int refuse(struct config_reader *r, struct instance *i) {
  return config_error_at(r, i->where, "authenticator %.*s: the driver \"%s\" is not supported yet", STRF(i->name),
      i->driver->name);
}

static bool never(const struct instance *i) { return false; }

#define LATER(driver_name)                                                                                             \
  {                                                                                                                    \
    .driver = {.name = #driver_name, .class = DRIVER_AUTHENTICATOR, .options = driver_name##_options,                   \
      .options_size = sizeof(struct later), .later = true, .init = refuse},                                             \
    .is_server = never, .is_client = never,                                                                            \
  }

extern const struct authenticator_def sasl_later[];
const struct authenticator_def sasl_later[] = {
  LATER(cyrus_sasl), LATER(dovecot), LATER(external), LATER(gsasl), LATER(heimdal_gssapi), LATER(spa), LATER(tls),
};
