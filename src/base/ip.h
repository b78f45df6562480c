/* IP addresses as bytes: parsing, printing as Exim logs them, masks. */
#pragma once

#include <sys/socket.h>
#include <netinet/in.h>
#include "base/str.h"

struct arena;

struct ip_addr {
  int family;             /* AF_INET, AF_INET6, or 0: none */
  unsigned char bytes[16];
  uint32_t scope;         /* of a link-local IPv6 address */
};

#define IP_TEXT_MAX 64

/* The whole string must be an address (no port, no brackets; a %scope is allowed). false: it is none. */
bool ip_parse(struct str s, struct ip_addr *ret);
/* "10.0.0.0/8", "2001:db8::/32"; without a mask all bits. */
bool ip_parse_masked(struct str s, struct ip_addr *ret, int *ret_bits);
/* Exim's forms with a port: "[ip]:port", "ip.port", or a bare address (port 0). */
bool ip_parse_port(struct str s, struct ip_addr *ret, int *ret_port);
/* Text in `a`, untainted; IPv6 compressed as inet_ntop does. */
struct str ip_text(struct arena *a, const struct ip_addr *ip);
/* IPv6 in full (8 groups of 4 digits, colons); IPv4 as ip_text. */
struct str ip_text_full(struct arena *a, const struct ip_addr *ip);
bool ip_eq(const struct ip_addr *a, const struct ip_addr *b);
/* Do the first `bits` bits agree (and the families)? */
bool ip_match(const struct ip_addr *ip, const struct ip_addr *net, int bits);
/* Clears what is behind the first `bits` bits. */
void ip_mask(struct ip_addr *ip, int bits);
static inline int ip_bits(const struct ip_addr *ip) { return ip->family == AF_INET6 ? 128 : 32; }
bool ip_is_loopback(const struct ip_addr *ip);
bool ip_is_any(const struct ip_addr *ip);
/* An IPv4-mapped IPv6 address (::ffff:a.b.c.d) becomes the IPv4 address. */
void ip_unmap(struct ip_addr *ip);
/* For sockets. false: an unknown family. */
bool ip_from_sockaddr(const struct sockaddr *sa, struct ip_addr *ret, int *ret_port);
socklen_t ip_to_sockaddr(const struct ip_addr *ip, int port, struct sockaddr_storage *ret);
/* For reverse look-ups: "1.0.0.127.in-addr.arpa"; with a zone: "1.0.0.127.ZONE" (DNS lists). */
struct str ip_reverse_name(struct arena *a, const struct ip_addr *ip, const char *zone);
