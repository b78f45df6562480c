/* Delivery of one message: recipients become addresses, routers say where they
go, transports take them there, and what happened is logged and kept (Exim
manual, section "Delivery in detail"). docs/internals/delivery.md has the
states of an address and of a message. */
#pragma once

#include "core/ctx.h"
#include "message/message.h"

struct config;

struct deliver_how {
  bool first;          /* straight after reception: retry times do not count, host retry times do */
  bool queue_run;      /* retry times count */
  bool force;          /* -M, -qf: retry times do not count */
  bool force_frozen;   /* -M, -qff: frozen messages too */
  bool give_up;          /* -Mg, timeout_frozen_after: all recipients fail */
  struct str give_up_by; /* -Mg: who, for the log */
  bool local_only;     /* -ql, -odqr: remote addresses wait */
  bool queue_smtp;     /* -odqs: routed, but remote addresses wait */
  bool route_only;     /* the first stage of -qq: as queue_smtp, and nothing is said about it */
  struct smtp_connection *over; /* deliver by this connection only, what cannot go over it waits; NULL: ordinarily */
  /* Recipients for whom it says no are left for another time; NULL: all are wanted. `c` is the delivery's. [suspends] */
  bool (*wanted)(const void *arg, struct ctx *c, struct str domain);
  const void *wanted_arg;
  bool follows;        /* the caller takes what deliver_held (follow.h) gives */
  bool dont_deliver;   /* -N: no transport is run, all else is as if */
  struct str select_recipient; /* -R: only for the retry checks; unset: all */
};

enum deliver_result {
  DELIVER_COMPLETE,    /* nothing is left: the spool files are gone */
  DELIVER_DEFERRED,    /* something waits for another attempt */
  DELIVER_BUSY,        /* as DEFERRED, for a host that keeps many others waiting: again at m->next_attempt */
  DELIVER_FROZEN,      /* the message is frozen; with how->force_frozen unset nothing may have been tried */
  DELIVER_FAILED,      /* mua_wrapper: it could not be delivered, and is gone; the caller has been told */
  DELIVER_TROUBLE,     /* the spool could not be read or written; as DEFERRED */
};

/* The message belongs to the caller, who holds its lock and frees it afterwards. `c` gives the configuration; the
delivery has a context and an arena of its own. [suspends] */
enum deliver_result deliver_message(struct ctx *c, struct message *m, const struct deliver_how *how);

/* When something about the message itself is due whatever its addresses wait for: a warning, or the end of its being
frozen. Seconds; 0: nothing. */
int64_t deliver_next_event(const struct config *config, const struct message *m);

/* Who takes over a message that Martlet made itself (bounces): the worker's queue. NULL: it is delivered at once, in
the fiber that made it (one-shot commands). The message is the callee's from then on. */
extern void (*deliver_take_over)(struct ctx *c, struct message *m);
/* Seconds for which a full disk is waited for when it must be written down what was delivered. */
extern int deliver_write_patience;

/* A message that an ACL froze is in the spool now: those of freeze_tell hear of it. [suspends] */
void deliver_tell_frozen_on_arrival(struct ctx *c, const struct message *m);
/* Freezes the message in the spool with a log line. For -Mf and others. 0 or -errno. [suspends] */
int deliver_freeze(struct ctx *c, struct message *m, struct str reason);
