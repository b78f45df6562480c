/* Which addresses are ours (manual, "Recognizing the local host"). */
#include <ifaddrs.h>
#include <stdlib.h>
#include "core/main_options.h"
#include "dns/dns.h"
#include "loop/fiber.h"
#include "match/match.h"

#define REFRESH_SECONDS 60
#define ADDRESSES_MAX 4096

static struct {
  struct ip_addr *v;
  size_t n;
  usec_t until;
} ours;

static void refresh(void) {
  struct ifaddrs *list;
  if (ours.until > loop_now_fresh() || getifaddrs(&list) != 0)
    return;
  free(ours.v);
  ours.v = xcalloc(ADDRESSES_MAX, sizeof *ours.v);
  ours.n = 0;
  int port;
  for (struct ifaddrs *i = list; i && ours.n < ADDRESSES_MAX; i = i->ifa_next)
    if (i->ifa_addr && ip_from_sockaddr(i->ifa_addr, &ours.v[ours.n], &port))
      ours.n++;
  freeifaddrs(list);
  ours.until = deadline_in(REFRESH_SECONDS);
}

static bool is_interface(const struct ip_addr *ip) {
  refresh();
  for (size_t i = 0; i < ours.n; i++)
    if (ip_eq(ip, &ours.v[i]))
      return true;
  return false;
}

/* local_interfaces or extra_local_interfaces; the "any" addresses stand for all interfaces of their family. */
static bool in_interfaces(struct arena *a, struct str list, const struct ip_addr *ip) {
  struct list_iter iter;
  struct str s;
  list_iter_init(&iter, a, list);
  while (list_next(&iter, &s)) {
    struct ip_addr item;
    int port;
    if (!ip_parse_port(s, &item, &port))
      continue;
    if (ip_is_any(&item) ? item.family == ip->family && is_interface(ip) : ip_eq(&item, ip))
      return true;
  }
  return false;
}

bool host_is_local(struct ctx *c, const struct ip_addr *address) {
  struct ip_addr ip = *address;
  ip_unmap(&ip);
  ip.scope = 0;
  if (ip_is_loopback(&ip) || ip_is_any(&ip)) /* 0.0.0.0 connects to this machine */
    return true;
  if (c->config == NULL)
    return is_interface(&ip);
  const struct main_options *o = main_options(c->config);
  return in_interfaces(c->arena, o->local_interfaces, &ip) || in_interfaces(c->arena, o->extra_local_interfaces, &ip);
}
