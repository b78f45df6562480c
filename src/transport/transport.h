/* Transports (Exim manual, chapters "Generic options for transports" and one
a driver). Local transports make a delivery plan: everything expanded, so that
the plan can be carried out by blocking code that knows no policy, in an
offload thread (unprivileged) or in a child of the agent under another uid.
Remote transports run on the worker's fibers. */
#pragma once

#include "config/config.h"
#include "core/ctx.h"
#include "deliver/address.h"

struct transport_options; /* generic options: transport/options.h */

/* How many addresses one delivery of a local transport may take (Exim manual, "Address batching in local transports"). */
struct transport_batch {
  int64_t max;               /* batch_max; 1: no batching */
  struct option_expr id;     /* batch_id: only addresses with the same value go together */
};

struct transport_def {
  struct driver_def driver;         /* must be first */
  bool local;                       /* one delivery plan a batch; else remote */
  /* Of a local transport; NULL: one address a delivery. */
  const struct transport_batch *(*batch)(const struct instance *t);
  /* Of a remote transport: must all addresses of a delivery have the same domain (multi_domain is false)? NULL: no. [suspends] */
  bool (*single_domain)(struct ctx *c, const struct instance *t);
  /* Of a remote transport: how many addresses one delivery may take (max_rcpt); 0 or NULL: any number. [suspends] */
  int64_t (*max_addresses)(struct ctx *c, const struct instance *t);
  /* Of a remote transport: does it use hosts of its own whatever the router found (hosts with hosts_override)? NULL: no. */
  bool (*overrides_hosts)(const struct instance *t);
  /* Of a remote transport: the address was not tried, but waits for its hosts. NULL: nothing is noted. [suspends] */
  void (*waits)(struct ctx *c, const struct instance *t, struct address *a);
  /* Of a local transport: is there room for a message of c->message's announced size (0: unknown) in the mailbox of the address?
  Sets result, basic_errno and message there. NULL: always. [suspends] */
  void (*check_room)(struct ctx *c, const struct instance *t, struct address *a, int64_t size);
  /* Delivers to all addresses of the chain (same transport, same hosts, batch limits applied already).
  Sets result, message … in each address. [suspends] */
  void (*deliver)(struct ctx *c, const struct instance *t, struct address *chain);
};
