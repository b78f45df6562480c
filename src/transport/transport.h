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

struct transport_def {
  struct driver_def driver;         /* must be first */
  bool local;                       /* one delivery plan a batch; else remote */
  bool closes;
  /* Delivers to all addresses of the chain (same transport, same hosts, batch limits applied already).
  Sets result, message … in each address. [suspends] */
  void (*deliver)(struct ctx *c, const struct instance *t, struct address *chain);
};

/* The message as a transport writes it: header added/removed/rewritten, return path, envelope-to … and the body.
Produces pieces; see transport/write.h. */
struct transport_write;
