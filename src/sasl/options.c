/* Options of the drivers that need a library. */
#include "sasl/drivers.h"

#define AT(field) offsetof(struct gsasl_options, field)
const struct option_def sasl_gsasl_options[] = {
  {"client_authz", OPTION_EXPR, AT(client_authz)},
  {"client_channelbinding", OPTION_BOOL, AT(client_channelbinding)},
  {"client_password", OPTION_EXPR, AT(client_password)},
  {"client_spassword", OPTION_EXPR, AT(client_spassword)},
  {"client_username", OPTION_EXPR, AT(client_username)},
  {"server_channelbinding", OPTION_BOOL, AT(server_channelbinding)},
  {"server_hostname", OPTION_EXPR, AT(server_hostname), "$primary_hostname"},
  {"server_key", OPTION_EXPR, AT(server_key)},
  {"server_mech", OPTION_STRING, AT(server_mech)},
  {"server_password", OPTION_EXPR, AT(server_password)},
  {"server_realm", OPTION_EXPR, AT(server_realm)},
  {"server_scram_iter", OPTION_EXPR, AT(server_scram_iter), "4096"},
  {"server_scram_salt", OPTION_EXPR, AT(server_scram_salt)},
  {"server_service", OPTION_STRING, AT(server_service), "smtp"},
  {"server_skey", OPTION_EXPR, AT(server_skey)},
  OPTIONS_END,
};
#undef AT

#define AT(field) offsetof(struct cyrus_sasl_options, field)
const struct option_def sasl_cyrus_sasl_options[] = {
  {"server_hostname", OPTION_EXPR, AT(server_hostname), "$primary_hostname"},
  {"server_mech", OPTION_STRING, AT(server_mech)},
  {"server_realm", OPTION_EXPR, AT(server_realm)},
  {"server_service", OPTION_STRING, AT(server_service), "smtp"},
  OPTIONS_END,
};
#undef AT

#define AT(field) offsetof(struct heimdal_gssapi_options, field)
const struct option_def sasl_heimdal_gssapi_options[] = {
  {"server_hostname", OPTION_EXPR, AT(server_hostname), "$primary_hostname"},
  {"server_keytab", OPTION_EXPR, AT(server_keytab)},
  {"server_service", OPTION_EXPR, AT(server_service), "smtp"},
  OPTIONS_END,
};
