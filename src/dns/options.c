#include "dns/options.h"

#include "config/config.h"
#include "core/module.h"
#include "dns/validator.h"

#define OFF(f) offsetof(struct dns_options, f)
static const struct option_def options[] = {
    {"dns_resolver", OPTION_STRING, OFF(resolver), "system"},
    {"dns_trust_anchor", OPTION_STRING, OFF(trust_anchor), "/usr/share/dns/root.key"},
    {"dns_trusted_servers", OPTION_STRING, OFF(trusted_servers), NULL},
    {"dns_validator_config", OPTION_STRING, OFF(validator_config), NULL},
    OPTIONS_END,
};

static int check(struct config_reader *r, void *block) {
  const struct dns_options *o = block;
  if (str_eq_c(o->resolver, "system"))
    return 0;
  if (!str_eq_c(o->resolver, "validating"))
    return config_error(r, "dns_resolver must be \"system\" or \"validating\", not \"%.*s\"", STRF(o->resolver));
  if (!validator_available())
    return config_error(r, "dns_resolver = validating: this program was built without libunbound");
  if (o->trust_anchor.len == 0 || o->trust_anchor.p[0] != '/' || (str_is_set(o->validator_config) && o->validator_config.len && o->validator_config.p[0] != '/'))
    return config_error(r, "dns_trust_anchor and dns_validator_config must be absolute file names");
  return 0;
}

const struct module dns_module = {
    .name = "dns",
    .summary = "name servers",
    .main_options = options,
    .main_size = sizeof(struct dns_options),
    .main_check = check,
};

const struct dns_options *dns_options(const struct config *c) {
  static const struct dns_options defaults = {{"system", 6, 0}, {"", 0, 0}, {NULL, 0, 0}, {NULL, 0, 0}};
  return c ? config_block(c, &dns_module) : &defaults;
}

bool dns_is_validating(const struct config *c) { return str_eq_c(dns_options(c)->resolver, "validating"); }
