/* One delivery in progress: shared by the files of this room. */
#pragma once

#include "base/map.h"
#include "base/vec.h"
#include "deliver/address.h"
#include "deliver/deliver.h"
#include "deliver/msglog.h"
#include "route/route.h"

struct delivery {
  struct ctx *c;               /* our own; its arena dies with the delivery */
  struct message *m;
  const struct deliver_how *how;
  struct address *fresh;       /* not yet routed */
  struct address *local, *remote;
  struct address *failed, *deferred, *duplicates;
  struct map *seen;            /* unique -> the address that will be delivered */
  VEC(struct str) done;        /* keys that are crossed off, in order */
  VEC(struct address *) told;  /* whose success, relaying or expansion is to be told (RFC 3461) */
  size_t journalled;           /* how many of them are in the -J file */
  bool rewrite_header;         /* the -H file must be written: recipients or headers changed */
  bool freeze;
  struct str freeze_reason;    /* for the log: " (delivery error message)" … */
  struct str freeze_detail;    /* and, behind a colon, what the filter said; unset: nothing */
  bool tried;                  /* mua_wrapper: routing was good, and the one transaction was tried */
  bool wrapper_failed, wrapper_told; /* mua_wrapper: not delivered; and the caller has been told why */
  struct msglog log;
};

/* --- routing.c --- */
/* Takes the message's recipients that are still to be done. */
void delivery_recipients(struct delivery *d);
/* Routes all that is fresh, and what comes of it. [suspends] */
void delivery_route(struct delivery *d);
/* Defers the remote addresses that are not to be delivered now: -ql, -odqs, queue_smtp_domains. [suspends] */
void delivery_hold_remote(struct delivery *d);
/* Key by which an address is crossed off. In the delivery's arena. */
struct str delivery_key(struct delivery *d, const struct address *a);

/* --- system_filter.c --- */
/* Runs the system filter for the fresh recipients. False: it could not be run, and nothing may be delivered. [suspends] */
bool delivery_system_filter(struct delivery *d);

/* --- local.c, remote.c --- */
void delivery_run_local(struct delivery *d);   /* [suspends] */
void delivery_run_remote(struct delivery *d);  /* [suspends] */
/* Do all remote addresses go to the same hosts by one transport? */
bool delivery_one_group(struct delivery *d);
/* -N: as if it had been delivered locally. */
void delivery_pretend(struct delivery *d, struct address *chain);
/* max_parallel of the transport. False: that many run already; all of the chain wait. *ret_key is for delivery_slot_leave;
unset: there is no limit. [suspends] */
bool delivery_slot_enter(struct delivery *d, struct ctx *c, struct address *chain, struct str *ret_key);
void delivery_slot_leave(struct ctx *c, struct str key);
/* Same errors address, header changes, owner, router's settings: may the two go together? */
bool delivery_same_batch(const struct address *a, const struct address *b);

/* --- outcome.c --- */
/* After an attempt, or instead of one: logs, crosses off or puts the address on the list of failed or deferred ones.
`first` of a group gets "=>", the others "->". */
void delivery_outcome(struct delivery *d, struct address *a, bool first);
/* The address waits for another attempt, and nothing is said about it. */
void delivery_put_off(struct delivery *d, struct address *a);
/* The outcomes of a whole chain, in its order. */
void delivery_outcomes(struct delivery *d, struct address *chain);
/* The address, and its ancestors without other children, need nothing more. */
void delivery_done(struct delivery *d, struct address *a);
/* Writes what is not in the journal yet. [suspends] */
void delivery_journal(struct delivery *d);

/* --- wrapper.c --- */
bool delivery_is_wrapper(const struct delivery *d);
/* After routing: can all go in one transaction? False: all fail. */
bool delivery_wrapper_fits(struct delivery *d);
/* After the attempt: whatever is left has failed; says so on the standard error output. */
void delivery_wrapper_settle(struct delivery *d);

/* --- success.c --- */
/* The address has been dealt with as `action` says; its sender may have asked to be told. */
void delivery_tell(struct delivery *d, struct address *a, const char *action);
/* A redirection has been followed. */
void delivery_redirected(struct delivery *d, struct address *a);
/* Success notices for all of them. [suspends] */
void delivery_notify_success(struct delivery *d);

/* --- bounce.c, warn.c --- */
/* Bounces for the failed addresses; may freeze. [suspends] */
void delivery_bounce(struct delivery *d);
/* A warning to the sender when it is time for one. [suspends] */
void delivery_warn(struct delivery *d);
/* When the next one may be due; 0: never. */
struct main_options;
int64_t delivery_next_warning(const struct main_options *o, const struct message *m);
