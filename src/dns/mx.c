/* The hosts of a mail domain: SRV, MX, addresses, in order of use (manual,
"The dnslookup router"; RFC 5321 section 5, RFC 7505, RFC 2782). */
#include "base/buf.h"
#include "base/idn.h"
#include "base/vec.h"
#include "core/main_options.h"
#include "dns/host.h"
#include "log/log.h"

#define RANDOM_KEYS 500u
#define HOSTS_MAX 200 /* of one domain; the rest is not used */

struct search {
  struct ctx *c;
  struct arena *a;
  struct str domain;
  struct str ascii; /* the domain as the DNS has it */
  const struct host_find_params *p;
  struct dns_query_options o;
  bool require_secure;
  bool request_secure; /* else answers count as if they were not */
  VEC(struct host *) hosts;
};

static bool in_option(struct ctx *c, const struct option_expr *list, struct str domain) {
  return list && str_is_set(list->text) && match_domain(c, list, domain, NULL) == OUTCOME_OK;
}

static struct host *add_host(struct search *s, struct str name, int mx, int port) {
  struct host *h = arena_new_of(s->a, struct host);
  *h = (struct host){.name = name, .address = STR_UNSET, .mx = mx, .port = port, .certname = name};
  vec_push(s->a, &s->hosts, h);
  return h;
}

static struct str without_dot(struct str name) {
  return name.len > 1 && name.p[name.len - 1] == '.' ? str_slice(name, 0, name.len - 1) : name;
}

/* RFC 2782: within a priority, the chance of being first is proportional to the weight. */
static void order_by_weight(struct dns_record *v, size_t n) {
  for (size_t done = 0; done + 1 < n; done++) {
    uint32_t total = 0, sum = 0;
    for (size_t i = done; i < n; i++)
      total += v[i].weight;
    uint32_t pick = host_random(total + 1);
    for (size_t i = done; i < n; i++) {
      sum += v[i].weight;
      if (sum >= pick) {
        struct dns_record t = v[i];
        v[i] = v[done];
        v[done] = t;
        break;
      }
    }
  }
}

static void sort_by_key(struct dns_record *v, uint32_t *key, size_t n) {
  for (size_t i = 1; i < n; i++) {
    struct dns_record t = v[i];
    uint32_t tk = key[i];
    size_t k = i;
    for (; k > 0 && key[k - 1] > tk; k--)
      v[k] = v[k - 1], key[k] = key[k - 1];
    v[k] = t;
    key[k] = tk;
  }
}

/* By preference; those of equal preference in random order (MX) or by weight (SRV). */
static void order_records(struct arena *a, struct dns_record *v, size_t n, bool srv) {
  uint32_t *key = arena_array(a, uint32_t, n + 1);
  for (size_t i = 0; i < n; i++)
    key[i] = v[i].preference * RANDOM_KEYS + (srv ? 0 : host_random(RANDOM_KEYS));
  sort_by_key(v, key, n);
  for (size_t i = 0, end; i < n && srv; i = end) {
    for (end = i + 1; end < n && v[end].preference == v[i].preference; end++)
      ;
    order_by_weight(v + i, end - i);
  }
}

/* One query for SRV or MX records. OUTCOME-like: HOST_FOUND (records are there), FAILED (none), AGAIN, SECURITY. */
static enum host_find query(struct search *s, struct str name, enum dns_type type, const struct option_expr *fail_domains,
    struct dns_answer *ret) {
  enum dns_result r = dns_query_with(s->c, s->a, name, type, &s->o, ret);
  if (r == DNS_AGAIN || r == DNS_FAIL)
    return in_option(s->c, fail_domains, s->domain) ? HOST_FIND_FAILED : HOST_FIND_AGAIN;
  if (r != DNS_OK)
    return HOST_FIND_FAILED;
  if (s->require_secure && !ret->secure)
    return HOST_FIND_SECURITY;
  return HOST_FOUND;
}

/* "." as the only target: no service here. */
static bool no_service(struct search *s, const struct dns_answer *answer) {
  if (answer->n != 1 || !str_eq_c(answer->v[0].text, "."))
    return false;
  ctx_fail(s->c, OUTCOME_FAIL, "an MX or SRV record indicated no SMTP service");
  return true;
}

/* A host's name in a record. Some zones have it in UTF-8, which the reader of packets shows as \ddd. */
static struct str target_name(struct arena *a, struct str text) {
  struct str name = without_dot(text), ascii;
  struct buf b;
  const char *why;
  if (str_find_byte(name, '\\') < 0)
    return name;
  buf_init(&b, a, name.len);
  for (size_t i = 0; i < name.len; i++) {
    struct str digits = str_slice(name, i + 1, i + 4);
    uint64_t byte = 0;
    if (name.p[i] == '\\' && digits.len == 3 && str_to_u64(digits, &byte) && byte >= 0x80 && byte <= 0xff) {
      buf_add_byte(&b, (char)byte);
      i += 3;
    } else {
      buf_add_byte(&b, name.p[i]);
    }
  }
  return idn_domain_to_ascii(a, buf_str(&b), &ascii, &why) ? str_tainted(ascii) : name;
}

static enum host_find find_records(struct search *s, enum dns_type type, struct str *ret_full) {
  bool srv = type == DNS_SRV;
  struct str name = srv ? str_printf(s->a, "_%.*s._tcp.%.*s", STRF(s->p->srv_service), STRF(s->domain)) : s->domain;
  name.taint = str_taint_join(s->domain.taint, s->p->srv_service.taint);
  struct dns_answer answer;
  enum host_find r = query(s, name, type, srv ? s->p->srv_fail_domains : s->p->mx_fail_domains, &answer);
  if (r != HOST_FOUND)
    return r;
  if (no_service(s, &answer))
    return HOST_IGNORED; /* the caller turns it into a failure; nothing else is to be tried */
  order_records(s->a, answer.v, answer.n, srv);
  for (size_t i = 0; i < answer.n && s->hosts.n < HOSTS_MAX; i++) {
    struct str target = target_name(s->a, answer.v[i].text);
    bool seen = false;
    for (size_t k = 0; k < s->hosts.n && !seen; k++)
      seen = str_ieq(s->hosts.v[k]->name, target) && s->hosts.v[k]->port == answer.v[i].port;
    if (seen)
      continue;
    struct host *h = add_host(s, target, answer.v[i].preference, answer.v[i].port);
    h->dnssec = answer.secure && s->request_secure;
    h->tls_service = srv && str_eq_c(s->p->srv_service, "smtp-tls");
  }
  if (!srv)
    *ret_full = answer.qualified;
  return HOST_FOUND;
}

struct tally {
  int found, again, ignored, failed, insecure, addresses;
};

/* Addresses of all hosts; hosts without any are left out. */
static struct host *find_all_addresses(struct search *s, unsigned flags, struct tally *t) {
  const struct main_options *m = s->c->config ? main_options(s->c->config) : NULL;
  struct host *first = NULL, **link = &first;
  for (size_t i = 0; i < s->hosts.n; i++) {
    struct host *h = s->hosts.v[i];
    struct ip_addr ip;
    enum host_find r;
    if (ip_parse(h->name, &ip) && !(m && m->allow_mx_to_ip)) {
      t->addresses++;
      continue;
    }
    struct dns_query_options o = {0};
    bool secure = h->dnssec;
    if (!host_addresses_known(s->c, s->a, h, flags, s->p->ignore_target_hosts, &r))
      r = host_addresses_dns(s->c, s->a, h, flags & (HOST_FIND_IPV4_ONLY | HOST_FIND_IPV4_FIRST), s->p->ignore_target_hosts,
        &o, s->require_secure, NULL);
    t->found += r == HOST_FOUND || r == HOST_FOUND_LOCAL;
    t->again += r == HOST_FIND_AGAIN;
    t->ignored += r == HOST_IGNORED;
    t->failed += r == HOST_FIND_FAILED;
    t->insecure += r == HOST_FIND_SECURITY;
    if (r != HOST_FOUND && r != HOST_FOUND_LOCAL)
      continue;
    *link = h;
    for (; h; h = h->next) {
      h->dnssec = h->dnssec && secure;
      link = &h->next;
    }
  }
  return first;
}

/* An address that several names have is tried once, where it is preferred most. */
static void remove_repeated(struct host *first) {
  for (struct host *h = first; h; h = h->next)
    for (struct host **link = &h->next; *link;)
      if ((*link)->port == h->port && ip_eq(&(*link)->ip, &h->ip))
        *link = (*link)->next;
      else
        link = &(*link)->next;
}

/* Addresses of hosts of equal preference: IPv6 of all of them before IPv4, or the other way round. */
static struct host *sort_families(struct host *first, bool ipv4_first) {
  struct host *out = NULL, **link = &out;
  while (first) {
    struct host *later = NULL, **later_link = &later;
    int mx = first->mx;
    for (; first && first->mx == mx; first = first->next) {
      bool early = (first->ip.family == AF_INET) == ipv4_first;
      if (early) {
        *link = first;
        link = &first->next;
      } else {
        *later_link = first;
        later_link = &first->next;
      }
    }
    *later_link = NULL;
    *link = later;
    while (*link)
      link = &(*link)->next;
  }
  *link = NULL;
  return out;
}

/* Drops ourselves and all that are not preferred to us. What is left is empty when we are among the first. */
static enum host_find remove_local(struct search *s, struct host **first) {
  int local = INT32_MAX;
  for (struct host *h = *first; h; h = h->next)
    if (h->is_local && h->mx < local)
      local = h->mx;
  if (local == INT32_MAX)
    return HOST_FOUND;
  if ((*first)->mx >= local) {
    /* We are of the best: the one that is us comes first, for the router's `self`. */
    struct host **link = first;
    while (!(*link)->is_local)
      link = &(*link)->next;
    struct host *us = *link;
    *link = us->next;
    us->next = *first;
    *first = us;
    return HOST_FOUND_LOCAL;
  }
  struct host **link = first;
  while (*link && (*link)->mx < local)
    link = &(*link)->next;
  DEBUG(host_lookup, "local host in host list - removed hosts with MX >= %d\n", local);
  *link = NULL;
  if (s->p->ret_local_removed)
    *s->p->ret_local_removed = true;
  return HOST_FOUND;
}

static enum host_find nothing_found(struct search *s, const struct tally *t) {
  if (t->again)
    return HOST_FIND_AGAIN;
  if (t->insecure)
    return HOST_FIND_SECURITY;
  if (s->hosts.n > 0 && s->hosts.v[0]->mx >= 0)
    ctx_fail(s->c, OUTCOME_FAIL, "all relevant MX records point to non-existent hosts%s", t->addresses ? " or (invalidly) to IP addresses" : "");
  return t->ignored ? HOST_IGNORED : HOST_FIND_FAILED;
}

/* The domain is its own host. */
static enum host_find find_direct(struct search *s, unsigned flags, struct host **ret, struct str *ret_full) {
  struct host *h = add_host(s, s->ascii, -1, 0);
  enum host_find r;
  if (!host_addresses_known(s->c, s->a, h, flags, s->p->ignore_target_hosts, &r))
    r = host_addresses_dns(s->c, s->a, h, flags & ~(HOST_FIND_BY_MX | HOST_FIND_BY_SRV), s->p->ignore_target_hosts, &s->o,
      s->require_secure, ret_full);
  if (r == HOST_FOUND || r == HOST_FOUND_LOCAL)
    *ret = h;
  for (struct host *i = h; i; i = i->next)
    i->dnssec = i->dnssec && s->request_secure;
  return r;
}

static enum host_find find_hosts(struct ctx *c, struct arena *a, struct str domain, struct str ascii, const struct host_find_params *p,
    struct host **ret, struct str *ret_full) {
  struct search s = {.c = c, .a = a, .domain = domain, .ascii = ascii, .p = p};
  s.o.qualify_single = p->flags & HOST_FIND_QUALIFY_SINGLE;
  s.o.search_parents = p->flags & HOST_FIND_SEARCH_PARENTS;
  s.require_secure = in_option(c, p->dnssec_require, s.domain);
  s.request_secure = s.require_secure || !p->dnssec_request || in_option(c, p->dnssec_request, s.domain);
  c->error = STR_UNSET;
  *ret = NULL;
  *ret_full = s.domain;
  if (p->ret_local_removed)
    *p->ret_local_removed = false;
  enum host_find r = HOST_FIND_FAILED;
  if (str_is_set(p->srv_service) && p->srv_service.len > 0)
    r = find_records(&s, DNS_SRV, ret_full);
  if (r == HOST_FIND_FAILED && p->flags & HOST_FIND_BY_MX)
    r = find_records(&s, DNS_MX, ret_full);
  if (r == HOST_IGNORED)
    return HOST_FIND_FAILED;
  if (r == HOST_FIND_FAILED && p->flags & (HOST_FIND_BY_A | HOST_FIND_BY_AAAA))
    return find_direct(&s, p->flags, ret, ret_full);
  if (r != HOST_FOUND)
    return r;
  struct tally t = {0};
  struct host *first = find_all_addresses(&s, p->flags, &t);
  remove_repeated(first);
  if (first == NULL)
    return nothing_found(&s, &t);
  *ret = sort_families(first, p->flags & HOST_FIND_IPV4_FIRST);
  r = remove_local(&s, ret);
  for (struct host *h = *ret; h; h = h->next)
    DEBUG(host_lookup, "  %.*s [%.*s] MX=%d%s\n", STRF(h->name), STRF(h->address), h->mx, h->dnssec ? " DNSSEC" : "");
  return r;
}

enum host_find host_find_by_dns(struct ctx *c, struct arena *a, struct str domain, const struct host_find_params *p,
    struct host **ret, struct str *ret_full) {
  struct str given = without_dot(domain), ascii;
  const char *why;
  if (!idn_domain_to_ascii(a, given, &ascii, &why)) {
    c->error = STR_UNSET;
    *ret = NULL;
    *ret_full = given;
    DEBUG(host_lookup, "%.*s is no domain name: %s\n", STRF(given), why);
    return HOST_FIND_FAILED;
  }
  enum host_find r = find_hosts(c, a, given, ascii, p, ret, ret_full);
  if (str_ieq(*ret_full, ascii) && !str_ieq(given, ascii)) /* another form of the same name does not make the address another one */
    *ret_full = given;
  return r;
}

int host_mx_local(struct ctx *c, struct str domain, struct str ignore, bool *ret_primary) {
  struct arena *a = c->arena;
  struct dns_answer answer;
  enum dns_result r = dns_query(c, a, domain, DNS_MX, &answer);
  if (r == DNS_AGAIN || r == DNS_FAIL)
    return ctx_fail(c, OUTCOME_DEFER, "DNS lookup of \"%.*s\" deferred", STRF(domain));
  if (r != DNS_OK)
    return OUTCOME_FAIL;
  int lowest = INT32_MAX, local = INT32_MAX;
  bool again = false;
  for (size_t i = 0; i < answer.n && i < HOSTS_MAX; i++) {
    struct host h = {.name = without_dot(answer.v[i].text), .mx = answer.v[i].preference};
    struct dns_query_options o = {0};
    enum host_find f;
    if (!host_addresses_known(c, a, &h, 0, NULL, &f))
      f = host_addresses_dns(c, a, &h, 0, NULL, &o, false, NULL);
    again |= f == HOST_FIND_AGAIN;
    if (f != HOST_FOUND && f != HOST_FOUND_LOCAL)
      continue;
    for (struct host *x = &h; x; x = x->next) {
      if (str_is_set(ignore) && match_host_text(c, ignore, x->name, x->address, NULL) == OUTCOME_OK)
        continue;
      if (x->mx < lowest)
        lowest = x->mx;
      if (x->is_local && x->mx < local)
        local = x->mx;
    }
  }
  *ret_primary = local == lowest;
  if (local == INT32_MAX)
    return again && lowest == INT32_MAX ? ctx_fail(c, OUTCOME_DEFER, "DNS lookup of \"%.*s\" deferred", STRF(domain)) : OUTCOME_FAIL;
  return OUTCOME_OK;
}
