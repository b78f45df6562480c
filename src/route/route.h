/* Routers (Exim manual, chapters "Generic options for routers" and one a
driver). A router driver is a file here with a struct router_def. */
#pragma once

#include "config/config.h"
#include "core/ctx.h"
#include "deliver/address.h"

/* What a router says. */
enum route_result {
  ROUTE_OK,       /* taken: queued for a transport, or verified */
  ROUTE_DECLINE,  /* next router, unless `more` is false */
  ROUTE_PASS,     /* to pass_router */
  ROUTE_FAIL, ROUTE_DEFER, ROUTE_ERROR,
  ROUTE_DISCARD,  /* :blackhole: */
  ROUTE_REROUTED, /* children were made (redirect) */
  ROUTE_SKIP,     /* preconditions were not met */
};

/* Why addresses are routed. */
enum route_mode { ROUTE_FOR_DELIVERY, ROUTE_FOR_TEST /* -bt */, ROUTE_FOR_VERIFY, ROUTE_FOR_EXPN };

/* Lists that routing fills. Zeroed, with the mode set, by the caller. */
struct route_lists {
  enum route_mode mode;
  struct address *pending;            /* what else has to be routed: for same_domain_copy_routing, which takes from it */
  struct address *local, *remote;     /* with a transport */
  struct address *children;           /* to be routed again */
  struct address *succeed, *failed, *deferred;
};

struct verify_params;
struct router_options; /* generic options: route/options.h */

struct router_def {
  struct driver_def driver;           /* must be first */
  unsigned flags;                     /* needs a transport / may not have one / may be verify only */
  /* Routes c->address. [suspends] */
  enum route_result (*route)(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists);
};
#define ROUTER_NO_TRANSPORT 1u  /* redirect: no generic transport */
#define ROUTER_NEEDS_TRANSPORT 2u
#define ROUTER_LOG_LOCAL 4u     /* accept: log_as_local is true by default */

/* Routes one address through the routers from its start_router. Sets result and message. [suspends] */
enum route_result route_address(struct ctx *c, struct address *a, struct route_lists *lists);
/* percent_hack_domains: user%dom2@dom1 becomes user@dom2 with the former as its parent. ROUTE_OK, or ROUTE_DEFER or ROUTE_FAIL (too
many steps) with the address's message. [suspends] */
enum route_result route_percent_hack(struct ctx *c, struct address *a);
/* The same on the two parts of an address, the local part unquoted. What is not ROUTE_OK leaves them and sets c->error. [suspends] */
enum route_result route_percent_hack_text(struct ctx *c, struct str *local_part, struct str *domain, bool *ret_changed);

/* Verification by routing (ACL verify, -bv). With full: children are followed. OUTCOME_OK/FAIL/DEFER; c->user_message, c->log_message. */
struct verify_params {
  bool sender;              /* as a sender address */
  bool success_on_redirect, fake_sender, expn, quick;
  void *callout;            /* struct callout_params or NULL */
};
enum outcome verify_address(struct ctx *c, struct str address, const struct verify_params *p, struct address **ret);
