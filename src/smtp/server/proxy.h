/* The PROXY protocol (haproxy's proxy-protocol.txt), versions 1 and 2: what stands before the client's own bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/ip.h"
#include "base/str.h"

#define PROXY_V1_MAX 107           /* of the whole line */
#define PROXY_V2_FIXED 16
#define PROXY_V2_MAX 4096          /* of what follows these */

struct proxy_header {
  bool local;                      /* LOCAL, UNKNOWN, UNSPEC: the connection's own addresses count */
  struct ip_addr from, to;
  int from_port, to_port;
  struct str unique_id;            /* TLV 0x05, a view; unset: none. Tainted */
};

/* Looks at the beginning of a connection. Returns how many bytes must be there at least to know more, more than in.len:
call again; or, not more than in.len, the header's length: *ret is filled. 0: it is none, *ret_why says so. */
size_t proxy_parse(struct str in, struct proxy_header *ret, const char **ret_why);
