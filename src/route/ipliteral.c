/* The ipliteral router: user@[10.0.0.1] (Exim manual, chapter "The ipliteral
router"; RFC 5321 4.1.3). */

#include "core/main_options.h"
#include "dns/dns.h"
#include "match/match.h"
#include "route/router.h"

static bool literal_address(struct str domain, struct ip_addr *ret) {
  if (domain.len < 3 || domain.p[0] != '[' || domain.p[domain.len - 1] != ']')
    return false;
  struct str inside = str_slice(domain, 1, domain.len - 1);
  if (str_istarts(inside, STR("IPv6:")) || str_istarts(inside, STR("IPv4:")))
    inside = str_from(inside, 5);
  return ip_parse(inside, ret);
}

static enum route_result ipliteral_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct router_options *o = router_options(r);
  struct ip_addr ip;
  if (!literal_address(a->domain, &ip) || (ip.family == AF_INET6 && main_options(c->config)->disable_ipv6))
    return ROUTE_DECLINE;
  struct host *h = arena_new_of(c->arena, struct host);
  h->name = a->domain;
  h->ip = ip;
  h->address = ip_text(c->arena, &ip);
  h->mx = -1;
  if (str_is_set(o->ignore_target_hosts.text) && match_host(c, &o->ignore_target_hosts, h->name, h->address, NULL) == OUTCOME_OK) {
    a->message = STR("IP literal host explicitly ignored");
    return ROUTE_DECLINE;
  }
  a->hosts = h;
  h->is_local = host_is_local(c, &ip);
  if (h->is_local) {
    enum route_result rc = router_self(c, r, a, h, lists);
    if (rc != ROUTE_OK)
      return rc;
  }
  enum route_result rc = router_translate_hosts(c, r, a);
  return rc ? rc : router_accept(c, r, a, NULL, lists);
}

static const struct option_def options[] = {OPTIONS_END};

const struct router_def router_ipliteral_def = {
    .driver = {.name = "ipliteral", .class = DRIVER_ROUTER, .options = options, .options_size = 0,
        .summary = "routes user@[address] to that address"},
    .flags = ROUTER_NEEDS_TRANSPORT,
    .route = ipliteral_route,
};
