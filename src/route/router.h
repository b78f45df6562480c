/* What router drivers share: outcomes with their texts, transports, owners,
header changes, lists of hosts, and what happens when a host is ourselves
(Exim manual, chapter "Generic options for routers"). Texts live in c->arena. */
#pragma once

#include "route/options.h"
#include "route/route.h"

/* For the log only. */
#define ROUTE_SYNTAX_ERROR "syntax error in redirection data"

/* Set the address's error number and message and return ROUTE_DEFER / ROUTE_FAIL. */
enum route_result router_defer(struct ctx *c, struct address *a, int error, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
enum route_result router_fail(struct ctx *c, struct address *a, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static inline bool route_verifying(const struct address *a) { return a->verify_sender || a->verify_recipient; }

/* The transport that an option names. ROUTE_OK with *ret (NULL: the option is unset), or ROUTE_DEFER.
`what` is the option's name when it must be set, else NULL. [suspends] */
enum route_result router_transport(struct ctx *c, const struct instance *r, struct address *a,
    const struct option_expr *option, const char *what, struct instance **ret);

/* Expands errors_to, headers_add and headers_remove into `props`. ROUTE_OK or ROUTE_DEFER. [suspends] */
enum route_result router_props(struct ctx *c, const struct instance *r, struct address *a, struct address_props *props);

/* The uid and gid to deliver as, into `a`: the router's user and group options, or those of check_local_user.
ROUTE_OK or ROUTE_DEFER. [suspends] */
enum route_result router_owner(struct ctx *c, const struct instance *r, struct address *a);

/* Takes the address: props, owner, and `transport` (NULL: the generic option), then puts it on the list of local or
remote deliveries. [suspends] */
enum route_result router_accept(struct ctx *c, const struct instance *r, struct address *a, struct instance *transport,
    struct route_lists *lists);

/* same_domain_copy_routing: the pending addresses of the same domain go the way of `a`, which a remote transport has. */
void router_copy_routing(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists);

/* The first host is ourselves: what `self` says. ROUTE_OK (send), PASS, FAIL, DEFER, REROUTED. */
enum route_result router_self(struct ctx *c, const struct instance *r, struct address *a, const struct host *host,
    struct route_lists *lists);
/* The address with another domain, to be routed again. ROUTE_REROUTED. */
enum route_result router_change_domain(struct ctx *c, const struct instance *r, struct address *a, struct str domain,
    bool rewrite_headers, struct route_lists *lists);

/* repeat_use of a redirect router; true for all others. */
bool router_repeat_use(const struct instance *r);

/* --- lists of hosts (manual section "Format of one host item") --- */

/* Takes one item apart: "name", "name/MX", "name:port", "[ip]:port", an address. False if it is malformed. */
bool router_host_item(struct arena *a, struct str item, struct host *ret, bool *ret_mx);
#define ROUTER_HOST_MX_LIST (-2) /* host->sort_key of a name that stands for its MX records */
/* A whole list; "+" items end groups that are randomized separately. NULL: no hosts. */
struct host *router_host_list(struct ctx *c, struct str text, bool randomize);

enum host_lookup { HOST_LOOKUP_DEFAULT, HOST_LOOKUP_BYNAME, HOST_LOOKUP_BYDNS };
enum host_failed { HFF_FREEZE, HFF_DEFER, HFF_FAIL, HFF_DECLINE, HFF_PASS, HFF_IGNORE };
/* Finds the addresses of all hosts of a->hosts. ROUTE_OK, or what has to be returned. [suspends] */
enum route_result router_find_hosts(struct ctx *c, const struct instance *r, struct address *a, enum host_lookup lookup,
    unsigned flags, enum host_failed failed, struct route_lists *lists);
/* translate_ip_address and duplicates, for hosts that were found. ROUTE_OK or ROUTE_DEFER. [suspends] */
enum route_result router_translate_hosts(struct ctx *c, const struct instance *r, struct address *a);

/* --- preconditions (manual section "Router preconditions") --- */

/* ROUTE_OK, ROUTE_SKIP or ROUTE_DEFER. [suspends] */
enum route_result router_check(struct ctx *c, const struct instance *r, struct address *a, const struct route_lists *lists);
/* Removes the affixes of an earlier router and sets local_part in this router's case. */
void router_reset_local_part(const struct instance *r, struct address *a);
/* Length of the prefix or suffix of `local_part` by the option's list, or -1; *ret_wild is the length of the part that `*` matched. */
int router_match_affix(struct arena *a, struct str list, struct str local_part, bool suffix, int *ret_wild);

extern const struct router_def router_accept_def, router_dnslookup_def, router_manualroute_def, router_redirect_def,
    router_ipliteral_def, router_iplookup_def, router_queryprogram_def;
