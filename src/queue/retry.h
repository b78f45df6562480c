/* Retry: when to try again, and when to give up (Exim manual, chapter "Retry
configuration"). Records are in the hints database "retry" under Exim's keys:
R:domain and R:local@domain for routing, T:local@domain for local transports
and remote addresses (with :<sender> where address_retry_include_sender says
so), T:[host]:[ip]:port and the like for hosts. */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

extern const struct module retry_module;

/* --- for deliver --- */

/* May the address be tried now? Asked in queue runs that are not forced, before it is routed (`routing`) and before a
local transport takes it. An address whose message has been queued longer than the rule's last cut-off is always tried.
When it may not, c->error says what went wrong the last time. */
bool retry_address_ready(struct ctx *c, const struct address *a, bool routing);
/* Has routing the address's domain failed, with a record that still stands, whether its time has come or not? */
bool retry_routing_failed(struct ctx *c, const struct address *a);
/* An attempt was deferred (basic_errno above ERROR_RETRY_BASE; a->transport is NULL when routing failed): writes the record
of routing or of a local delivery - those of hosts and of 4xx replies to RCPT are the smtp transport's. True: no rule
fits or its time is up, so the address fails with "retry timeout exceeded". */
bool retry_address_deferred(struct ctx *c, struct address *a);
/* It was routed or delivered: the records of its failures go. Cheap when there are none. */
void retry_address_succeeded(struct ctx *c, const struct address *a);

/* --- for queue runs --- */

/* Changes when a retry record has gone: what waited for its time may go now. */
uint64_t retry_cleared(struct ctx *c);

/* --- for the smtp transport --- */

/* May the host be tried now? (Host record, and that of this message with this host.) */
bool retry_host_ready(struct ctx *c, const struct instance *t, const struct host *h, int port);
/* Do two hosts share a record (the same address, or retry_include_ip_address is false)? */
bool retry_host_same(struct ctx *c, const struct instance *t, const struct host *a, int a_port, const struct host *b, int b_port);
void retry_host_failed(struct ctx *c, const struct instance *t, const struct host *h, int port, int error, struct str text);
void retry_host_ok(struct ctx *c, const struct instance *t, const struct host *h, int port);
/* Has the host been failing past the last cut-off, or does the message wait for longer than that? False without a record. */
bool retry_host_exhausted(struct ctx *c, const struct instance *t, const struct host *h, int port);
/* Have all hosts of the chain been failing past the last cut-off? */
bool retry_hosts_exhausted(struct ctx *c, const struct instance *t, const struct address *chain);
/* A 4xx reply to RCPT: the record is about the recipient (and the sender, with address_retry_include_sender). True: its
time is up, the address fails. */
bool retry_recipient_deferred(struct ctx *c, const struct instance *t, const struct address *a, const struct host *h,
  struct str text);
