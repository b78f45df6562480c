#include "transport/options.h"

#define OFF(f) offsetof(struct transport_options, f)

const struct option_def transport_generic_options[] = {
    {"body_only", OPTION_BOOL, OFF(body_only)},
    {"current_directory", OPTION_EXPR, OFF(current_directory)},
    {"debug_print", OPTION_EXPR, OFF(debug_print)},
    {"delivery_date_add", OPTION_BOOL, OFF(delivery_date_add)},
    {"disable_logging", OPTION_BOOL, OFF(disable_logging)},
    {"envelope_to_add", OPTION_BOOL, OFF(envelope_to_add)},
    {"event_action", OPTION_EXPR, OFF(event_action)},
    {"group", OPTION_GROUP, OFF(group)},
    {"headers_add", OPTION_EXPR, OFF(headers_add), NULL, OPTION_REPEATS},
    {"headers_only", OPTION_BOOL, OFF(headers_only)},
    {"headers_remove", OPTION_EXPR, OFF(headers_remove), NULL, OPTION_REPEATS | OPTION_JOIN_COLON},
    {"headers_rewrite", OPTION_STRING, OFF(headers_rewrite)},
    {"home_directory", OPTION_EXPR, OFF(home_directory)},
    {"initgroups", OPTION_BOOL, OFF(initgroups)},
    {"max_parallel", OPTION_EXPR, OFF(max_parallel)},
    {"message_size_limit", OPTION_EXPR, OFF(message_size_limit)},
    {"rcpt_include_affixes", OPTION_BOOL, OFF(rcpt_include_affixes)},
    {"retry_use_local_part", OPTION_BOOL, OFF(retry_use_local_part), .flags = OPTION_TRISTATE},
    {"return_path", OPTION_EXPR, OFF(return_path)},
    {"return_path_add", OPTION_BOOL, OFF(return_path_add)},
    {"shadow_condition", OPTION_EXPR, OFF(shadow_condition)},
    {"shadow_transport", OPTION_STRING, OFF(shadow_transport)},
    {"tpda_event_action", OPTION_EXPR, OFF(event_action), NULL, OPTION_ALIAS, .alias_of = "event_action"},
    {"transport_filter", OPTION_EXPR, OFF(transport_filter)},
    {"transport_filter_timeout", OPTION_TIME, OFF(transport_filter_timeout), "5m"},
    {"user", OPTION_USER, OFF(user)},
    OPTIONS_END,
};
