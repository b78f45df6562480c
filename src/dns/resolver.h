/* The way to the name servers: c-ares sends and receives, our loop waits. */
#pragma once

#include "dns/packet.h"

struct resolver_options {
  int64_t retrans; /* seconds before the first retry; 0: the system's value */
  int64_t retry;   /* number of tries; 0: the system's */
};

/* Sends a query and waits for the reply. [suspends] *ret is in `a`. 0, or -1: no usable reply (time-out, no server). */
int resolver_exchange(struct arena *a, const unsigned char *query, int query_n, const struct resolver_options *o,
    const unsigned char **ret, size_t *ret_n);
/* The default domain for names of one component, and the search list; unset / none if there is none. */
const struct str *resolver_search(size_t *ret_n);
/* Do names come from the DNS alone, without the system's host files? */
bool resolver_dns_only(void);
/* May the AD bit of the servers' replies be believed? They are all on this host or in the list, or resolv.conf says so
("options trust-ad"). */
bool resolver_trusted(struct str list);
/* Frees all (leak checkers). */
void resolver_done(void);
