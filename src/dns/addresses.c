/* Addresses of one host: from the DNS or from the system's functions. */
#include <netdb.h>
#include <stdlib.h>
#include "base/idn.h"
#include "core/build.h"
#include "core/main_options.h"
#include "core/session.h"
#include "dns/host.h"
#include "dns/resolver.h"
#include "base/vec.h"
#include "log/log.h"
#include "loop/fiber.h"

#define ADDRESSES_MAX 4096

/* The sequence of the C standard's example of rand(): what the suite's results were made with. */
static uint32_t fixed_state;

void host_random_seed(uint32_t n) { fixed_state = (uint32_t)build.random_seed + 2 * n; }

uint32_t host_random(uint32_t n) {
  if (n < 1)
    return 0;
  if (!build.fixed_random)
    return arc4random_uniform(n);
  if (fixed_state == 0)
    host_random_seed(0);
  fixed_state = fixed_state * 1103515245u + 12345u;
  return (fixed_state >> 16) % n;
}

bool host_name_is_ours(struct ctx *c, struct str name) {
  if (c->config == NULL)
    return false;
  struct expand_vars saved = ctx_save(c);
  int r = match_domain(c, &main_options(c->config)->hosts_treat_as_local, name, NULL);
  ctx_restore(c, &saved);
  return r == OUTCOME_OK;
}

bool host_is_ignored(struct ctx *c, const struct option_expr *ignore, struct str name, struct str address) {
  if (ignore == NULL || !str_is_set(ignore->text))
    return false;
  /* The list may ask for $host_address. */
  struct host this = {.name = name, .address = address}, *saved = c->host;
  c->host = &this;
  int r = match_host(c, ignore, name, address, NULL);
  c->host = saved;
  if (r == OUTCOME_OK)
    DEBUG(host_lookup, "host %.*s [%.*s] ignored\n", STRF(name), STRF(address));
  return r == OUTCOME_OK;
}

enum host_find host_set_addresses(struct ctx *c, struct arena *a, struct host *h, const struct ip_addr *v, size_t n,
    const struct option_expr *ignore) {
  struct host *last = NULL, *rest = h->next, first = *h;
  bool local = false, named_local = host_name_is_ours(c, h->name);
  for (size_t i = 0; i < n; i++) {
    struct str address = ip_text(a, &v[i]);
    if (host_is_ignored(c, ignore, first.name, address))
      continue;
    struct host *p = last ? arena_new_of(a, struct host) : h;
    *p = first;
    p->ip = v[i];
    p->address = address;
    p->is_local = named_local || host_is_local(c, &v[i]);
    local |= p->is_local;
    if (last)
      last->next = p;
    last = p;
  }
  if (last == NULL)
    return HOST_IGNORED;
  last->next = rest;
  return local ? HOST_FOUND_LOCAL : HOST_FOUND;
}

static bool use_ipv6(struct ctx *c, struct str name, unsigned flags) {
  if (flags & HOST_FIND_IPV4_ONLY)
    return false;
  if (c->config == NULL)
    return true;
  const struct main_options *o = main_options(c->config);
  return !o->disable_ipv6 && (!str_is_set(o->dns_ipv4_lookup.text) || match_domain(c, &o->dns_ipv4_lookup, name, NULL) != OUTCOME_OK);
}

bool host_addresses_known(struct ctx *c, struct arena *a, struct host *h, unsigned flags, const struct option_expr *ignore,
    enum host_find *ret) {
  struct ip_addr v[2];
  size_t n = 0;
  struct str name = h->name;
  if (name.len > 2 && name.p[0] == '[' && name.p[name.len - 1] == ']')
    name = str_slice(name, 1, name.len - 1);
  if (ip_parse(name, &v[0])) {
    n = 1;
  } else if (resolver_dns_only() && str_ieq_c(name, "localhost")) {
    if (use_ipv6(c, name, flags))
      ip_parse(STR("::1"), &v[n++]);
    ip_parse(STR("127.0.0.1"), &v[n++]);
  }
  if (n > 0)
    *ret = host_set_addresses(c, a, h, v, n, ignore);
  return n > 0;
}

static void shuffle(struct ip_addr *v, size_t n) {
  if (build.fixed_random) /* as the name server gave them */
    return;
  for (size_t i = n; i > 1; i--) {
    size_t k = host_random((uint32_t)i);
    struct ip_addr t = v[i - 1];
    v[i - 1] = v[k];
    v[k] = t;
  }
}

typedef VEC(struct ip_addr) ip_vec;

/* One type's addresses, in random order. */
static enum dns_result collect(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, ip_vec *ips, bool *secure, struct str *ret_name, struct str *ret_full) {
  struct dns_answer answer;
  enum dns_result r = dns_query_with(c, a, name, type, o, &answer);
  if (r != DNS_OK)
    return r;
  size_t from = ips->n;
  for (size_t i = 0; i < answer.n && ips->n < ADDRESSES_MAX; i++)
    vec_push(a, ips, answer.v[i].ip);
  shuffle(ips->v + from, ips->n - from);
  *secure &= answer.secure;
  if (!str_is_set(*ret_name))
    *ret_name = answer.canonical;
  if (ret_full)
    *ret_full = answer.qualified;
  return r;
}

enum host_find host_addresses_dns(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore, const struct dns_query_options *o, bool require_secure, struct str *ret_full) {
  ip_vec ips = {0};
  bool secure = true;
  struct str owner = STR_UNSET; /* of the records: the name behind CNAMEs becomes the host's */
  enum dns_result v6 = DNS_NODATA, v4 = DNS_NODATA;
  bool both = !(flags & (HOST_FIND_BY_A | HOST_FIND_BY_AAAA));
  bool want6 = (both || flags & HOST_FIND_BY_AAAA) && use_ipv6(c, h->name, flags);
  bool want4 = both || flags & HOST_FIND_BY_A;
  if (want4 && flags & HOST_FIND_IPV4_FIRST)
    v4 = collect(c, a, h->name, DNS_A, o, &ips, &secure, &owner, ret_full);
  if (want6)
    v6 = collect(c, a, h->name, DNS_AAAA, o, &ips, &secure, &owner, ret_full);
  if (want4 && !(flags & HOST_FIND_IPV4_FIRST))
    v4 = collect(c, a, h->name, DNS_A, o, &ips, &secure, &owner, ret_full);
  if (ips.n == 0) {
    if (v4 == DNS_AGAIN || v4 == DNS_FAIL || v6 == DNS_AGAIN || v6 == DNS_FAIL)
      return HOST_FIND_AGAIN;
    return HOST_FIND_FAILED;
  }
  if (require_secure && !secure)
    return HOST_FIND_SECURITY;
  h->dnssec = secure;
  if (!str_is_set(h->certname))
    h->certname = h->name;
  if (!str_ieq(h->name, owner))
    h->name = owner;
  return host_set_addresses(c, a, h, ips.v, ips.n, ignore);
}

/* --- the system's functions --- */

struct by_name {
  char *name;
  int family, error;
  struct addrinfo *list;
};

static int run_by_name(void *arg) {
  struct by_name *b = arg;
  struct addrinfo hints = {.ai_family = b->family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
  b->error = getaddrinfo(b->name, NULL, &hints, &b->list);
  return 0;
}

static enum host_find by_name_failed(struct ctx *c, struct str name, unsigned flags, bool again) {
  if (again && c->config && match_domain(c, &main_options(c->config)->dns_again_means_nonexist, name, NULL) == OUTCOME_OK)
    again = false;
  if (again)
    return HOST_FIND_AGAIN;
  /* Only where a message or a client is the reason: tests of addresses show the failure themselves. */
  if ((c->session || (c->message && !c->is_test)) && !(flags & HOST_FIND_QUIET) && log_selected(LOGSEL_host_lookup_failed)) {
    struct str who = c->client && str_is_set(c->client->fullhost) && c->session ? c->client->fullhost : STR_UNSET;
    log_write(LOG_MAIN, c->message, "no IP address found for host %.*s%s%.*s%s", STRF(name),
      str_is_set(who) ? " (during SMTP connection from " : "", STRF(who), str_is_set(who) ? ")" : "");
  }
  return HOST_FIND_FAILED;
}

static enum host_find find_by_name(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore) {
  const char *why;
  if (memchr(h->name.p, '\0', h->name.len) || !idn_domain_to_ascii(a, h->name, &h->name, &why))
    return HOST_FIND_FAILED;
  bool v6 = use_ipv6(c, h->name, flags);
  struct by_name b = {.name = str_dup_c(a, h->name), .family = v6 ? AF_UNSPEC : AF_INET};
  fiber_offload(run_by_name, &b);
  ip_vec ips = {0};
  /* IPv6 first, unless the router wants it otherwise; the system's order inside a family. */
  int order[2] = {AF_INET6, AF_INET};
  if (flags & HOST_FIND_IPV4_FIRST)
    order[0] = AF_INET, order[1] = AF_INET6;
  for (int k = 0; k < 2; k++)
    for (struct addrinfo *i = b.error ? NULL : b.list; i && ips.n < ADDRESSES_MAX; i = i->ai_next) {
      struct ip_addr ip;
      int port;
      if (i->ai_family == order[k] && ip_from_sockaddr(i->ai_addr, &ip, &port))
        vec_push(a, &ips, ip);
    }
  if (b.list)
    freeaddrinfo(b.list);
  if (ips.n == 0)
    return by_name_failed(c, h->name, flags, b.error == EAI_AGAIN || b.error == EAI_SYSTEM || b.error == EAI_MEMORY);
  return host_set_addresses(c, a, h, ips.v, ips.n, ignore);
}

enum host_find host_find_addresses(struct ctx *c, struct arena *a, struct host *h, unsigned flags,
    const struct option_expr *ignore, struct str *ret_full) {
  enum host_find r;
  if (ret_full)
    *ret_full = h->name;
  if (host_addresses_known(c, a, h, flags, ignore, &r))
    return r;
  bool by_dns = flags & (HOST_FIND_BY_A | HOST_FIND_BY_AAAA);
  if (!by_dns && !resolver_dns_only())
    return find_by_name(c, a, h, flags, ignore);
  struct dns_query_options o = {.qualify_single = !by_dns || flags & HOST_FIND_QUALIFY_SINGLE,
    .search_parents = flags & HOST_FIND_SEARCH_PARENTS};
  r = host_addresses_dns(c, a, h, flags, ignore, &o, false, ret_full);
  if (r == HOST_FIND_FAILED && !by_dns)
    return by_name_failed(c, h->name, flags, false);
  return r;
}
