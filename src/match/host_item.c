/* Items of host lists (manual, "Host lists"). */
#include "core/main_options.h"
#include "dns/dns.h"
#include "log/log.h"
#include "match/list.h"

#define MASKED_TEXT_MAX 80

/* The name of the host, looked up on need. */
static int need_name(struct match *m) {
  if (m->host_name.len > 0)
    return OUTCOME_OK;
  if (m->name_failed || !m->is_client)
    return MATCH_UNKNOWN;
  int r = host_name_lookup(m->c);
  m->host_name = m->c->client->host_name;
  if (r == OUTCOME_OK && m->host_name.len > 0)
    return OUTCOME_OK;
  m->name_failed = r != OUTCOME_DEFER;
  if (r == OUTCOME_DEFER)
    return OUTCOME_DEFER;
  ctx_fail(m->c, OUTCOME_FAIL, "failed to find host name for %.*s", STRF(m->host_address));
  return MATCH_UNKNOWN;
}

/* The item against the name and all aliases. */
static int match_names(struct match *m, const struct item *i) {
  int r = need_name(m);
  if (r != OUTCOME_OK)
    return r;
  r = match_item_string(m, i, m->host_name, false);
  struct list_iter iter;
  struct str alias;
  list_iter_init_literal(&iter, m->c->arena, m->is_client ? m->c->client->host_aliases : STR_EMPTY);
  while (r == OUTCOME_FAIL && list_next(&iter, &alias))
    r = match_item_string(m, i, alias, false);
  return r;
}

/* A host name in the list: do its addresses include the host's? */
static int match_addresses_of(struct match *m, struct str name) {
  struct ctx *c = m->c;
  struct host h = {.name = name, .address = STR_UNSET, .mx = -1};
  enum host_find r = host_find_addresses(c, c->arena, &h, 0, NULL, NULL);
  if (r == HOST_FIND_AGAIN)
    return ctx_fail(c, OUTCOME_DEFER, "DNS lookup of \"%.*s\" deferred", STRF(name));
  if (r == HOST_FIND_FAILED || r == HOST_IGNORED) {
    ctx_fail(c, OUTCOME_FAIL, "failed to find IP address for %.*s", STRF(name));
    return MATCH_UNKNOWN;
  }
  for (struct host *p = &h; p; p = p->next)
    if (ip_eq(&p->ip, &m->ip)) {
      m->value = name;
      return OUTCOME_OK;
    }
  return OUTCOME_FAIL;
}

/* The key of a lookup by address: IPv6 in full, with dots but for iplsearch; with the mask, if there is one. */
static struct str address_key(struct match *m, const struct item *i) {
  struct ip_addr ip = m->ip;
  struct arena *a = m->c->arena;
  if (i->bits >= 0)
    ip_mask(&ip, i->bits > ip_bits(&ip) ? ip_bits(&ip) : i->bits);
  struct str text = ip_text_full(a, &ip);
  if (ip.family == AF_INET6 && !str_eq_c(STR("iplsearch"), i->lookup.def->name)) {
    char *p = str_dup_c(a, text);
    for (size_t k = 0; k < text.len; k++)
      if (p[k] == ':')
        p[k] = '.';
    text = str_n(p, text.len);
  }
  return i->bits >= 0 ? str_printf(a, "%.*s/%d", STRF(text), i->bits) : text;
}

static int match_net_lookup(struct match *m, const struct item *i) {
  struct str value;
  int r = match_lookup(m, i, address_key(m, i), false, &value);
  if (r == OUTCOME_OK)
    m->value = value;
  return r;
}

static int match_lookup_item(struct match *m, const struct item *i) {
  if (!(i->lookup.def->flags & LOOKUP_QUERY) && !m->ip_only)
    return match_names(m, i);
  struct item unmasked = *i;
  unmasked.bits = -1;
  return match_net_lookup(m, &unmasked);
}

/* An item that needs a name, where there are only addresses. */
static int no_names(struct match *m) {
  ctx_fail(m->c, OUTCOME_FAIL, "cannot match host name in match_ip list");
  return MATCH_UNKNOWN;
}

int match_item_host(struct match *m, const struct item *i) {
  struct ctx *c = m->c;
  bool no_host = m->host_address.len == 0;
  m->value = i->text;
  if (i->type == ITEM_ANY)
    return OUTCOME_OK;
  if (i->type == ITEM_EMPTY)
    return no_host ? OUTCOME_OK : OUTCOME_FAIL;
  if (i->type == ITEM_ERROR)
    return match_item_string(m, i, STR_EMPTY, false);
  if (no_host && m->host_name.len == 0)
    return OUTCOME_FAIL;
  switch (i->type) {
  case ITEM_PRIMARY:
    if (m->ip_only)
      return no_names(m);
    return c->config ? match_addresses_of(m, main_options(c->config)->primary_hostname) : OUTCOME_FAIL;
  case ITEM_LOCAL_IP:
    return host_is_local(c, &m->ip) ? OUTCOME_OK : OUTCOME_FAIL;
  case ITEM_IP:
    return ip_match(&m->ip, &i->ip, i->bits) ? OUTCOME_OK : OUTCOME_FAIL;
  case ITEM_BAD_IP:
    ctx_fail(c, OUTCOME_FAIL, "malformed IPv%d address or address mask", str_find_byte(i->text, ':') >= 0 ? 6 : 4);
    return MATCH_UNKNOWN;
  case ITEM_NET_LOOKUP:
    return match_net_lookup(m, i);
  case ITEM_LOOKUP:
    return match_lookup_item(m, i);
  case ITEM_HOSTNAME:
    /* A name that is already known to be the host's own needs no DNS. */
    return m->ip_only ? no_names(m) : match_addresses_of(m, i->text);
  case ITEM_SUFFIX: case ITEM_REGEX: case ITEM_LITERAL:
    return m->ip_only ? no_names(m) : match_names(m, i);
  default:
    return OUTCOME_FAIL;
  }
}
