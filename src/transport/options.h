/* Generic options of all transports (Exim manual, chapter "Generic options
for transports"). */
#pragma once

#include "config/config.h"
#include "transport/transport.h"

struct transport_options {
  bool body_only, headers_only, delivery_date_add, envelope_to_add, return_path_add, rcpt_include_affixes;
  bool disable_logging, initgroups;
  int retry_use_local_part; /* 0 or 1; if not given: is it a local transport? */
  struct option_expr current_directory, home_directory, debug_print, headers_add, headers_remove, message_size_limit;
  struct option_expr return_path, max_parallel, shadow_condition, transport_filter, event_action;
  struct str headers_rewrite, shadow_transport;
  struct option_user user, group;
  int64_t transport_filter_timeout;
};

extern const struct option_def transport_generic_options[];

/* Lines of an mbox: the default of message_prefix. */
#define TRANSPORT_MBOX_PREFIX "From ${if def:return_path{$return_path}{MAILER-DAEMON}} ${tod_bsdinbox}\n"

static inline const struct transport_options *transport_options(const struct instance *t) { return t->generic; }
