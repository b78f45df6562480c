/* Hosts that keep a worker's deliveries waiting: how many do so, so that a
destination that never answers does not take the places of all others (Exim
has a process a delivery there). Nothing is limited before patience_limit. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"

struct message;
struct patience_host;

#define PATIENCE_WAIT USEC_PER_SEC         /* a delivery that has heard nothing for so long is waiting */
#define PATIENCE_DEAD (10 * USEC_PER_SEC)  /* a host that has said nothing to anybody for so long may be dead */

/* A delivery's use of a host, on the stack of the fiber that makes it. */
struct patience {
  struct patience_host *host; /* NULL: it is being routed */
  const struct message *message;
  const struct fiber *fiber;
  usec_t since;              /* the last sign of life */
  bool second;               /* another delivery of the same message is counted */
  bool counted;              /* among those that wait */
  struct str host_name, host_address, recipient; /* for exiwhat; the maker's */
  struct patience *next, *prev;                  /* in the order of `since` */
  struct patience *next_of_fiber, *next_of_message;
};

/* In a worker: `waiting` deliveries may wait for a host that seems dead, `all` may use one that answers. 0: no limit. */
void patience_limit(int waiting, int all);
/* Are there enough for the host (half as many while it has said nothing yet)? Then the caller has the message wait. Counts those sent
away. */
bool patience_full(struct str address, int port);
void patience_begin(struct patience *p, const struct message *m, struct str address, int port);
/* The same while the DNS and others are asked where a recipient's mail goes: it counts among those that wait only. */
void patience_begin_routing(struct patience *p, const struct message *m, struct str recipient);
void patience_end(struct patience *p);
/* The host has said something to this fiber, or taken data from it. */
void patience_progress(void);
/* All there are, by `next`: who has heard nothing for the longest time first. */
const struct patience *patience_first(void);
/* Messages whose deliveries wait: they do not count among those that keep the worker busy. */
int patience_waiting(void);
/* Seconds after which one that was sent away may come again. */
int patience_again(struct str address, int port);
void patience_set_clock(usec_t (*clock)(void)); /* for tests; NULL: the loop's, which never goes back */
