/* Lists of hosts of manualroute, queryprogram and fallback_hosts, and finding
their addresses (Exim manual, sections "Format of one host item" and "How the
list of hosts is used"). */

#include <stdlib.h>
#include "core/build.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "route/router.h"

#define RANDOM_KEYS 1000
#define HOSTS_MAX 4096

/* --- the text --- */

static bool take_port(struct str text, int *port) {
  uint64_t n;
  if (!str_to_u64(text, &n) || n == 0 || n > 65535)
    return false;
  *port = (int)n;
  return true;
}

/* The part behind the last colon, when it can only be a port. */
static struct str cut_port(struct str item, int *port) {
  ptrdiff_t colon = str_rfind_byte(item, ':');
  struct ip_addr ip;
  if (colon <= 0 || ip_parse(item, &ip))
    return item;
  return take_port(str_from(item, colon + 1), port) ? str_slice(item, 0, colon) : item;
}

bool router_host_item(struct arena *a, struct str item, struct host *ret, bool *ret_mx) {
  struct ip_addr ip;
  *ret_mx = false;
  ret->port = 0;
  item = str_trim(item);
  if (item.len && item.p[0] == '[') {
    ptrdiff_t end = str_find_byte(item, ']');
    struct str inside = end > 0 ? str_slice(item, 1, end) : STR_EMPTY, rest = str_from(item, end + 1);
    if (end > 0 && ip_parse(inside, &ip) && (!rest.len || (rest.p[0] == ':' && take_port(str_from(rest, 1), &ret->port)))) {
      ret->name = str_dup(a, inside);
      return true;
    }
    ret->name = str_dup(a, item);
    return false;
  }
  item = cut_port(item, &ret->port);
  if (str_iends(item, STR("/mx"))) {
    *ret_mx = true;
    item = str_slice(item, 0, item.len - 3);
  }
  ret->name = str_dup(a, str_trim(item));
  return ret->name.len != 0;
}

/* Random order: each host gets a number, and they are sorted by it. */
static void shuffle(struct host **v, const uint32_t *key, size_t n) {
  uint32_t *k = xcalloc(n + 1, sizeof *k);
  memcpy(k, key, n * sizeof *k);
  for (size_t i = 1; i < n; i++) {
    struct host *h = v[i];
    uint32_t mine = k[i];
    size_t j = i;
    for (; j > 0 && k[j - 1] > mine; j--)
      v[j] = v[j - 1], k[j] = k[j - 1];
    v[j] = h;
    k[j] = mine;
  }
  free(k);
}

struct host *router_host_list(struct ctx *c, struct str text, bool randomize) {
  VEC(struct host *) hosts = {0};
  VEC(uint32_t) keys = {0};
  struct list_iter it;
  struct str item;
  size_t group_start = 0;
  int group = -2;
  list_iter_init(&it, c->arena, text);
  while (list_next(&it, &item) && hosts.n < HOSTS_MAX) {
    item = str_trim(item);
    if (!item.len)
      continue;
    if (str_eq_c(item, "+")) {
      if (randomize && hosts.n > group_start)
        shuffle(hosts.v + group_start, keys.v + group_start, hosts.n - group_start);
      group_start = hosts.n;
      group--;
      continue;
    }
    struct host *h = arena_new_of(c->arena, struct host);
    bool mx;
    router_host_item(c->arena, item, h, &mx);
    h->mx = randomize ? group : -1; /* below -1: this order is already random */
    h->sort_key = mx ? ROUTER_HOST_MX_LIST : 0;
    vec_push(c->arena, &hosts, h);
    vec_push(c->arena, &keys, randomize ? host_random(RANDOM_KEYS) : 0);
  }
  if (randomize && hosts.n)
    shuffle(hosts.v + group_start, keys.v + group_start, hosts.n - group_start);
  for (size_t i = 0; i + 1 < hosts.n; i++)
    hosts.v[i]->next = hosts.v[i + 1];
  return hosts.n ? hosts.v[0] : NULL;
}

/* --- their addresses --- */

/* Replaces h by the hosts of its name's MX records, keeping what follows it. */
static enum host_find find_mx_list(struct ctx *c, const struct instance *r, struct host *h, unsigned flags, struct host **ret_last) {
  const struct router_options *o = router_options(r);
  struct host_find_params p = {
      .flags = HOST_FIND_BY_MX | (flags & (HOST_FIND_IPV4_ONLY | HOST_FIND_IPV4_FIRST)),
      .ignore_target_hosts = &o->ignore_target_hosts,
      .dnssec_request = &o->dnssec_request_domains,
      .dnssec_require = &o->dnssec_require_domains,
      .srv_service = STR_UNSET,
  };
  struct host *found = NULL, *rest = h->next;
  int port = h->port;
  struct str full;
  enum host_find rc = host_find_by_dns(c, c->arena, h->name, &p, &found, &full);
  *ret_last = h;
  if ((rc != HOST_FOUND && rc != HOST_FOUND_LOCAL) || !found)
    return found || rc != HOST_FOUND ? rc : HOST_FIND_FAILED;
  struct host *last = found;
  for (struct host *x = found; x; x = x->next) {
    if (port)
      x->port = port;
    last = x;
  }
  last->next = rest;
  *h = *found;
  *ret_last = last == found ? h : last;
  return rc;
}

static enum host_find find_one(struct ctx *c, const struct instance *r, struct host *h, enum host_lookup lookup, unsigned flags,
    struct host **ret_last) {
  const struct router_options *o = router_options(r);
  struct host *rest = h->next;
  enum host_find rc;
  struct str full;
  if (h->sort_key == ROUTER_HOST_MX_LIST)
    return find_mx_list(c, r, h, flags, ret_last);
  h->next = NULL;
  if (lookup == HOST_LOOKUP_BYNAME) {
    rc = host_find_addresses(c, c->arena, h, flags, &o->ignore_target_hosts, &full);
  } else {
    rc = host_find_addresses(c, c->arena, h, flags | HOST_FIND_BY_A | HOST_FIND_BY_AAAA, &o->ignore_target_hosts, &full);
    if (rc == HOST_FIND_FAILED && lookup == HOST_LOOKUP_DEFAULT)
      rc = host_find_addresses(c, c->arena, h, flags, &o->ignore_target_hosts, &full);
  }
  struct host *last = h;
  while (last->next)
    last = last->next;
  last->next = rest;
  *ret_last = last;
  return rc;
}

/* A host that does not exist. ROUTE_OK: it was dropped and the search goes on. */
static enum route_result host_not_found(struct ctx *c, const struct instance *r, struct address *a, const struct host *h,
    enum host_failed failed) {
  switch (failed) {
  case HFF_IGNORE:
    return ROUTE_OK;
  case HFF_DECLINE:
    return ROUTE_DECLINE;
  case HFF_PASS:
    return ROUTE_PASS;
  case HFF_FREEZE:
    a->special_action_freeze = true;
    break;
  default:
    break;
  }
  router_defer(c, a, ERROR_UNKNOWN_HOST, "lookup of host \"%.*s\" failed in %.*s router", STRF(h->name), STRF(r->name));
  if (failed != HFF_FAIL)
    return ROUTE_DEFER;
  a->result = OUTCOME_FAIL;
  return ROUTE_FAIL;
}

enum route_result router_find_hosts(struct ctx *c, const struct instance *r, struct address *a, enum host_lookup lookup,
    unsigned flags, enum host_failed failed, struct route_lists *lists) {
  bool self_sends = false;
  struct host **link = &a->hosts, *last;
  while (*link) {
    struct host *h = *link;
    if (str_is_set(h->address)) {
      link = &h->next;
      continue;
    }
    enum host_find rc = find_one(c, r, h, lookup, flags, &last);
    enum route_result result;
    switch (rc) {
    case HOST_FOUND:
      break;
    case HOST_FOUND_LOCAL:
      if (self_sends)
        break;
      if (h != a->hosts) {
        *link = NULL; /* ourselves and all behind us are dropped */
        return ROUTE_OK;
      }
      result = router_self(c, r, a, h, lists);
      if (result != ROUTE_OK)
        return result;
      self_sends = true;
      break;
    case HOST_FIND_AGAIN:
      if (router_options(r)->pass_on_timeout)
        return ROUTE_PASS;
      return router_defer(c, a, ERROR_DNS_DEFER, "host lookup for %.*s did not complete (DNS timeout?)", STRF(h->name));
    case HOST_FIND_SECURITY:
      return router_defer(c, a, ERROR_UNKNOWN_HOST, "host lookup for %.*s done insecurely", STRF(h->name));
    default:
      result = host_not_found(c, r, a, h, failed);
      if (result != ROUTE_OK)
        return result;
      *link = h->next;
      continue;
    }
    link = &last->next;
  }
  return ROUTE_OK;
}

/* --- translate_ip_address --- */

static enum route_result translate_one(struct ctx *c, const struct instance *r, struct address *a, struct host *h) {
  const struct router_options *o = router_options(r);
  struct str text, full;
  struct host *saved_host = c->host;
  c->host = h;
  int rc = expand_option(c, &o->translate_ip_address, &text);
  c->host = saved_host;
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_EXPAND_FAIL, "failed to expand translate_ip_address string \"%.*s\": %.*s",
        STRF(o->translate_ip_address.text), STRF(c->error));
  struct str was_name = h->name, was_address = h->address;
  struct host *rest = h->next;
  if (ip_parse(text, &h->ip)) {
    h->address = ip_text(c->arena, &h->ip);
    return ROUTE_OK;
  }
  h->name = str_dup(c->arena, text);
  h->address = STR_UNSET;
  h->next = NULL;
  enum host_find found = host_find_addresses(c, c->arena, h, 0, NULL, &full);
  struct host *last = h;
  while (last->next)
    last = last->next;
  last->next = rest;
  if (found == HOST_FOUND || found == HOST_FOUND_LOCAL)
    return ROUTE_OK;
  return router_defer(c, a, ERROR_UNKNOWN_HOST, "host %.*s not found when translating %.*s [%.*s]", STRF(h->name), STRF(was_name),
      STRF(was_address));
}

enum route_result router_translate_hosts(struct ctx *c, const struct instance *r, struct address *a) {
  if (!str_is_set(router_options(r)->translate_ip_address.text))
    return ROUTE_OK;
  struct host *next;
  for (struct host *h = a->hosts; h; h = next) {
    next = h->next;
    enum route_result rc = str_is_set(h->address) ? translate_one(c, r, a, h) : ROUTE_OK;
    if (rc)
      return rc;
  }
  return ROUTE_OK;
}
