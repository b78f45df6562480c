/* The client's name from its address, believed only when the name's addresses
include it (manual, "Host list patterns that match by host name"). */
#include <netdb.h>
#include "base/ascii.h"
#include "base/buf.h"
#include "core/build.h"
#include "core/main_options.h"
#include "dns/host.h"
#include "dns/resolver.h"
#include "log/log.h"
#include "loop/fiber.h"

#define NAMES_MAX 50

struct names {
  struct str v[NAMES_MAX];
  size_t n;
  bool secure;
};

/* What may stand in a host name. Names with anything else do not become $sender_host_name. */
static bool is_host_name(struct str name) {
  for (size_t i = 0; i < name.len; i++)
    if (!ascii_is_alnum(name.p[i]) && name.p[i] != '-' && name.p[i] != '.' && name.p[i] != '_')
      return false;
  return name.len > 0;
}

static enum dns_result names_by_dns(struct ctx *c, struct names *names) {
  struct client *k = c->client;
  struct dns_answer answer;
  enum dns_result r = dns_query(c, c->arena, ip_reverse_name(c->arena, &k->ip, NULL), DNS_PTR, &answer);
  for (size_t i = 0; r == DNS_OK && i < answer.n && names->n < NAMES_MAX; i++)
    if (is_host_name(answer.v[i].text))
      names->v[names->n++] = str_lower(c->arena, answer.v[i].text);
    else
      DEBUG(host_lookup, "reverse name of %.*s ignored: it has illegal characters\n", STRF(k->host_address));
  names->secure = r == DNS_OK && answer.secure;
  return r == DNS_OK && names->n == 0 ? DNS_NODATA : r;
}

struct by_addr {
  struct sockaddr_storage address;
  socklen_t length;
  char name[NI_MAXHOST];
  int error;
};

static int run_by_addr(void *arg) {
  struct by_addr *b = arg;
  b->error = getnameinfo((struct sockaddr *)&b->address, b->length, b->name, sizeof b->name, NULL, 0, NI_NAMEREQD);
  return 0;
}

static enum dns_result names_by_addr(struct ctx *c, struct names *names) {
  if (resolver_dns_only())
    return names_by_dns(c, names);
  struct by_addr b = {0};
  b.length = ip_to_sockaddr(&c->client->ip, 0, &b.address);
  fiber_offload(run_by_addr, &b);
  if (b.error)
    return b.error == EAI_AGAIN || b.error == EAI_SYSTEM ? DNS_AGAIN : DNS_NOMATCH;
  struct str name = str_tainted(str_lower(c->arena, str_c(b.name)));
  if (!is_host_name(name))
    return DNS_NODATA;
  names->v[names->n++] = name;
  return DNS_OK;
}

static enum dns_result find_names(struct ctx *c, struct names *names) {
  struct str order = c->config ? main_options(c->config)->host_lookup_order : STR("bydns:byaddr");
  struct list_iter iter;
  struct str method;
  enum dns_result r = DNS_NOMATCH;
  bool again = false;
  list_iter_init(&iter, c->arena, order);
  while (list_next(&iter, &method)) {
    if (str_ieq_c(method, "bydns"))
      r = names_by_dns(c, names);
    else if (str_ieq_c(method, "byaddr"))
      r = names_by_addr(c, names);
    else
      continue;
    if (r == DNS_OK)
      return r;
    again |= r == DNS_AGAIN || r == DNS_FAIL;
  }
  return again ? DNS_AGAIN : DNS_NOMATCH;
}

/* Keeps the names that have our client's address. */
static bool confirm(struct ctx *c, struct names *names, bool *ret_again) {
  struct client *k = c->client;
  struct ip_addr ip = k->ip;
  size_t kept = 0;
  ip_unmap(&ip);
  for (size_t i = 0; i < names->n; i++) {
    struct host h = {.name = names->v[i], .address = STR_UNSET, .mx = -1};
    enum host_find r = host_find_addresses(c, c->arena, &h, HOST_FIND_BY_A | HOST_FIND_BY_AAAA, NULL, NULL);
    if (r == HOST_FIND_FAILED && !resolver_dns_only())
      r = host_find_addresses(c, c->arena, &h, 0, NULL, NULL);
    *ret_again |= r == HOST_FIND_AGAIN;
    bool same = false;
    for (struct host *x = r == HOST_FOUND || r == HOST_FOUND_LOCAL ? &h : NULL; x && !same; x = x->next)
      same = ip_eq(&x->ip, &ip);
    DEBUG(host_lookup, "  %.*s %s\n", STRF(names->v[i]), same ? "OK" : "does not have this address");
    names->secure &= h.dnssec;
    if (same)
      names->v[kept++] = names->v[i];
  }
  names->n = kept;
  return kept > 0;
}

static void keep_names(struct ctx *c, const struct names *names) {
  struct client *k = c->client;
  /* The session outlives this context's arena where they differ. */
  struct arena *a = c->session ? c->session->arena : c->arena;
  struct buf aliases;
  buf_init(&aliases, a, 65536);
  for (size_t i = 1; i < names->n; i++)
    list_add(&aliases, ':', names->v[i]);
  k->host_name = str_tainted(str_dup(a, names->v[0]));
  k->host_aliases = aliases.len ? str_tainted(buf_str(&aliases)) : STR_UNSET;
  k->host_dnssec = names->secure;
}

enum outcome host_name_lookup(struct ctx *c) {
  struct client *k = c->client;
  if (k->host_name_looked_up)
    return k->host_name.len ? OUTCOME_OK : k->host_lookup_deferred ? OUTCOME_DEFER : OUTCOME_FAIL;
  if (!str_is_set(k->host_address) || k->host_address.len == 0)
    return OUTCOME_FAIL;
  k->host_name_looked_up = true;
  k->host_lookup_deferred = k->host_lookup_failed = false;
  DEBUG(host_lookup, "looking up host name for %.*s\n", STRF(k->host_address));
  struct names names = {0};
  bool again = false;
  enum dns_result r = build.hosts_from_dns_only && str_eq_c(k->host_address, "99.99.99.99") ? DNS_AGAIN : find_names(c, &names);
  if (r == DNS_OK && confirm(c, &names, &again)) {
    keep_names(c, &names);
    DEBUG(host_lookup, "sender host name is \"%.*s\"\n", STRF(k->host_name));
    return OUTCOME_OK;
  }
  if (r == DNS_AGAIN || again) {
    k->host_lookup_deferred = true;
    /* A later question tries again. */
    k->host_name_looked_up = false;
    ctx_fail(c, OUTCOME_DEFER, "host lookup deferred for reverse lookup check");
    return OUTCOME_DEFER;
  }
  if (r != DNS_OK) {
    k->host_lookup_failed = true;
    if (log_selected(LOGSEL_host_lookup_failed))
      log_write(LOG_MAIN, c->message, "no host name found for IP address %.*s", STRF(k->host_address));
    ctx_fail(c, OUTCOME_FAIL, "failed to find host name for %.*s", STRF(k->host_address));
  } else {
    k->host_lookup_failed = true;
    ctx_fail(c, OUTCOME_FAIL, "%.*s does not match any IP address for %.*s", STRF(k->host_address), STRF(names.v[0]));
  }
  return OUTCOME_FAIL;
}
