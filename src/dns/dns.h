/* Name resolution on fibers: c-ares driven by the loop. Results are cached
by TTL, bounded. In the harness build the server comes from
MARTLET_HARNESS_DNS (core/build.h). */
#pragma once

#include "base/arena.h"
#include "base/ip.h"
#include "base/outcome.h"
#include "base/str.h"

struct ctx;

enum dns_type {
  DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28, DNS_SRV = 33,
  DNS_TLSA = 52, DNS_SPF = 99, DNS_CAA = 257
};

struct dns_record {
  struct str name;       /* owner */
  enum dns_type type;
  uint32_t ttl;
  uint16_t preference;   /* MX; SRV priority */
  uint16_t weight, port; /* SRV */
  struct ip_addr ip;     /* A, AAAA */
  struct str text;       /* target name (lower case not forced), TXT content, raw data for others; tainted */
  struct str *chunks;    /* TXT: its character-strings */
  size_t chunks_n;
};

struct dns_answer {
  struct dns_record *v;  /* records of the type asked, CNAMEs followed */
  size_t n;
  struct str canonical;  /* name after CNAMEs */
  struct str qualified;  /* the name asked, as the search list or the server completed it */
  bool secure;           /* AD bit from a trusted server */
  bool authoritative;
  uint32_t min_ttl;
};

enum dns_result { DNS_OK, DNS_NOMATCH /* NXDOMAIN */, DNS_NODATA, DNS_AGAIN, DNS_FAIL };

/* [suspends] The answer lives in `a`; its texts are tainted. dns_again_means_nonexist is applied when c is given, and the
name is checked against dns_check_names_pattern. Needs a fiber; outside of one the result is DNS_AGAIN. */
enum dns_result dns_query(struct ctx *c, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret);
struct dns_query_options {
  int64_t retrans, retry;  /* 0: dns_retrans, dns_retry of the configuration */
  bool qualify_single;     /* a name of one component gets the system's default domain */
  bool search_parents;     /* other names are tried in the domains of the system's search list as well */
  bool keep_again;         /* dns_again_means_nonexist is not applied (TLSA) */
  bool any_name;           /* dns_check_names_pattern is not applied: names that others make up (SPF) */
};
enum dns_result dns_query_with(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, struct dns_answer *ret);
/* "succeeded", "no match", "no data", "try again", "failed": for debugging output and errors. */
const char *dns_result_text(enum dns_result r);
/* Client SMTP authorization (manual, section of that name): the SRV record of a HELO name or one of its parents that
says something about it. DNS_OK: *ret_code is 'Y', 'N', 'X' or '?', *ret the record. */
enum dns_result dns_find_csa(struct ctx *c, struct arena *a, struct str domain, struct dns_record *ret, char *ret_code);
/* All queries go to this server ("IP:PORT") from now on: tests and tools. */
void dns_use_server(const char *address);
/* Forgets cached answers and closes the resolver's sockets (leak checkers). */
void dns_done(void);

/* A host to deliver to, or found for checking. */
struct host {
  struct str name;       /* as given or found; tainted if from DNS or mail */
  struct str address;    /* text; unset: not yet looked up */
  struct ip_addr ip;
  int port;              /* 0: the transport's */
  int mx;                /* preference, -1: none */
  int sort_key;
  bool dnssec, is_local, local_mx_skip;
  bool tls_service;      /* an SRV record of the service smtp-tls has named it: TLS is mandatory */
  struct str certname;   /* for certificate checks */
  struct host *next;
  /* filled by delivery: */
  int status;            /* enum host_status of deliver */
  int why;
};

enum host_find { HOST_FOUND, HOST_FOUND_LOCAL, HOST_FIND_FAILED, HOST_FIND_AGAIN, HOST_IGNORED, HOST_FIND_SECURITY };
#define HOST_FIND_BY_SRV 1u
#define HOST_FIND_BY_MX 2u
#define HOST_FIND_BY_A 4u
#define HOST_FIND_BY_AAAA 8u
#define HOST_FIND_IPV4_ONLY 16u
#define HOST_FIND_IPV4_FIRST 32u
#define HOST_FIND_QUALIFY_SINGLE 64u
#define HOST_FIND_SEARCH_PARENTS 128u
#define HOST_FIND_QUIET 256u /* no log line when a name has no address */

struct option_expr;
struct host_find_params {
  unsigned flags;
  struct str srv_service;                       /* unset: no SRV */
  const struct option_expr *srv_fail_domains, *mx_fail_domains;
  const struct option_expr *ignore_target_hosts;
  const struct option_expr *dnssec_request, *dnssec_require;
  bool randomize;
  bool *ret_local_removed;                      /* may be NULL: set when an MX that is ourselves, and those behind it, were dropped */
};
/* Hosts of a domain by SRV, MX, addresses, in order of use, those at or after the local host removed
(manual: dnslookup router). [suspends] List in `a`. When it fails for a reason worth telling (c->error is set then):
"all relevant MX records point to non-existent hosts", "an MX or SRV record indicated no SMTP service" … */
enum host_find host_find_by_dns(struct ctx *c, struct arena *a, struct str domain, const struct host_find_params *p,
    struct host **ret, struct str *ret_fully_qualified);
/* A number below n, for choices that may be foreseen (order of hosts); the same sequence each time in a harness build.
host_random_seed starts it anew there: n is the number of the delivery process, 0 the first. */
uint32_t host_random(uint32_t n);
void host_random_seed(uint32_t n);
/* Does an MX record of the domain point to this host or to one of hosts_treat_as_local (@mx_any …)? Addresses in the
host list `ignore` (may be unset) do not count. OUTCOME_OK with *ret_primary: one of the lowest preference does;
OUTCOME_FAIL, OUTCOME_DEFER. [suspends] */
int host_mx_local(struct ctx *c, struct str domain, struct str ignore, bool *ret_primary);
/* Addresses of one host name. Expands h into a chain when it has several; its port, mx and sort_key are kept. Flags
with HOST_FIND_BY_A / _AAAA: only the DNS (bydns); without both: the system's functions, host files included (byname).
An IP address as name is its own address. */
enum host_find host_find_addresses(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore_target_hosts, struct str *ret_fully_qualified);
/* Reverse lookup with forward check for c->client (host_lookup_order). Sets host_name… there. */
enum outcome host_name_lookup(struct ctx *c);
/* Our own interface addresses; is this one ours? */
bool host_is_local(struct ctx *c, const struct ip_addr *ip);
