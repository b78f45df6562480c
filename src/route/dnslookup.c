/* The dnslookup router (Exim manual, chapter "The dnslookup router"). */

#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "match/match.h"
#include "message/message.h"
#include "route/router.h"

struct dnslookup {
  bool check_secondary_mx, qualify_single, rewrite_headers, same_domain_copy_routing, search_parents;
  struct option_expr check_srv, fail_defer_domains, ipv4_only, ipv4_prefer, mx_domains, mx_fail_domains, srv_fail_domains;
  struct str widen_domains;
};

#define AT(field) offsetof(struct dnslookup, field)
static const struct option_def options[] = {
    {"check_secondary_mx", OPTION_BOOL, AT(check_secondary_mx)},
    {"check_srv", OPTION_EXPR, AT(check_srv)},
    {"fail_defer_domains", OPTION_LIST, AT(fail_defer_domains), .list = LIST_DOMAIN},
    {"ipv4_only", OPTION_EXPR, AT(ipv4_only)},
    {"ipv4_prefer", OPTION_EXPR, AT(ipv4_prefer)},
    {"mx_domains", OPTION_LIST, AT(mx_domains), .list = LIST_DOMAIN},
    {"mx_fail_domains", OPTION_LIST, AT(mx_fail_domains), .list = LIST_DOMAIN},
    {"qualify_single", OPTION_BOOL, AT(qualify_single), "true"},
    {"rewrite_headers", OPTION_BOOL, AT(rewrite_headers), "true"},
    {"same_domain_copy_routing", OPTION_BOOL, AT(same_domain_copy_routing)},
    {"search_parents", OPTION_BOOL, AT(search_parents)},
    {"srv_fail_domains", OPTION_LIST, AT(srv_fail_domains), .list = LIST_DOMAIN},
    {"widen_domains", OPTION_STRING, AT(widen_domains)},
    OPTIONS_END};

/* "anything but a forced failure, or an empty string, or 0, no, false" */
static enum route_result lax_option(struct ctx *c, struct address *a, const struct option_expr *o, const char *name, bool *ret) {
  struct str value;
  *ret = false;
  if (!str_is_set(o->text))
    return ROUTE_OK;
  int rc = expand_option(c, o, &value);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_EXPAND_FAIL, "failed to expand %s \"%.*s\": %.*s", name, STRF(o->text), STRF(c->error));
  *ret = value.len && !str_eq_c(value, "0") && !str_ieq_c(value, "no") && !str_ieq_c(value, "false");
  return ROUTE_OK;
}

static enum route_result set_flags(struct ctx *c, const struct dnslookup *o, struct address *a, unsigned *flags) {
  bool only, prefer;
  enum route_result rc;
  if ((rc = lax_option(c, a, &o->ipv4_only, "ipv4_only", &only)) || (rc = lax_option(c, a, &o->ipv4_prefer, "ipv4_prefer", &prefer)))
    return rc;
  *flags = (only ? HOST_FIND_IPV4_ONLY : 0) | (prefer ? HOST_FIND_IPV4_FIRST : 0) |
           (o->qualify_single ? HOST_FIND_QUALIFY_SINGLE : 0) | (o->search_parents ? HOST_FIND_SEARCH_PARENTS : 0);
  return ROUTE_OK;
}

/* The services of check_srv one after the other, until one has records. *found is HOST_FIND_FAILED when MX has to be asked. */
static enum route_result find_srv(struct ctx *c, const struct dnslookup *o, struct address *a, struct str domain,
    const struct host_find_params *base, enum host_find *found, struct str *full) {
  struct str services, service;
  struct list_iter it;
  *found = HOST_FIND_FAILED;
  if (!str_is_set(o->check_srv.text))
    return ROUTE_OK;
  int rc = expand_option(c, &o->check_srv, &services);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: failed to expand \"%.*s\": %.*s", STRF(c->router->name),
        STRF(o->check_srv.text), STRF(c->error));
  list_iter_init(&it, c->arena, services);
  while (list_next(&it, &service)) {
    struct host_find_params p = *base;
    if (!service.len)
      continue;
    p.srv_service = service;
    p.flags = HOST_FIND_BY_SRV | base->flags;
    c->error = STR_UNSET;
    *found = host_find_by_dns(c, c->arena, domain, &p, &a->hosts, full);
    if (*found != HOST_FIND_FAILED || str_find(c->error, STR("indicated no SMTP service")) >= 0)
      break;
  }
  return ROUTE_OK;
}

/* All look-ups for one form of the domain. */
static enum route_result find_domain(struct ctx *c, const struct instance *r, struct address *a, struct str domain, unsigned flags,
    bool *removed, enum host_find *found, struct str *full) {
  const struct dnslookup *o = r->options;
  const struct router_options *g = router_options(r);
  struct host_find_params p = {
      .flags = flags,
      .srv_service = STR_UNSET,
      .srv_fail_domains = &o->srv_fail_domains,
      .mx_fail_domains = &o->mx_fail_domains,
      .ignore_target_hosts = &g->ignore_target_hosts,
      .dnssec_request = &g->dnssec_request_domains,
      .dnssec_require = &g->dnssec_require_domains,
      .ret_local_removed = removed,
  };
  enum route_result rc = find_srv(c, o, a, domain, &p, found, full);
  if (rc != ROUTE_OK || *found != HOST_FIND_FAILED || str_find(c->error, STR("indicated no SMTP service")) >= 0)
    return rc;
  p.flags |= HOST_FIND_BY_MX;
  int must_have_mx = str_is_set(o->mx_domains.text) ? match_domain(c, &o->mx_domains, domain, NULL) : OUTCOME_FAIL;
  bool undecided = must_have_mx == OUTCOME_DEFER || must_have_mx == OUTCOME_ERROR;
  if (must_have_mx != OUTCOME_OK && !undecided)
    p.flags |= HOST_FIND_BY_A | HOST_FIND_BY_AAAA;
  c->error = STR_UNSET;
  *found = host_find_by_dns(c, c->arena, domain, &p, &a->hosts, full);
  /* It does not matter for a domain that has MX records. */
  if (undecided && *found == HOST_FIND_FAILED)
    return router_defer(c, a, ERROR_UNKNOWN, "lookup defer for mx_domains");
  if (str_is_set(*full) && str_ieq(*full, domain))
    *full = str_untainted(*full); /* what we asked for is no stranger's text */
  return ROUTE_OK;
}

/* The domain as it is, then with each string of widen_domains behind it. */
static enum route_result find(struct ctx *c, const struct instance *r, struct address *a, bool *removed, enum host_find *found,
    struct str *full) {
  const struct dnslookup *o = r->options;
  struct list_iter it;
  struct str suffix;
  unsigned flags;
  enum route_result rc = set_flags(c, o, a, &flags);
  if (rc)
    return rc;
  *full = a->domain;
  if ((rc = find_domain(c, r, a, a->domain, flags, removed, found, full)))
    return rc;
  bool widen = str_is_set(o->widen_domains) && !(a->verify_sender && o->rewrite_headers);
  if (!widen || *found != HOST_FIND_FAILED)
    return ROUTE_OK;
  struct str reason = c->error;
  list_iter_init(&it, c->arena, o->widen_domains);
  while (*found == HOST_FIND_FAILED && list_next(&it, &suffix)) {
    struct str wide = str_cat(c->arena, a->domain, str_cat(c->arena, STR("."), suffix));
    *full = wide;
    if ((rc = find_domain(c, r, a, wide, flags, removed, found, full)))
      return rc;
  }
  if (*found == HOST_FIND_FAILED)
    c->error = reason;
  return ROUTE_OK;
}

static enum route_result not_found(struct ctx *c, const struct dnslookup *o, struct address *a) {
  struct str reason = c->error;
  int defer = str_is_set(o->fail_defer_domains.text) ? match_domain(c, &o->fail_defer_domains, a->domain, NULL) : OUTCOME_FAIL;
  if (defer == OUTCOME_OK)
    return router_defer(c, a, ERROR_UNKNOWN, "missing MX, or all MXs point to missing A records, and defer requested");
  if (defer == OUTCOME_DEFER || defer == OUTCOME_ERROR)
    return router_defer(c, a, ERROR_UNKNOWN, "lookup defer for fail_defer_domains");
  if (str_is_set(reason) && reason.len)
    a->message = reason;
  return ROUTE_DECLINE;
}

static enum route_result dnslookup_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct dnslookup *o = r->options;
  enum host_find found = HOST_FIND_FAILED;
  bool removed = false;
  struct str full = STR_UNSET;
  struct ip_addr ip;
  a->hosts = NULL;
  c->error = STR_UNSET;
  if (a->domain.len && a->domain.p[0] == '[') { /* for ipliteral */
    a->message = str_printf(c->arena, "mail domain \"%.*s\" is syntactically invalid", STRF(a->domain));
    return ROUTE_DECLINE;
  }
  if (ip_parse(a->domain, &ip)) /* an address is not a domain's name */
    return ROUTE_DECLINE;
  enum route_result rc = find(c, r, a, &removed, &found, &full);
  if (rc)
    return rc;
  switch (found) {
  case HOST_FIND_AGAIN:
    if (router_options(r)->pass_on_timeout)
      return ROUTE_PASS;
    return router_defer(c, a, ERROR_UNKNOWN, "host lookup did not complete");
  case HOST_FIND_SECURITY:
    return router_defer(c, a, ERROR_UNKNOWN, "host lookup done insecurely");
  case HOST_FIND_FAILED:
    return not_found(c, o, a);
  case HOST_IGNORED:
    if (str_is_set(c->error) && c->error.len)
      a->message = c->error;
    return ROUTE_DECLINE;
  default:
    break;
  }
  if (o->check_secondary_mx && !removed)
    return ROUTE_DECLINE;
  /* The name server, or widening, knows the domain by another name: the address goes on under that. */
  if (str_is_set(full) && full.len && full.p[0] != '*' && !str_ieq(full, a->domain))
    return router_change_domain(c, r, a, full, o->rewrite_headers, lists);
  if (str_is_set(full) && str_ieq(full, a->domain) && !str_eq(full, a->domain)) /* its case is the name server's affair */
    a->address = str_cat(c->arena, str_slice(a->address, 0, (size_t)str_rfind_byte(a->address, '@') + 1), full);
  if (found == HOST_FOUND_LOCAL && (rc = router_self(c, r, a, a->hosts, lists)))
    return rc;
  if ((rc = router_translate_hosts(c, r, a)) || (rc = router_accept(c, r, a, NULL, lists)))
    return rc;
  if (o->same_domain_copy_routing)
    router_copy_routing(c, r, a, lists);
  return ROUTE_OK;
}

const struct router_def router_dnslookup_def = {
    .driver = {.name = "dnslookup", .class = DRIVER_ROUTER, .options = options, .options_size = sizeof(struct dnslookup),
        .summary = "routes by MX, SRV and address records"},
    .flags = ROUTER_NEEDS_TRANSPORT,
    .route = dnslookup_route,
};
