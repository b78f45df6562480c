/* The validating resolver (dns_resolver = validating): libunbound in a process of its own, sandboxed. The daemon has one, which
its master starts and watches, for all workers; other processes start their own when they first need it. What goes wrong in it,
a crash included, is a query without an answer; the next query finds another one. */
#pragma once

#include "dns/packet.h"

struct config;

#define VALIDATOR_NAME_MAX (DNS_NAME_MAX * 4)
#define VALIDATOR_REPLY_MAX (66u << 10)
/* Then: trust anchor file, configuration file or "", and "daemon" for the one whose channels come over its standard input. */
#define VALIDATOR_ARGUMENT "--dns-validator"

/* What is said over a channel, one datagram each; a reply's packet stands behind it. */
struct validator_request {
  uint32_t id;
  uint16_t type, name_n;
  char name[VALIDATOR_NAME_MAX];
};
struct validator_reply {
  uint32_t id;
  uint32_t answered; /* 0: no answer, or one that does not stand the test (bogus) */
};

bool validator_available(void); /* was it built in? */
/* [suspends] 0 and the reply's bytes in `a`, with the AD bit if they are secure; or -1. */
int validator_ask(const struct config *c, struct arena *a, struct str name, enum dns_type type, int64_t seconds,
    const unsigned char **ret, size_t *ret_n);
/* In a worker: channels come from the master, through validator_take; queries wait for one. `hung` tells the master that
nothing has been heard for as long as a query may take. */
void validator_managed(void (*hung)(void));
void validator_take(int fd);
/* Ends it (leak checkers). */
void validator_done(void);

/* In the process itself (daemon/validator.c). Its exit status. */
int validator_run(const char *anchor, const char *config, bool of_daemon);
