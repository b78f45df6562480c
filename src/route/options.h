/* The generic options of routers (Exim manual, chapter "Generic options for
routers"): the block behind instance->generic of every router. */
#pragma once

#include "base/vec.h"
#include "config/config.h"
#include "config/option.h"

/* What `self` says. */
enum router_self { SELF_FREEZE, SELF_DEFER, SELF_SEND, SELF_PASS, SELF_FAIL, SELF_REROUTE };

/* One element of a `set` option: a $r_… variable. */
struct router_set {
  struct str name; /* with its "r_" */
  struct option_expr value;
};

struct router_options {
  struct option_expr address_data;
  struct option_expr cannot_route_message;
  VEC(struct option_expr) conditions;
  struct option_expr debug_print;
  struct option_expr domains, local_parts, senders;
  struct option_expr dnssec_request_domains, dnssec_require_domains;
  struct option_expr errors_to;
  struct option_expr fallback_hosts;
  struct str headers_add;    /* items separated by newlines, each expanded by itself */
  struct str headers_remove; /* colon list, each expanded by itself */
  struct option_expr ignore_target_hosts;
  struct str local_part_prefix, local_part_suffix;
  struct option_expr more, unseen;
  struct str pass_router_name, redirect_router_name;
  struct str require_files;  /* items are expanded one by one */
  struct option_expr router_home_directory;
  struct str self_text;
  VEC(struct router_set) set;
  struct str set_text;       /* as written, for -bP */
  struct option_expr translate_ip_address;
  struct option_expr transport;
  struct option_expr transport_current_directory, transport_home_directory;
  struct option_user user, group;
  bool address_test, caseful_local_part, check_local_user, disable_logging, dsn_lasthop, expn, initgroups;
  bool local_part_prefix_optional, local_part_suffix_optional;
  bool pass_on_timeout, verify_only, verify_recipient, verify_sender, fail_verify_recipient, fail_verify_sender;
  int log_as_local, retry_use_local_part; /* -1: not given (after init: 0 or 1) */

  /* Worked out by the class's init. */
  enum router_self self;
  bool self_rewrite;
  struct str self_domain;    /* of `reroute:` */
  struct instance *pass_router, *redirect_router;
};

extern const struct option_def router_generic_options[];

static inline const struct router_options *router_options(const struct instance *r) { return r->generic; }

/* Checks and derived values of the generic options; `link` once all routers
are known. 0 or OUTCOME_ERROR after config_error_at(). */
int router_options_init(struct config_reader *r, struct instance *i);
int router_options_link(struct config_reader *r, struct instance *i);

extern const struct module routers_module;
