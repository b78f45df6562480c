/* One query: checks of the name, the cache, the name servers, and what the
configuration says about answers. */
#include "dns/dns.h"

#include <stdlib.h>
#include <sys/random.h>
#include "base/ascii.h"
#include "base/idn.h"
#include "base/pcre.h"
#include "core/main_options.h"
#include "dns/cache.h"
#include "dns/options.h"
#include "dns/resolver.h"
#include "dns/validator.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "transport/event.h"

#define CNAME_LOOPS_MAX 20

const char *dns_result_text(enum dns_result r) {
  static const char *const texts[] = {"succeeded", "no match", "no data", "try again", "failed"};
  return texts[r];
}

static const char *type_name(enum dns_type t) {
  switch (t) {
  case DNS_A: return "A";
  case DNS_NS: return "NS";
  case DNS_CNAME: return "CNAME";
  case DNS_SOA: return "SOA";
  case DNS_PTR: return "PTR";
  case DNS_MX: return "MX";
  case DNS_TXT: return "TXT";
  case DNS_AAAA: return "AAAA";
  case DNS_SRV: return "SRV";
  case DNS_TLSA: return "TLSA";
  case DNS_SPF: return "SPF";
  case DNS_CAA: return "CAA";
  default: return "?";
  }
}

/* dns_check_names_pattern; the labels that begin with _ of service names are not looked at. */
static bool name_allowed(struct ctx *c, struct arena *a, struct str name, enum dns_type type) {
  if (c == NULL || c->config == NULL || type == DNS_PTR || type == DNS_TXT)
    return true;
  struct str pattern = main_options(c->config)->dns_check_names_pattern, error, whole;
  if (!str_is_set(pattern) || pattern.len == 0)
    return true;
  if (type == DNS_SRV || type == DNS_TLSA)
    while (name.len > 0 && name.p[0] == '_') {
      ptrdiff_t dot = str_find_byte(name, '.');
      name = dot < 0 ? STR_EMPTY : str_from(name, (size_t)dot + 1);
    }
  const struct pcre *re = pcre_get(a, pattern, 0, &error);
  return re == NULL || pcre_match(re, name, &whole, 1) > 0;
}

static struct resolver_options timeouts(struct ctx *c, const struct dns_query_options *o) {
  struct resolver_options r = {o->retrans, o->retry};
  if (c && c->config) {
    if (r.retrans <= 0)
      r.retrans = main_options(c->config)->dns_retrans;
    if (r.retry <= 0)
      r.retry = main_options(c->config)->dns_retry;
  }
  return r;
}

static enum dns_result result_of(const struct dns_reply *r) {
  switch (r->rcode) {
  case DNS_RCODE_OK:
    if (r->truncated || r->stray) /* says nothing about what was asked */
      return DNS_AGAIN;
    return r->n ? DNS_OK : DNS_NODATA;
  case DNS_RCODE_NXDOMAIN:
    return DNS_NOMATCH;
  case DNS_RCODE_SERVFAIL:
    return DNS_AGAIN;
  default:
    return DNS_FAIL;
  }
}

/* A server that is given for all (the harness, tools) is asked itself. */
static bool uses_validator(struct ctx *c) { return c && c->config && dns_is_validating(c->config) && !resolver_dns_only(); }

/* The bytes of a reply, from a server; with EDNS unless that is switched off or not understood. */
static bool exchange(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, const unsigned char **ret, size_t *ret_n) {
  bool edns = true, dnssec = true;
  if (c && c->config) {
    edns = main_options(c->config)->dns_use_edns0 != 0;
    dnssec = main_options(c->config)->dns_dnssec_ok != 0;
  }
  struct resolver_options ro = timeouts(c, o);
  if (uses_validator(c))
    return validator_ask(c->config, a, name, type, ro.retrans * (ro.retry > 0 ? ro.retry : 2), ret, ret_n) == 0;
  for (;;) {
    unsigned char query[DNS_QUERY_MAX];
    uint16_t id;
    if (getrandom(&id, sizeof id, 0) != sizeof id)
      return false;
    int n = dns_packet_query(query, id, name, type, edns, dnssec);
    if (n < 0 || resolver_exchange(a, query, n, &ro, ret, ret_n) < 0)
      return false;
    unsigned rcode = *ret_n >= 12 ? (*ret)[3] & 15u : DNS_RCODE_FORMERR;
    if (!edns || (rcode != DNS_RCODE_FORMERR && rcode != DNS_RCODE_NOTIMP))
      return true;
    edns = false;
  }
}

static void log_slow(struct ctx *c, struct str name, enum dns_type type, usec_t started) {
  int64_t limit = c && c->config ? main_options(c->config)->slow_lookup_log : 0;
  int64_t ms = (loop_now_fresh() - started) / 1000;
  if (limit > 0 && ms > limit)
    log_write(LOG_MAIN, c->message, "Long %s lookup for '%.*s': %lld msec", type_name(type), STRF(name), (long long)ms);
}

/* A reply from the cache or the servers, understood. */
static enum dns_result ask(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, struct dns_reply *reply) {
  unsigned char test[DNS_QUERY_MAX];
  *reply = (struct dns_reply){.qualified = name, .canonical = name};
  if (name.len > DNS_NAME_MAX * 4 || dns_packet_query(test, 0, name, type, true, true) < 0)
    return DNS_NOMATCH;
  struct dns_cached known;
  bool cached = dns_cache_get(a, name, type, &known);
  usec_t started = loop_now_fresh();
  bool replied = cached || exchange(c, a, name, type, o, &known.reply, &known.reply_n);
  log_slow(c, name, type, started);
  if (!replied)
    return DNS_AGAIN;
  if (dns_packet_read(a, known.reply, known.reply_n, name, type, reply) < 0)
    return DNS_AGAIN;
  known.result = result_of(reply);
  bool lasting = known.result == DNS_OK || known.result == DNS_NODATA || known.result == DNS_NOMATCH;
  if (!cached && lasting && reply->has_ttl)
    dns_cache_put(name, type, &known, reply->min_ttl);
  return known.result;
}

/* Lists that decide about an answer are not applied to the queries they cause themselves (*ret_inside). */
static bool in_list(struct ctx *c, const struct option_expr *list, struct str name, bool *ret_inside) {
  if (c == NULL || c->config == NULL || !str_is_set(list->text))
    return false;
  if (c->dns_checking) {
    *ret_inside = true;
    return false;
  }
  *ret_inside = false;
  struct str error = c->error;
  struct expand_vars saved = ctx_save(c);
  c->dns_checking = true;
  int r = match_domain(c, list, name, NULL);
  c->dns_checking = false;
  ctx_restore(c, &saved);
  c->error = error;
  return r == OUTCOME_OK;
}

static void fill(struct ctx *c, struct dns_reply *r, bool secure, struct dns_answer *ret) {
  *ret = (struct dns_answer){.v = r->v, .n = r->n, .canonical = r->canonical, .qualified = r->qualified};
  ret->authoritative = r->aa;
  ret->min_ttl = r->has_ttl ? r->min_ttl : 0;
  ret->secure = secure;
}

/* Trusted as if validated: AD, or AA from a zone in dns_trust_aa. */
static bool is_secure(struct ctx *c, const struct dns_reply *r) {
  if (r->ad && (uses_validator(c) || resolver_trusted(dns_options(c ? c->config : NULL)->trusted_servers)))
    return true;
  bool inside;
  return r->aa && str_is_set(r->authority) && c && c->config &&
    in_list(c, &main_options(c->config)->dns_trust_aa, r->authority, &inside);
}

/* dns_again_means_nonexist; a query that the list itself causes is taken for one, as nothing could end it otherwise. */
static bool means_nonexist(struct ctx *c, struct str name) {
  bool inside = false;
  if (in_list(c, &main_options(c->config)->dns_again_means_nonexist, name, &inside))
    return true;
  if (inside)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "dns_again_means_nonexist recursion seen for %.*s (assuming nonexist)", STRF(name));
  return inside;
}

/* The event dns:fail. */
static void tell_failure(struct ctx *c, struct str name, enum dns_type type, enum dns_result r) {
  static const char *const words[] = {"DNS_SUCCEED", "DNS_NOMATCH", "DNS_NODATA", "DNS_AGAIN", "DNS_FAIL"};
  struct str unused;
  if (r == DNS_OK || !c || !c->config || !event_wanted(c, c->transport) || event_is_raised(c))
    return;
  /* A name of letters, digits and hyphens can do no harm anywhere. */
  bool plain = true;
  for (uint32_t i = 0; i < name.len; i++)
    plain = plain && (ascii_is_alnum(name.p[i]) || name.p[i] == '-' || name.p[i] == '.' || name.p[i] == '_');
  struct str data = str_printf(c->arena, "%s:%.*s:%s", words[r], STRF(name), type_name(type));
  data = plain ? str_untainted(data) : str_tainted(data);
  (void)event_raise_known(c, c->transport, "dns:fail", data, &unused);
}

static enum dns_result query_one(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, struct dns_answer *ret) {
  struct dns_reply reply;
  enum dns_result r = ask(c, a, name, type, o, &reply);
  bool secure = is_secure(c, &reply);
  struct str qualified = reply.qualified, last = name;
  int64_t loops = c && c->config ? main_options(c->config)->dns_cname_loops : 1;
  if (loops > CNAME_LOOPS_MAX)
    loops = CNAME_LOOPS_MAX;
  /* A chain that the server has not followed to its end. */
  while (r == DNS_NODATA && str_is_set(reply.cname) && loops-- > 0) {
    struct str next = reply.cname;
    DEBUG(dns, "CNAME found: change to %.*s\n", STRF(next));
    r = ask(c, a, next, type, o, &reply);
    last = next;
    secure = secure && is_secure(c, &reply);
  }
  if (r == DNS_NODATA && str_is_set(reply.cname)) {
    log_write(LOG_MAIN, c ? c->message : NULL, "CNAME loop for %.*s encountered", STRF(name));
    r = DNS_FAIL;
  }
  tell_failure(c, last, type, r);
  fill(c, &reply, secure, ret);
  ret->qualified = qualified;
  DEBUG(dns, "DNS lookup of %.*s (%s) %s%s\n", STRF(name), type_name(type), dns_result_text(r), secure ? " (secure)" : "");
  if (r == DNS_AGAIN && !o->keep_again && type != DNS_TLSA && c && c->config &&
      means_nonexist(c, name)) {
    DEBUG(dns, "%.*s is in dns_again_means_nonexist: returning DNS_NOMATCH\n", STRF(name));
    return DNS_NOMATCH;
  }
  return r;
}

enum dns_result dns_query_with(struct ctx *c, struct arena *a, struct str name, enum dns_type type,
    const struct dns_query_options *o, struct dns_answer *ret) {
  const char *why;
  /* In UTF-8 it may come from mail or the configuration; the DNS has the other form. */
  if (!idn_domain_to_ascii(a, name, &name, &why)) {
    *ret = (struct dns_answer){.canonical = name, .qualified = name};
    DEBUG(dns, "DNS name syntax check failed: %.*s (%s): %s\n", STRF(name), type_name(type), why);
    return DNS_NOMATCH;
  }
  *ret = (struct dns_answer){.canonical = name, .qualified = name};
  if (name.len == 0 || (!o->any_name && !name_allowed(c, a, name, type))) {
    DEBUG(dns, "DNS name syntax check failed: %.*s (%s)\n", STRF(name), type_name(type));
    return DNS_NOMATCH;
  }
  size_t n = 0;
  bool dots = str_find_byte(name, '.') >= 0;
  const struct str *domains = (dots ? o->search_parents : o->qualify_single) ? resolver_search(&n) : NULL;
  if (!dots && !o->search_parents && n > 1)
    n = 1; /* only the default domain */
  enum dns_result r = DNS_NOMATCH;
  bool again = false;
  if (dots || n == 0)
    r = query_one(c, a, name, type, o, ret);
  for (size_t i = 0; i < n && (r == DNS_NOMATCH || (r == DNS_NODATA && !dots)); i++) {
    struct str full = str_cat(a, str_cat(a, name, STR(".")), domains[i]);
    struct dns_answer answer;
    enum dns_result x = query_one(c, a, full, type, o, &answer);
    again |= x == DNS_AGAIN;
    if (x == DNS_OK) {
      *ret = answer;
      return x;
    }
    if (x == DNS_NODATA)
      r = x;
  }
  if (!dots && n > 0 && r != DNS_OK) {
    enum dns_result x = query_one(c, a, name, type, o, ret);
    if (x != DNS_NOMATCH)
      r = x;
  }
  return again && r != DNS_OK ? DNS_AGAIN : r;
}

enum dns_result dns_query(struct ctx *c, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  struct dns_query_options o = {0};
  return dns_query_with(c, a, name, type, &o, ret);
}

void dns_done(void) {
  dns_cache_clear();
  resolver_done();
  validator_done();
}
