/* DNS messages (RFC 1035, 6891): building queries, reading replies. Replies
are hostile: every read is checked, names cannot loop. */
#pragma once

#include "dns/dns.h"

#define DNS_NAME_MAX 255
#define DNS_EDNS_SIZE 1232 /* fits any path without fragments */
#define DNS_QUERY_MAX 512
#define DNS_RECORDS_MAX 4096 /* taken from one reply */

enum dns_rcode { DNS_RCODE_OK, DNS_RCODE_FORMERR, DNS_RCODE_SERVFAIL, DNS_RCODE_NXDOMAIN, DNS_RCODE_NOTIMP, DNS_RCODE_REFUSED };

/* The query's bytes; the length, or -1: not a domain name (empty label, longer than 63 or 255). */
int dns_packet_query(unsigned char *to, uint16_t id, struct str name, enum dns_type type, bool edns, bool dnssec);

struct dns_reply {
  enum dns_rcode rcode;
  bool ad, aa;
  bool truncated;       /* not whole, although it came over TCP where need be (RFC 2181, section 9) */
  bool stray;           /* there are records, but none of the name asked or where it leads */
  struct dns_record *v; /* of the type asked, for the name after CNAMEs */
  size_t n;
  struct str canonical;       /* the name whose records they are */
  struct str qualified;       /* the name asked, as the server completed it */
  struct str cname;           /* where the chain of CNAMEs ends; unset: no CNAME */
  struct str authority;       /* owner of the first NS (with answers) or SOA (without) of the authority section; unset */
  uint32_t min_ttl;           /* of all records used, or the negative time to live */
  bool has_ttl;
};

/* 0, or -1: the message is malformed. Texts live in `a` and are tainted. */
int dns_packet_read(struct arena *a, const unsigned char *p, size_t n, struct str name, enum dns_type type, struct dns_reply *ret);
