/* The vocabulary of the language in modules, by topic. */
#include "expand/modules.h"

#include "expand/conditions.h"
#include "expand/items.h"
#include "expand/variables.h"

const struct module expand_text_module = {
  .name = "expand-text",
  .summary = "text in expansions: comparing, cutting, quoting, hashing",
  .items = string_items,
  .operators = string_operators,
  .conditions = compare_conditions,
  .variables = later_variables,
};

const struct module expand_list_module = {
  .name = "expand-list",
  .summary = "lists in expansions",
  .items = list_items,
  .operators = list_operators,
  .conditions = list_conditions,
  .variables = system_variables,
};

const struct module expand_field_module = {
  .name = "expand-field",
  .summary = "fields, numbers and the message in expansions",
  .items = extract_items,
  .operators = number_operators,
  .conditions = crypt_conditions,
  .variables = message_variables,
};

static const char *const data_macros[] = {"_CRYPTO_HASH_SHA3", NULL};

const struct module expand_data_module = {
  .name = "expand-data",
  .summary = "files, the environment and digests in expansions",
  .items = data_items,
  .operators = digest_operators,
  .macros = data_macros,
};

const struct module expand_net_module = {
  .name = "expand-net",
  .summary = "sockets and IP addresses in expansions",
  .items = socket_items,
  .operators = net_operators,
  .variables = policy_variables,
};

const struct module expand_lookup_module = {
  .name = "expand-lookup",
  .summary = "lookups and list matches in expansions",
  .items = lookup_items,
  .operators = charset_operators,
  .conditions = match_conditions,
};

const struct module expand_run_module = {
  .name = "expand-run",
  .summary = "commands in expansions",
  .items = run_items,
};

const struct module expand_address_module = {
  .name = "expand-address",
  .summary = "mail addresses in expansions",
  .items = prvs_items,
  .operators = address_operators,
};

static const char *const srs_macros[] = {"_HAVE_SRS", "_HAVE_NATIVE_SRS", NULL};

const struct module expand_srs_module = {
  .name = "expand-srs",
  .summary = "sender rewriting (SRS0) in expansions",
  .support = "SRS",
  .items = srs_items,
  .conditions = srs_conditions,
  .macros = srs_macros,
};

const struct module expand_folder_module = {
  .name = "expand-folder",
  .summary = "IMAP folder names in expansions",
  .items = imap_items,
};

const struct module expand_ldapauth_module = {
  .name = "expand-ldapauth",
  .summary = "passwords checked by an LDAP server",
  .conditions = ldap_conditions,
};
