/* Routers that are known but not there yet: a configuration that uses one is
refused with its name (Exim manual, chapters "The iplookup router" and "The
queryprogram router"). */

#include "route/router.h"

struct later {
  struct option_expr text[6];
  struct str string[4];
  int64_t number;
  int64_t time;
  bool flag;
};

#define TEXT(n) offsetof(struct later, text) + (n) * sizeof(struct option_expr)
#define STRING(n) offsetof(struct later, string) + (n) * sizeof(struct str)

static const struct option_def queryprogram_options[] = {
    {"command", OPTION_EXPR, TEXT(0)},
    {"command_group", OPTION_EXPR, TEXT(1)},
    {"command_user", OPTION_EXPR, TEXT(2)},
    {"current_directory", OPTION_EXPR, TEXT(3), "/"},
    {"timeout", OPTION_TIME, offsetof(struct later, time), "1h"},
    OPTIONS_END};

static const struct option_def iplookup_options[] = {
    {"hosts", OPTION_STRING, STRING(0)},
    {"optional", OPTION_BOOL, offsetof(struct later, flag)},
    {"port", OPTION_INT, offsetof(struct later, number)},
    {"protocol", OPTION_STRING, STRING(1), "udp"},
    {"query", OPTION_EXPR, TEXT(0)},
    {"reroute", OPTION_EXPR, TEXT(1)},
    {"response_pattern", OPTION_STRING, STRING(2)},
    {"timeout", OPTION_TIME, offsetof(struct later, time), "5s"},
    OPTIONS_END};

static int refuse(struct config_reader *cr, struct instance *i) {
  return config_error_at(cr, i->where, "%.*s router:\n  the driver \"%s\" is not supported yet", STRF(i->name), i->driver->name);
}

static enum route_result never(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  return router_defer(c, a, -1, "the router driver \"%s\" is not supported yet", r->driver->name);
}

const struct router_def router_queryprogram_def = {
    .driver = {.name = "queryprogram", .class = DRIVER_ROUTER, .options = queryprogram_options, .options_size = sizeof(struct later),
        .later = true, .summary = "routes by the output of a command", .init = refuse},
    .route = never,
};

const struct router_def router_iplookup_def = {
    .driver = {.name = "iplookup", .class = DRIVER_ROUTER, .options = iplookup_options, .options_size = sizeof(struct later),
        .later = true, .summary = "asks another host for the address", .init = refuse},
    .flags = ROUTER_NO_TRANSPORT,
    .route = never,
};
