/* Client SMTP authorization (manual, section of that name): SRV records with
fixed meanings of their fields: priority is the version (1), weight the
authorization, port a set of assertions. */
#include "core/ctx.h"
#include "core/main_options.h"
#include "dns/dns.h"

#define VERSION 1
#define ASSERTS_SUBDOMAINS 1u
#define DEFAULT_SEARCH_LIMIT 5

static char code_of(const struct dns_record *r, bool own) {
  if (!own)
    return r->port & ASSERTS_SUBDOMAINS ? 'X' : '?';
  switch (r->weight) {
  case 1:
    return 'N';
  case 2:
    return 'Y';
  case 3:
    return '?';
  default:
    return 0;
  }
}

static const struct dns_record *valid_record(const struct dns_answer *answer, bool own, char *ret_code) {
  for (size_t i = 0; i < answer->n; i++) {
    if (answer->v[i].preference != VERSION)
      continue;
    char code = code_of(&answer->v[i], own);
    if (code == 0 || code == '?') {
      if (!own)
        return NULL; /* a parent that says nothing about its subdomains ends the search */
      if (code == 0)
        continue;
    }
    *ret_code = code;
    return &answer->v[i];
  }
  return NULL;
}

enum dns_result dns_find_csa(struct ctx *c, struct arena *a, struct str domain, struct dns_record *ret, char *ret_code) {
  const struct main_options *o = c->config ? main_options(c->config) : NULL;
  int64_t limit = o ? o->dns_csa_search_limit : DEFAULT_SEARCH_LIMIT;
  struct ip_addr ip;
  struct str literal = domain;
  if (literal.len > 2 && literal.p[0] == '[' && literal.p[literal.len - 1] == ']')
    literal = str_slice(literal, 1, literal.len - 1);
  if (str_istarts(literal, STR("IPv6:")))
    literal = str_from(literal, 5);
  if (ip_parse(literal, &ip)) {
    if (o && !o->dns_csa_use_reverse)
      return DNS_NOMATCH;
    domain = ip_reverse_name(a, &ip, NULL);
  }
  bool own = true;
  for (;; own = false) {
    struct dns_answer answer;
    struct dns_query_options options = {0};
    struct str name = str_cat(a, STR("_client._smtp."), domain);
    enum dns_result r = dns_query_with(c, a, name, DNS_SRV, &options, &answer);
    if (r == DNS_OK) {
      const struct dns_record *rec = valid_record(&answer, own, ret_code);
      if (rec == NULL)
        return DNS_NOMATCH;
      *ret = *rec;
      return DNS_OK;
    }
    if (r == DNS_AGAIN || r == DNS_FAIL)
      return r;
    /* The next parent, but never a top-level domain. */
    ptrdiff_t dot = str_find_byte(domain, '.');
    if (dot < 0 || limit-- <= 0)
      return r;
    domain = str_from(domain, (size_t)dot + 1);
    if (str_find_byte(domain, '.') < 0)
      return r;
  }
}
