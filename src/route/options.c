#include "route/options.h"

#include <stddef.h>
#include "base/buf.h"
#include "core/module.h"
#include "expand/expand.h"
#include "match/match.h"
#include "route/route.h"
#include "transport/transport.h"

static struct str print_text(struct arena *a, const struct option_def *def, const void *block) {
  return *(const struct str *)((const char *)block + def->offset);
}

/* `condition` may be given several times: all must hold. */
static int parse_condition(struct config_reader *r, const struct option_def *def, void *block, struct str value) {
  struct router_options *o = block;
  struct arena *a = config_reader_arena(r);
  struct option_expr e = {.where = config_reader_where(r)};
  struct str error = STR_UNSET;
  if (config_value(r, value, &e.text))
    return OUTCOME_ERROR;
  e.text = str_dup(a, e.text);
  e.tree = expr_compile(a, e.text, &error);
  if (str_is_set(error))
    config_warning(r, "condition: %.*s", STRF(error));
  vec_push(a, &o->conditions, e);
  return 0;
}

static struct str print_condition(struct arena *a, const struct option_def *def, const void *block) {
  const struct router_options *o = block;
  if (!o->conditions.n)
    return STR_UNSET;
  if (o->conditions.n == 1)
    return o->conditions.v[0].text;
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  buf_add_c(&b, "${if and{");
  for (size_t i = 0; i < o->conditions.n; i++) {
    buf_add_c(&b, "{bool_lax{");
    buf_add(&b, o->conditions.v[i].text);
    buf_add_c(&b, "}}");
  }
  buf_add_c(&b, "}}");
  return buf_str(&b);
}

/* Chapter "Generic options for routers", `set`: a list of "r_name = value", separated by semicolons. */
static int parse_set(struct config_reader *r, const struct option_def *def, void *block, struct str value) {
  struct router_options *o = block;
  struct arena *a = config_reader_arena(r);
  struct str text, item;
  if (config_value(r, value, &text))
    return OUTCOME_ERROR;
  text = str_dup(a, text);
  struct list_iter it;
  struct str list = str_ltrim(text);
  if (!(list.len && list.p[0] == '<'))
    list = str_cat(a, STR("<; "), list);
  list_iter_init(&it, a, list);
  while (list_next(&it, &item)) {
    struct str rest = item, name = str_trim(str_cut(&rest, '='));
    if (!str_is_set(rest) || !str_starts(name, STR("r_")) || name.len == 2)
      return config_error(r, "\"set\" requires \"r_name = value\" items, found \"%.*s\"", STRF(item));
    struct router_set s = {.name = str_dup(a, name)};
    struct str error = STR_UNSET;
    s.value.text = str_dup(a, str_trim(rest));
    s.value.where = config_reader_where(r);
    s.value.tree = expr_compile(a, s.value.text, &error);
    if (str_is_set(error))
      config_warning(r, "set %.*s: %.*s", STRF(name), STRF(error));
    vec_push(a, &o->set, s);
  }
  o->set_text = str_is_set(o->set_text) ? str_printf(a, "%.*s;%.*s", STRF(o->set_text), STRF(text)) : text;
  return 0;
}

/* verify and fail_verify are two options in one. */
static int parse_verify(struct config_reader *r, const struct option_def *def, void *block, struct str value) {
  struct router_options *o = block;
  o->verify_sender = o->verify_recipient = str_eq_c(value, "true");
  return 0;
}

static int parse_fail_verify(struct config_reader *r, const struct option_def *def, void *block, struct str value) {
  struct router_options *o = block;
  o->fail_verify_sender = o->fail_verify_recipient = str_eq_c(value, "true");
  return 0;
}

#define AT(field) offsetof(struct router_options, field)

const struct option_def router_generic_options[] = {
    {"address_data", OPTION_EXPR, AT(address_data)},
    {"address_test", OPTION_BOOL, AT(address_test), "true"},
    {"cannot_route_message", OPTION_EXPR, AT(cannot_route_message)},
    {"caseful_local_part", OPTION_BOOL, AT(caseful_local_part)},
    {"check_local_user", OPTION_BOOL, AT(check_local_user)},
    {"condition", OPTION_CUSTOM, AT(conditions), .flags = OPTION_REPEATS, .parse = parse_condition, .print = print_condition},
    {"debug_print", OPTION_EXPR, AT(debug_print)},
    {"disable_logging", OPTION_BOOL, AT(disable_logging)},
    {"dnssec_request_domains", OPTION_LIST, AT(dnssec_request_domains), "*", .list = LIST_DOMAIN},
    {"dnssec_require_domains", OPTION_LIST, AT(dnssec_require_domains), .list = LIST_DOMAIN},
    {"domains", OPTION_LIST, AT(domains), .list = LIST_DOMAIN},
    {"dsn_lasthop", OPTION_BOOL, AT(dsn_lasthop)},
    {"errors_to", OPTION_EXPR, AT(errors_to)},
    {"expn", OPTION_BOOL, AT(expn), "true"},
    {"fail_verify", OPTION_CUSTOM, AT(fail_verify_sender), .flags = OPTION_BOOLEAN | OPTION_HIDDEN, .parse = parse_fail_verify},
    {"fail_verify_recipient", OPTION_BOOL, AT(fail_verify_recipient)},
    {"fail_verify_sender", OPTION_BOOL, AT(fail_verify_sender)},
    {"fallback_hosts", OPTION_EXPR, AT(fallback_hosts)},
    {"group", OPTION_GROUP, AT(group)},
    {"headers_add", OPTION_STRING, AT(headers_add), .flags = OPTION_REPEATS},
    {"headers_remove", OPTION_STRING, AT(headers_remove), .flags = OPTION_REPEATS | OPTION_JOIN_COLON},
    {"ignore_target_hosts", OPTION_LIST, AT(ignore_target_hosts), .list = LIST_HOST},
    {"initgroups", OPTION_BOOL, AT(initgroups)},
    {"local_part_prefix", OPTION_STRING, AT(local_part_prefix)},
    {"local_part_prefix_optional", OPTION_BOOL, AT(local_part_prefix_optional)},
    {"local_part_suffix", OPTION_STRING, AT(local_part_suffix)},
    {"local_part_suffix_optional", OPTION_BOOL, AT(local_part_suffix_optional)},
    {"local_parts", OPTION_LIST, AT(local_parts), .list = LIST_LOCAL_PART},
    {"log_as_local", OPTION_BOOL, AT(log_as_local), .flags = OPTION_TRISTATE},
    {"more", OPTION_EXPR_BOOL, AT(more), "true"},
    {"pass_on_timeout", OPTION_BOOL, AT(pass_on_timeout)},
    {"pass_router", OPTION_STRING, AT(pass_router_name)},
    {"redirect_router", OPTION_STRING, AT(redirect_router_name)},
    {"require_files", OPTION_STRING, AT(require_files)},
    {"retry_use_local_part", OPTION_BOOL, AT(retry_use_local_part), .flags = OPTION_TRISTATE},
    {"router_home_directory", OPTION_EXPR, AT(router_home_directory)},
    {"self", OPTION_STRING, AT(self_text), "freeze"},
    {"senders", OPTION_LIST, AT(senders), .list = LIST_ADDRESS},
    {"set", OPTION_CUSTOM, AT(set_text), .flags = OPTION_REPEATS, .parse = parse_set, .print = print_text},
    {"translate_ip_address", OPTION_EXPR, AT(translate_ip_address), .flags = OPTION_HIDDEN},
    {"transport", OPTION_EXPR, AT(transport)},
    {"transport_current_directory", OPTION_EXPR, AT(transport_current_directory)},
    {"transport_home_directory", OPTION_EXPR, AT(transport_home_directory)},
    {"unseen", OPTION_EXPR_BOOL, AT(unseen)},
    {"user", OPTION_USER, AT(user)},
    {"verify", OPTION_CUSTOM, AT(verify_sender), .flags = OPTION_BOOLEAN | OPTION_HIDDEN, .parse = parse_verify},
    {"verify_only", OPTION_BOOL, AT(verify_only)},
    {"verify_recipient", OPTION_BOOL, AT(verify_recipient), "true"},
    {"verify_sender", OPTION_BOOL, AT(verify_sender), "true"},
    OPTIONS_END};

/* `self`: freeze, defer, send, pass, fail or "reroute: [rewrite:] domain". */
static int self_init(struct config_reader *r, struct instance *i) {
  static const struct {
    const char *word;
    enum router_self self;
  } words[] = {{"freeze", SELF_FREEZE}, {"defer", SELF_DEFER}, {"send", SELF_SEND}, {"pass", SELF_PASS}, {"fail", SELF_FAIL}};
  struct router_options *o = i->generic;
  struct str text = str_is_set(o->self_text) ? str_trim(o->self_text) : STR("freeze");
  for (size_t n = 0; n < sizeof words / sizeof *words; n++)
    if (str_eq_c(text, words[n].word)) {
      o->self = words[n].self;
      return 0;
    }
  struct str rest = text, word = str_cut(&rest, ':');
  if (!str_eq_c(word, "reroute") || !str_is_set(rest))
    return config_error(r, "%.*s is not valid for the self option", STRF(text));
  rest = str_trim(rest);
  if (str_starts(rest, STR("rewrite:"))) {
    o->self_rewrite = true;
    rest = str_trim(str_from(rest, 8));
  }
  if (!rest.len)
    return config_error_at(r, i->where, "%.*s router: no domain is given with \"self = reroute\"", STRF(i->name));
  o->self = SELF_REROUTE;
  o->self_domain = rest;
  return 0;
}

int router_options_init(struct config_reader *r, struct instance *i) {
  struct router_options *o = i->generic;
  const struct router_def *d = (const struct router_def *)i->driver;
  if (i->name.len > 64)
    return config_error_at(r, i->where, "router name \"%.*s\" is too long", STRF(i->name));
  if (o->retry_use_local_part < 0)
    o->retry_use_local_part = o->check_local_user || str_is_set(o->local_parts.text) || o->conditions.n ||
                              str_is_set(o->local_part_prefix) || str_is_set(o->local_part_suffix) ||
                              str_is_set(o->senders.text) || str_is_set(o->require_files);
  if (o->log_as_local < 0)
    o->log_as_local = (d->flags & ROUTER_LOG_LOCAL) != 0;
  if ((d->flags & ROUTER_NO_TRANSPORT) && str_is_set(o->transport.text))
    return config_error_at(r, i->where, "%.*s router:\n  a transport must not be defined for this router", STRF(i->name));
  if ((d->flags & ROUTER_NEEDS_TRANSPORT) && !str_is_set(o->transport.text) && !o->verify_only)
    return config_error_at(r, i->where, "%.*s router:\n  a transport is required for this router", STRF(i->name));
  return self_init(r, i);
}

int router_options_link(struct config_reader *r, struct instance *i) {
  struct router_options *o = i->generic;
  struct config *c = config_reader_config(r);
  if (str_is_set(o->pass_router_name)) {
    struct instance *p = config_driver(c, DRIVER_ROUTER, o->pass_router_name);
    if (!p)
      return config_error_at(r, i->where, "new_router \"%.*s\" not found for \"%.*s\" router", STRF(o->pass_router_name),
          STRF(i->name));
    if (p->number <= i->number)
      return config_error_at(r, i->where, "new_router \"%.*s\" does not follow \"%.*s\" router", STRF(o->pass_router_name),
          STRF(i->name));
    o->pass_router = p;
  }
  if (str_is_set(o->redirect_router_name)) {
    o->redirect_router = config_driver(c, DRIVER_ROUTER, o->redirect_router_name);
    if (!o->redirect_router)
      return config_error_at(r, i->where, "new_router \"%.*s\" not found for \"%.*s\" router",
          STRF(o->redirect_router_name), STRF(i->name));
  }
  return 0;
}
