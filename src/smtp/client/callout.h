/* Callouts: asking the host that takes an address's mail whether it would take
it (Exim manual, sections "Callout verification" and after), with the cache of
their results in the hints database "callout". */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

struct smtp_connection;

/* A connection that is kept after a recipient's callout, with its transaction open: for further recipients of the same
message (callout=hold), or to pass the message on as it comes in (cutthrough delivery). Lives in the SMTP session. */
struct callout_kept {
  struct smtp_connection *connection; /* NULL: none */
};

/* The parameters of one callout. Texts live in the caller's arena. */
struct callout_params {
  int64_t timeout, connect, maxwait; /* seconds; connect and maxwait may be -1: not given */
  bool defer_ok, no_cache, random, full_postmaster, hold;
  bool use_sender, use_postmaster;   /* recipients only */
  bool use_transport_sender;         /* as use_sender, but the transport's return_path has the last word */
  bool drop_other;                   /* an open transaction with another host ends with its connection: it is of no use now */
  bool recipient;                    /* else a sender */
  struct str mailfrom;               /* header_sender: unset: empty */
  struct str postmaster_mailfrom;    /* unset: no check of postmaster */
  struct callout_kept *kept;         /* where a connection is held, and what is held now; NULL: nowhere */
};

/* What came of it. Texts live in c->arena; those of the other side are tainted. */
struct callout_outcome {
  struct str failure;      /* word for $sender_verify_failure: "mail", "recipient", "postmaster", "random" */
  struct str reply;        /* what the host said last, if it did */
  struct str user, log;    /* why it failed or deferred; log may be unset: nothing but `user` is to be said */
};

/* Asks for an address that was routed. OUTCOME_OK also for one whose transport is not SMTP: there is nobody to ask. FAIL
or DEFER with *ret. [suspends] */
enum outcome callout_verify(struct ctx *c, struct address *a, const struct callout_params *p, struct callout_outcome *ret);

/* Ends the open transaction; the connection may serve another message soon. NULL and an empty one are allowed. */
void callout_release(struct callout_kept *k, const char *id);
/* The same, but hangs up at once. */
void callout_drop(struct callout_kept *k);

/* --- the cache --- */

/* What was found in the cache, and what is learnt now. */
struct callout_facts {
  struct str domain_key, address_key;
  bool have_domain, changed_domain, changed_address;
  int domain, postmaster, random;       /* enum hint_answer */
  int64_t postmaster_stamp, random_stamp, domain_stamp;
  int address;
};

/* Reads the records of an address; what has expired is unknown. `from` is the sender of the callout. */
void callout_cache_read(struct ctx *c, const struct address *a, struct str from, struct callout_facts *ret);
void callout_cache_write(struct ctx *c, struct callout_facts *f);
