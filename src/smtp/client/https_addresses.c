#include "base/buf.h"
#include "core/ctx.h"
#include "dns/dns.h"
#include "dns/host.h"
#include "smtp/client/https.h"

#define ADDRESSES_MAX 10

struct str https_addresses(struct ctx *c, struct str host) {
  struct host h = {.name = host, .address = STR_UNSET, .mx = -1};
  struct str full;
  struct buf b;
  int n = 0;
  buf_init(&b, c->arena, 1024);
  enum host_find f = host_find_addresses(c, c->arena, &h, HOST_FIND_BY_A | HOST_FIND_BY_AAAA | HOST_FIND_QUIET, NULL, &full);
  if (f != HOST_FOUND && f != HOST_FOUND_LOCAL)
    return STR_EMPTY;
  for (const struct host *i = &h; i && n < ADDRESSES_MAX; i = i->next, n++)
    buf_printf(&b, i->ip.family == AF_INET6 ? "%s[%.*s]" : "%s%.*s", n ? "," : "", STRF(i->address));
  return buf_str(&b);
}

