/* The modules of the expansion language, for src/registry.c: in front of all that replace one of their variables. */
#pragma once

#include "core/module.h"

struct foreign_role; /* expand/foreign.h */
extern const struct foreign_role dlfunc_role, pam_role;

extern const struct module expand_text_module;
extern const struct module expand_list_module;
extern const struct module expand_field_module;
extern const struct module expand_data_module;
extern const struct module expand_net_module;
extern const struct module expand_lookup_module;
extern const struct module expand_run_module;
extern const struct module expand_address_module;
extern const struct module expand_ldapauth_module;
extern const struct module expand_srs_module;
extern const struct module expand_saslauthd_module;
extern const struct module expand_dlfunc_module;
extern const struct module expand_pam_module;
extern const struct module expand_radius_module;
extern const struct module expand_perl_module;
extern const struct module expand_folder_module;
extern const struct module expand_authresults_module;
extern const struct module expand_host_module;
extern const struct module expand_body_module;
extern const struct module expand_tls_module;
extern const struct module expand_acl_module;
