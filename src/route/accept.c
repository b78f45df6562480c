/* The accept router (Exim manual, chapter "The accept router"). */

#include "route/router.h"

static enum route_result accept_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  return router_accept(c, r, a, NULL, lists);
}

static const struct option_def options[] = {OPTIONS_END};

const struct router_def router_accept_def = {
    .driver = {.name = "accept", .class = DRIVER_ROUTER, .options = options, .options_size = 0, .summary = "takes every address"},
    .flags = ROUTER_NEEDS_TRANSPORT | ROUTER_LOG_LOCAL,
    .route = accept_route,
};
