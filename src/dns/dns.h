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
  bool secure;           /* AD bit from a trusted server */
  bool authoritative;
  uint32_t min_ttl;
};

enum dns_result { DNS_OK, DNS_NOMATCH /* NXDOMAIN */, DNS_NODATA, DNS_AGAIN, DNS_FAIL };

/* [suspends] The answer lives in `a`. dns_again_means_nonexist is applied when c is given. */
enum dns_result dns_query(struct ctx *c, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret);

/* A host to deliver to, or found for checking. */
struct host {
  struct str name;       /* as given or found; tainted if from DNS or mail */
  struct str address;    /* text; unset: not yet looked up */
  struct ip_addr ip;
  int port;              /* 0: the transport's */
  int mx;                /* preference, -1: none */
  int sort_key;
  bool dnssec, is_local, local_mx_skip;
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
/* Addresses of one host name. Expands h into a chain when it has several; its port, mx and sort_key are kept. Flags
with HOST_FIND_BY_A / _AAAA: only the DNS (bydns); without both: the system's functions, host files included (byname).
An IP address as name is its own address. */
enum host_find host_find_addresses(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore_target_hosts, struct str *ret_fully_qualified);
/* Reverse lookup with forward check for c->client (host_lookup_order). Sets host_name… there. */
enum outcome host_name_lookup(struct ctx *c);
/* Our own interface addresses; is this one ours? */
bool host_is_local(struct ctx *c, const struct ip_addr *ip);
