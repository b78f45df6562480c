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

const struct module expand_data_module = {
  .name = "expand-data",
  .summary = "fields, numbers and the message in expansions",
  .items = extract_items,
  .operators = number_operators,
  .variables = message_variables,
};

const struct module expand_digest_module = {
  .name = "expand-digest",
  .summary = "digests and encodings in expansions",
  .operators = digest_operators,
};

const struct module expand_charset_module = {
  .name = "expand-charset",
  .summary = "character sets in expansions",
  .operators = charset_operators,
};

const struct module expand_address_module = {
  .name = "expand-address",
  .summary = "mail addresses in expansions",
  .operators = address_operators,
};

const struct module expand_net_module = {
  .name = "expand-net",
  .summary = "IP addresses and files in expansions",
  .operators = net_operators,
  .variables = policy_variables,
};
