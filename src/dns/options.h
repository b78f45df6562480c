/* Main options of our own about the DNS (docs/dns-security.md). */
#pragma once

#include "base/str.h"

struct config;
struct module;

struct dns_options {
  struct str resolver;         /* "system", "validating" */
  struct str trust_anchor;     /* file */
  struct str validator_config; /* file; unset: none */
  struct str trusted_servers;  /* list of addresses */
};

extern const struct module dns_module;
/* c may be NULL: the defaults. */
const struct dns_options *dns_options(const struct config *c);
bool dns_is_validating(const struct config *c);
