/* The drivers of this room, for its table, and what they share. */
#pragma once

#include "sasl/authenticator.h"

struct foreign_role; /* expand/foreign.h */
extern const struct foreign_role sasl_cyrus_sasl_role;
extern const struct authenticator_def sasl_cram_md5, sasl_cyrus_sasl, sasl_dovecot, sasl_external, sasl_gsasl, sasl_heimdal_gssapi,
    sasl_plaintext, sasl_spa, sasl_tls;

/* Main options of our own. */
struct sasl_options {
  bool allow_digest_md5;
};

/* DIGEST-MD5 is historic (RFC 6331): only for who asks for it. */
bool sasl_mechanism_allowed(const struct config *config, struct str mechanism);

/* Options of drivers that need a library: they are known without it, too (options.c). */
struct gsasl_options {
  struct option_expr client_authz, client_password, client_spassword, client_username;
  struct option_expr server_hostname, server_key, server_password, server_realm, server_scram_iter, server_scram_salt, server_skey;
  struct str server_mech, server_service;
  bool client_channelbinding, server_channelbinding;
};
struct cyrus_sasl_options {
  struct option_expr server_hostname, server_realm;
  struct str server_mech, server_service;
};
struct heimdal_gssapi_options {
  struct option_expr server_hostname, server_keytab, server_service;
};
/* What they add to the builtin macros. */
extern const char *const sasl_gsasl_macros[], *const sasl_cyrus_sasl_macros[], *const sasl_heimdal_gssapi_macros[];
extern const struct option_def sasl_gsasl_options[], sasl_cyrus_sasl_options[], sasl_heimdal_gssapi_options[];
