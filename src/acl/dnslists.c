/* `dnslists =` (Exim manual, sections "Using DNS lists" and following). An item
is DOMAIN[,DOMAIN2][=|&|==|=&|!…ADDRESSES][/KEYS]. */
#include "acl/internal.h"
#include "base/buf.h"
#include "base/ip.h"
#include "dns/dns.h"
#include "log/log.h"
#include "match/match.h"

#define TEXT_MAX 512 /* of $dnslist_text */

struct item {
  struct str domain;        /* to look up first */
  struct str domain_txt;    /* for the TXT record, and $dnslist_domain */
  struct str addresses;     /* unset: any */
  bool negated, all, bitwise;
  struct str keys;          /* unset: the client's address */
};

enum settings { LOOKUP_EXCLUDE, LOOKUP_INCLUDE, LOOKUP_DEFER };

static bool is_domain_byte(char ch) {
  return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '.' || ch == '_';
}

/* Takes an item apart. false: its syntax is wrong. */
static bool parse_item(struct str text, struct item *i) {
  *i = (struct item){0};
  size_t end = 0;
  while (end < text.len && (is_domain_byte(text.p[end]) || text.p[end] == ','))
    end++;
  struct str domains = str_slice(text, 0, end), rest = str_from(text, end);
  if (rest.len > 0 && rest.p[0] == '!') {
    i->negated = true;
    rest = str_from(rest, 1);
  }
  if (rest.len > 0 && (rest.p[0] == '=' || rest.p[0] == '&')) {
    i->bitwise = rest.p[0] == '&';
    rest = str_from(rest, 1);
    if (!i->bitwise && rest.len > 0 && (rest.p[0] == '=' || rest.p[0] == '&')) {
      i->all = true;
      i->bitwise = rest.p[0] == '&';
      rest = str_from(rest, 1);
    }
    i->addresses = str_cut(&rest, '/');
    i->keys = rest;
  } else if (rest.len > 0 && rest.p[0] == '/') {
    i->keys = str_from(rest, 1);
  } else if (rest.len > 0 || i->negated) {
    return false;
  } else {
    i->keys = STR_UNSET;
  }
  struct str second = domains, first = str_cut(&second, ',');
  i->domain_txt = first;
  i->domain = str_is_set(second) ? second : first;
  return i->domain.len > 0 && first.len > 0;
}

static bool one_matches(const struct ip_addr *found, const struct ip_addr *want, bool bitwise) {
  if (!bitwise)
    return ip_eq(found, want);
  if (found->family != want->family)
    return false;
  size_t n = want->family == AF_INET6 ? 16 : 4;
  for (size_t i = 0; i < n; i++)
    if ((found->bytes[i] & want->bytes[i]) != want->bytes[i])
      return false;
  return true;
}

static bool listed(struct ctx *c, const struct ip_addr *found, const struct item *i) {
  struct str rest = i->addresses;
  while (str_is_set(rest)) {
    struct ip_addr want;
    struct str text = str_trim(str_cut(&rest, ','));
    if (!ip_parse(text, &want)) {
      acl_log(c, LOG_MAIN, "DNS list lookup: malformed address \"%.*s\" in list", STRF(text));
      continue;
    }
    if (one_matches(found, &want, i->bitwise))
      return true;
  }
  return false;
}

/* Do the records satisfy the item's addresses? *ret_value: their text. */
static bool satisfied(struct ctx *c, const struct dns_answer *answer, const struct item *i, struct str *ret_value) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  size_t hits = 0;
  bool any = false;
  for (size_t n = 0; n < answer->n; n++) {
    const struct ip_addr *ip = &answer->v[n].ip;
    bool loopback_net = ip->family == AF_INET && ip->bytes[0] == 127;
    if (!loopback_net && !str_is_set(i->addresses))
      acl_log(c, LOG_MAIN, "DNS list lookup for %.*s: found but value not in 127.0/8", STRF(answer->v[n].name));
    if (buf_str(&b).len > 0)
      buf_add_c(&b, ", ");
    buf_add(&b, ip_text(c->arena, ip));
    any = true;
    if (str_is_set(i->addresses) && listed(c, ip, i))
      hits++;
  }
  *ret_value = buf_str(&b);
  if (!any)
    return false;
  if (!str_is_set(i->addresses))
    return true;
  bool match = i->all ? hits == answer->n : hits > 0;
  return match != i->negated;
}

/* One key in one list. */
static int check_key(struct ctx *c, const struct item *i, struct str prefix, struct str matched, enum settings setting) {
  struct str name = str_printf(c->arena, "%.*s.%.*s", STRF(prefix), STRF(i->domain));
  name.taint = prefix.taint;
  if (name.len > 253) {
    acl_log(c, LOG_MAIN, "dnslist query is too long (ignored): %.*s...", STRF(str_slice(name, 0, 1000)));
    return OUTCOME_FAIL;
  }
  struct dns_answer answer;
  enum dns_result rc = dns_query(c, c->arena, name, DNS_A, &answer);
  DEBUG(dns, "DNS list lookup for %.*s: %d\n", STRF(name), (int)rc);
  if (rc == DNS_AGAIN || rc == DNS_FAIL) {
    acl_log(c, LOG_MAIN, "DNS list lookup defer (probably timeout) for %.*s: %s", STRF(name),
        setting == LOOKUP_INCLUDE ? "assumed in list" : setting == LOOKUP_DEFER ? "returned DEFER" : "assumed not in list");
    return setting == LOOKUP_INCLUDE ? OUTCOME_OK : setting == LOOKUP_DEFER ? OUTCOME_DEFER : OUTCOME_FAIL;
  }
  struct str value;
  if (rc != DNS_OK || !satisfied(c, &answer, i, &value))
    return OUTCOME_FAIL;
  if (!str_eq(i->domain, i->domain_txt)) { /* must be on the first list as well, whatever its value */
    name = str_printf(c->arena, "%.*s.%.*s", STRF(prefix), STRF(i->domain_txt));
    name.taint = prefix.taint;
    if (dns_query(c, c->arena, name, DNS_A, &answer) != DNS_OK)
      return OUTCOME_FAIL;
  }
  c->vars.dnslist_domain = str_dup(c->arena, i->domain_txt);
  c->vars.dnslist_matched = str_dup(c->arena, matched);
  c->vars.dnslist_value = value;
  c->vars.dnslist_text = STR_UNSET;
  if (dns_query(c, c->arena, name, DNS_TXT, &answer) == DNS_OK && answer.n > 0) {
    c->vars.dnslist_text = str_dup(c->arena, str_slice(answer.v[0].text, 0, TEXT_MAX - 1));
    c->vars.dnslist_text.taint |= STR_TAINTED;
  }
  return OUTCOME_OK;
}

static struct str key_prefix(struct ctx *c, struct str key) {
  struct ip_addr ip;
  if (!ip_parse(key, &ip))
    return key;
  struct str reversed = ip_reverse_name(c->arena, &ip, "x");
  return str_slice(reversed, 0, reversed.len - 2); /* without ".x" */
}

static int check_item(struct ctx *c, const struct item *i, enum settings setting) {
  if (!str_is_set(i->keys)) {
    if (!str_is_set(c->client->host_address) || c->client->host_address.len == 0)
      return OUTCOME_FAIL; /* a local caller is on no list */
    return check_key(c, i, key_prefix(c, c->client->host_address), c->client->host_address, setting);
  }
  struct list_iter iter;
  struct str key;
  bool deferred = false;
  list_iter_init(&iter, c->arena, i->keys);
  while (list_next(&iter, &key)) {
    if (key.len == 0)
      continue;
    int rc = check_key(c, i, key_prefix(c, key), key, setting);
    if (rc == OUTCOME_OK)
      return rc;
    deferred |= rc == OUTCOME_DEFER;
  }
  return deferred ? OUTCOME_DEFER : OUTCOME_FAIL;
}

int acl_eval_dnslists(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct list_iter iter;
  struct str text;
  enum settings setting = LOOKUP_EXCLUDE;
  bool deferred = false;
  list_iter_init(&iter, c->arena, arg);
  while (list_next(&iter, &text)) {
    struct item i;
    if (str_eq_c(text, "+include_unknown"))
      setting = LOOKUP_INCLUDE;
    else if (str_eq_c(text, "+exclude_unknown"))
      setting = LOOKUP_EXCLUDE;
    else if (str_eq_c(text, "+defer_unknown"))
      setting = LOOKUP_DEFER;
    else if (text.len > 0 && text.p[0] == '+')
      acl_log(c, LOG_MAIN | LOG_PANIC, "unknown item in dnslist (ignored): %.*s", STRF(text));
    else if (text.len > 0 && !parse_item(text, &i))
      acl_log(c, LOG_MAIN | LOG_PANIC, "dnslists domain \"%.*s\" contains strange characters - is this right?", STRF(text));
    else if (text.len > 0) {
      int rc = check_item(c, &i, setting);
      if (rc == OUTCOME_OK)
        return rc;
      deferred |= rc == OUTCOME_DEFER;
    }
  }
  return deferred ? OUTCOME_DEFER : OUTCOME_FAIL;
}
