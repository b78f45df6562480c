#include "core/module.h"
#include "route/options.h"
#include "route/router.h"

static const struct driver_class_def router_class = {
    .class = DRIVER_ROUTER,
    .options = router_generic_options,
    .options_size = sizeof(struct router_options),
    .init = router_options_init,
    .link = router_options_link,
};

static const struct driver_def *const drivers[] = {
    &router_accept_def.driver,
    &router_dnslookup_def.driver,
    &router_ipliteral_def.driver,
    &router_iplookup_def.driver,
    &router_manualroute_def.driver,
    &router_queryprogram_def.driver,
    &router_redirect_def.driver,
    NULL,
};

const struct module routers_module = {
    .name = "routers",
    .summary = "routing of addresses",
    .driver_class = &router_class,
    .drivers = drivers,
};
