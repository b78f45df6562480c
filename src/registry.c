#include "acl/acl.h"
#include "core/main_options.h"
#include "core/module.h"
#include "daemon/options.h"
#include "dns/options.h"
#include "expand/foreign.h"
#include "expand/modules.h"
#include "filter/filter.h"
#include "lookup/types.h"
#include "mailauth/module.h"
#include "message/rewrite.h"
#include "queue/retry.h"
#include "route/options.h"
#include "route/redirect_srs.h"
#include "sasl/authenticator.h"
#include "sasl/drivers.h"
#include "scan/scan.h"
#include "smtp/client/international.h"
#include "smtp/client/module.h"
#include "smtp/client/requiretls.h"
#include "smtp/server/server.h"
#include "tls/module.h"
#include "transport/module.h"

/* All modules. A module's number is its place here; the order decides the order
of words in -bV and of calls at each moment (module_hooks). */
const struct module *const modules[] = {
  &core_module,
  &daemon_module,
  &dns_module,
  &expand_text_module,
  &expand_list_module,
  &expand_field_module,
  &expand_data_module,
  &expand_net_module,
  &expand_lookup_module,
  &expand_run_module,
  &expand_address_module,
  &expand_ldapauth_module,
  &expand_host_module,
  &expand_body_module,
  &expand_tls_module,
  &lookup_module,
  &rewrite_module,
  &acl_module,
  &expand_acl_module,
  &expand_dlfunc_module,
  &expand_perl_module,
  &expand_saslauthd_module,
  &expand_pam_module,
  &expand_radius_module,
  &expand_srs_module,
  &expand_folder_module,
  &expand_authresults_module,
  &spf_module,
  &dkim_module,
  &domainkeys_module,
  &dmarc_module,
  &arc_module,
  &sign_module,
  &scan_module,
  &mime_module,
  &regex_module,
  &malware_module,
  &spam_module,
  &dcc_module,
  &bmi_module,
  &tls_module,
  &smtp_server_module,
  &smtp_utf8_module,
  &requiretls_module,
  &sasl_module,
  &filter_module,
  &routers_module,
  &srs_module,
  &transport_module,
  &smtp_client_module,
  &retry_module,
  NULL,
};

/* What this program does in processes of its own. */
const struct foreign_role *const foreign_roles[] = {
  &dlfunc_role,
  &pam_role,
  &dbm_verify_role,
  &bmi_library_role,
  &sasl_cyrus_sasl_role,
  NULL,
};
