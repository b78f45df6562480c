/* srs, srs_alias … of the redirect router: sender rewriting in the manner of libsrs_alt. */
#pragma once

#include "core/module.h"
#include "route/redirect.h"
#include "route/route.h"

/* What a router does for an address. */
struct redirect_srs {
  bool forward, reverse;
};

/* Before `data` is expanded: reads `srs` and `srs_condition`; an address to be reversed sets $srs_recipient. ROUTE_OK, or what the router says. [suspends] */
enum route_result redirect_srs_begin(struct ctx *c, const struct instance *r, struct address *a, struct redirect_srs *ret);
/* The sender of the children into `props`. ROUTE_OK or DEFER. [suspends] */
enum route_result redirect_srs_sender(struct ctx *c, const struct instance *r, struct address *a, const struct redirect_srs *s,
    struct address_props *props);

extern const struct module srs_module; /* checks of the main options, variables, SRS= of log lines */
