/* The manualroute router (Exim manual, chapter "The manualroute router"). */

#include <ctype.h>

#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "route/manualroute.h"
#include "route/router.h"
#include "transport/transport.h"

struct manualroute {
  bool same_domain_copy_routing;
  struct option_expr hosts_randomize, route_data;
  struct str host_all_ignored_text, host_find_failed_text, route_list;
  enum host_failed host_find_failed, host_all_ignored;
};

#define AT(field) offsetof(struct manualroute, field)
static const struct option_def options[] = {
    {"host_all_ignored", OPTION_STRING, AT(host_all_ignored_text), "defer"},
    {"host_find_failed", OPTION_STRING, AT(host_find_failed_text), "freeze"},
    {"hosts_randomize", OPTION_EXPR_BOOL, AT(hosts_randomize)},
    {"route_data", OPTION_EXPR, AT(route_data)},
    {"route_list", OPTION_STRING, AT(route_list)},
    {"same_domain_copy_routing", OPTION_BOOL, AT(same_domain_copy_routing)},
    OPTIONS_END};

static const char *const failed_words[] = {"freeze", "defer", "fail", "decline", "pass", "ignore"}; /* enum host_failed */

static int set_failed(struct config_reader *cr, struct instance *i, struct str text, const char *name, enum host_failed last,
    enum host_failed *ret) {
  for (int n = 0; n <= (int)last; n++)
    if (str_eq_c(text, failed_words[n])) {
      *ret = (enum host_failed)n;
      return 0;
    }
  return config_error(cr, "unrecognized setting for %s option", name);
}

static int manualroute_init(struct config_reader *cr, struct instance *i) {
  struct manualroute *o = i->options;
  if (str_is_set(o->route_list) == str_is_set(o->route_data.text))
    return config_error(cr, "route_list or route_data (but not both) must be specified");
  if (set_failed(cr, i, o->host_find_failed_text, "host_find_failed", HFF_IGNORE, &o->host_find_failed))
    return OUTCOME_ERROR;
  return set_failed(cr, i, o->host_all_ignored_text, "host_all_ignored", HFF_PASS, &o->host_all_ignored);
}

/* --- rules --- */

/* The rule for the domain. ROUTE_OK, DECLINE or DEFER. Sets $0… and $value for the expansion of the hosts. */
static enum route_result find_rule(struct ctx *c, const struct instance *r, struct address *a, struct manualroute_rule *rule) {
  const struct manualroute *o = r->options;
  struct list_iter it;
  struct str list = str_ltrim(o->route_list), item, data;
  if (!(list.len && list.p[0] == '<'))
    list = str_cat(c->arena, STR("<; "), list);
  list_iter_init(&it, c->arena, list);
  while (list_next(&it, &item)) {
    if (!manualroute_parse_rule(c->arena, item, rule))
      continue;
    /* One pattern, not a list: no character of it separates. */
    struct str pattern = str_cat(c->arena, STR("<\x01 "), rule->pattern);
    data = STR_UNSET;
    c->expand.captures = 0;
    int rc = match_text(c, LIST_DOMAIN, pattern, a->domain, false, &data);
    if (rc == OUTCOME_OK) {
      capture_set(&c->expand, 0, a->domain);
      c->expand.value = data;
      return ROUTE_OK;
    }
    if (rc != OUTCOME_FAIL)
      return router_defer(c, a, ERROR_UNKNOWN, "lookup defer in route_list");
  }
  return ROUTE_DECLINE;
}

/* The list of hosts is expanded by itself, also when it came from a lookup; not when a stranger wrote it. */
static enum route_result expand_hosts(struct ctx *c, const struct instance *r, struct address *a, struct manualroute_rule *rule) {
  struct str hosts;
  if (str_is_tainted(rule->hosts) || (str_find_byte(rule->hosts, '$') < 0 && str_find_byte(rule->hosts, '\\') < 0))
    return ROUTE_OK;
  int rc = expand_text(c, rule->hosts, &hosts);
  if (rc == OUTCOME_FORCED)
    return ROUTE_DECLINE;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: failed to expand \"%.*s\": %.*s", STRF(r->name),
        STRF(rule->hosts), STRF(c->error));
  rule->hosts = hosts;
  return ROUTE_OK;
}

/* "<;$atrn_host" is as empty as the variable (Exim 4.99, chapter "On-Demand Mail Relay"). */
static bool is_empty_list(struct str s) { return s.len == 0 || (s.len == 2 && s.p[0] == '<' && ispunct((unsigned char)s.p[1])); }

static enum route_result get_rule(struct ctx *c, const struct instance *r, struct address *a, struct manualroute_rule *rule) {
  const struct manualroute *o = r->options;
  struct str data;
  enum route_result found;
  int rc;
  if (str_is_set(o->route_data.text)) {
    rc = expand_option(c, &o->route_data, &data);
    if (rc == OUTCOME_FORCED || (!rc && is_empty_list(str_trim(data))))
      return ROUTE_DECLINE;
    if (rc)
      return router_defer(c, a, ERROR_UNKNOWN, "failed to expand \"%.*s\": %.*s", STRF(o->route_data.text), STRF(c->error));
    manualroute_parse_data(c->arena, data, rule);
    return expand_hosts(c, r, a, rule);
  }
  struct expand_vars saved = ctx_save(c);
  found = find_rule(c, r, a, rule);
  if (found == ROUTE_OK)
    found = expand_hosts(c, r, a, rule);
  ctx_restore(c, &saved);
  return found;
}

struct rule_options {
  bool randomize;
  enum host_lookup lookup;
  unsigned flags;
  struct instance *transport;
};

static enum route_result read_options(struct ctx *c, const struct instance *r, struct address *a, struct str text,
    struct rule_options *ret) {
  const struct manualroute *o = r->options;
  *ret = (struct rule_options){0};
  if (str_is_set(o->hosts_randomize.text)) {
    int rc = expand_option_bool(c, &o->hosts_randomize, "hosts_randomize", &ret->randomize);
    if (rc && rc != OUTCOME_FORCED)
      return router_defer(c, a, ERROR_UNKNOWN, "%.*s", STRF(c->error));
  }
  for (struct str rest = str_trim(text); rest.len; rest = str_trim(rest)) {
    struct str word = manualroute_word(c->arena, &rest);
    if (str_eq_c(word, "randomize"))
      ret->randomize = true;
    else if (str_eq_c(word, "no_randomize"))
      ret->randomize = false;
    else if (str_eq_c(word, "byname"))
      ret->lookup = HOST_LOOKUP_BYNAME;
    else if (str_eq_c(word, "bydns"))
      ret->lookup = HOST_LOOKUP_BYDNS;
    else if (str_eq_c(word, "ipv4_only"))
      ret->flags |= HOST_FIND_IPV4_ONLY;
    else if (str_eq_c(word, "ipv4_prefer"))
      ret->flags |= HOST_FIND_IPV4_FIRST;
    else if (!(ret->transport = config_driver(c->config, DRIVER_TRANSPORT, word))) {
      log_write(LOG_MAIN, c->message, "Error in %.*s router: unknown routing option or transport name \"%.*s\"", STRF(r->name),
          STRF(word));
      return router_defer(c, a, ERROR_UNKNOWN, "error in router: unknown routing option or transport name \"%.*s\"", STRF(word));
    }
  }
  return ROUTE_OK;
}

/* --- hosts --- */

static enum route_result no_hosts(struct ctx *c, const struct instance *r, struct address *a) {
  router_defer(c, a, ERROR_UNKNOWN, "error in %.*s router: no host(s) specified for domain %.*s", STRF(r->name), STRF(a->domain));
  log_write(LOG_MAIN, c->message, "%.*s", STRF(a->message));
  return ROUTE_DEFER;
}

static enum route_result all_ignored(struct ctx *c, const struct instance *r, struct address *a) {
  const struct manualroute *o = r->options;
  if (o->host_all_ignored == HFF_DECLINE)
    return ROUTE_DECLINE;
  if (o->host_all_ignored == HFF_PASS)
    return ROUTE_PASS;
  router_defer(c, a, ERROR_UNKNOWN, "lookup failed for all hosts in %.*s router: host_find_failed=ignore host_all_ignored=%s",
      STRF(r->name), failed_words[o->host_all_ignored]);
  if (o->host_all_ignored == HFF_FREEZE)
    a->special_action_freeze = true;
  if (o->host_all_ignored != HFF_FAIL)
    return ROUTE_DEFER;
  a->result = OUTCOME_FAIL;
  return ROUTE_FAIL;
}

static enum route_result set_hosts(struct ctx *c, const struct instance *r, struct address *a, const struct manualroute_rule *rule,
    const struct rule_options *ro, struct instance *transport, struct route_lists *lists) {
  const struct manualroute *o = r->options;
  const struct transport_def *t = transport ? (const struct transport_def *)transport->driver : NULL;
  if (t && t->local) {
    /* A local transport gets the list as it is, in $host. */
    a->hosts = NULL;
    if (rule->hosts.len) {
      a->hosts = arena_new_of(c->arena, struct host);
      a->hosts->name = rule->hosts;
      a->hosts->mx = -1;
    }
    return ROUTE_OK;
  }
  a->hosts = router_host_list(c, rule->hosts, ro->randomize);
  if (!a->hosts)
    return t && t->overrides_hosts && t->overrides_hosts(transport) ? ROUTE_OK : no_hosts(c, r, a);
  enum route_result rc = router_find_hosts(c, r, a, ro->lookup, ro->flags, o->host_find_failed, lists);
  if (rc)
    return rc;
  return a->hosts ? router_translate_hosts(c, r, a) : all_ignored(c, r, a);
}

static enum route_result manualroute_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct manualroute *o = r->options;
  struct manualroute_rule rule = {.hosts = STR_EMPTY, .options = STR_EMPTY};
  struct rule_options ro;
  enum route_result rc;
  if ((rc = get_rule(c, r, a, &rule)) || (rc = read_options(c, r, a, rule.options, &ro)))
    return rc;
  struct instance *transport = ro.transport;
  if (!transport && (rc = router_transport(c, r, a, &router_options(r)->transport, NULL, &transport)))
    return rc;
  if ((rc = set_hosts(c, r, a, &rule, &ro, transport, lists)) || (rc = router_accept(c, r, a, transport, lists)))
    return rc;
  if (o->same_domain_copy_routing)
    router_copy_routing(c, r, a, lists);
  return ROUTE_OK;
}

const struct router_def router_manualroute_def = {
    .driver = {.name = "manualroute", .class = DRIVER_ROUTER, .options = options, .options_size = sizeof(struct manualroute),
        .summary = "routes by the administrator's own table", .init = manualroute_init},
    .route = manualroute_route,
};
