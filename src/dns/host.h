/* What the files of host finding share. */
#pragma once

#include "dns/dns.h"
#include "match/match.h"

bool host_name_is_ours(struct ctx *c, struct str name); /* hosts_treat_as_local */
/* May this host be used, or is it in ignore_target_hosts? [suspends] */
bool host_is_ignored(struct ctx *c, const struct option_expr *ignore, struct str name, struct str address);
/* Addresses of a name from the DNS. `h` becomes the first of a chain of copies, in order of use. */
enum host_find host_addresses_dns(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore, const struct dns_query_options *o, bool require_secure, struct str *ret_full);
/* "localhost" of a build without a hosts file, and IP addresses given as names. true: done, *ret is the outcome. */
bool host_addresses_known(struct ctx *c, struct arena *a, struct host *h, unsigned flags, const struct option_expr *ignore,
    enum host_find *ret);
/* Makes a chain out of addresses: copies of h; ignored ones are left out. HOST_FOUND, HOST_FOUND_LOCAL or HOST_IGNORED. */
enum host_find host_set_addresses(struct ctx *c, struct arena *a, struct host *h, const struct ip_addr *v, size_t n,
    const struct option_expr *ignore);
