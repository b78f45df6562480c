/* Connections through a SOCKS5 proxy (RFC 1928, 1929; Exim manual, "Outbound proxies"). */
#pragma once

#include "base/ip.h"
#include "base/str.h"
#include "loop/fiber.h"

struct ctx;

#define SOCKS_NAME_MAX 255

/* An item of socks_proxy. */
struct socks_proxy {
  struct str address;
  struct ip_addr ip;
  int port, pri, weight;
  int64_t timeout;      /* seconds */
  bool with_name;       /* auth=name */
  struct str name, pass;
};
/* Reads "IP option=value …". false: *ret_error. */
bool socks_proxy_parse(struct ctx *c, struct str item, struct socks_proxy *ret, struct str *ret_error);

struct stream;
/* What is said over a connection to the proxy, until it is one to the host behind it. [suspends] 0, with the address and port that
the proxy uses; or -errno, -EPROTO when it is no SOCKS5 proxy, -EACCES when it refuses, with *ret_error. */
int socks_greet(struct ctx *c, struct stream *s, const struct socks_proxy *p, const struct ip_addr *to, int port, usec_t deadline,
    struct ip_addr *ret_ip, int *ret_port, struct str *ret_error);
