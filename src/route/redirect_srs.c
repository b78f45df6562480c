#include "route/redirect_srs.h"

#include <time.h>

#include "base/map.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "expand/values.h"
#include "log/log.h"
#include "mailauth/srs.h"
#include "match/match.h"
#include "message/message.h"
#include "route/router.h"

#define SECRETS_MAX 32

struct srs_main {
  struct srs_rules rules;
  struct str secrets[SECRETS_MAX];
};

static const struct srs_rules *rules_of(const struct ctx *c) {
  return &((const struct srs_main *)config_block(c->config, &srs_module))->rules;
}

/* ---- the main options ---- */

static bool number(struct str s, int64_t *ret) { return str_is_set(s) && str_to_i64(str_trim(s), ret); }

/* srs_config = secret:maxage:hashlength:usetimestamp:usehash; fields at the end may be missing. */
static int read_compact(struct config_reader *r, struct srs_main *m, struct str text) {
  struct str rest = text;
  int64_t values[4] = {m->rules.max_age, m->rules.hash_length, m->rules.use_timestamp, m->rules.use_hash};
  m->secrets[0] = str_trim(str_cut(&rest, ':'));
  m->rules.n_secrets = 1;
  for (int i = 0; i < 4 && str_is_set(rest); i++) {
    struct str field = str_cut(&rest, ':');
    if (!number(field, &values[i]) || (i >= 2 && values[i] != 0 && values[i] != 1))
      return config_error(r, "srs_config: \"%.*s\" is not a number that can stand there", STRF(field));
  }
  if (str_is_set(rest) || m->secrets[0].len == 0)
    return config_error(r, "srs_config is not secret:maxage:hashlength:usetimestamp:usehash");
  m->rules.max_age = values[0];
  m->rules.hash_length = values[1];
  m->rules.use_timestamp = values[2];
  m->rules.use_hash = values[3];
  return 0;
}

static int read_secrets(struct config_reader *r, struct srs_main *m, struct str list) {
  struct list_iter it;
  struct str item;
  list_iter_init(&it, config_reader_arena(r), list);
  while (list_next(&it, &item)) {
    if (item.len == 0)
      continue;
    if (m->rules.n_secrets >= SECRETS_MAX)
      return config_error(r, "srs_secrets has more than %d secrets", SECRETS_MAX);
    m->secrets[m->rules.n_secrets++] = item;
  }
  return 0;
}

static int check_main(struct config_reader *r, void *block) {
  struct srs_main *m = block;
  const struct main_options *o = main_options(config_reader_config(r));
  m->rules = (struct srs_rules){m->secrets, 0, o->srs_maxage, o->srs_hashlength, o->srs_hashmin, o->srs_usetimestamp, o->srs_usehash};
  int rc = 0;
  if (str_is_set(o->srs_config))
    rc = read_compact(r, m, o->srs_config);
  else if (str_is_set(o->srs_secrets))
    rc = read_secrets(r, m, o->srs_secrets);
  if (rc)
    return rc;
  if (m->rules.hash_min < 0)
    m->rules.hash_min = m->rules.hash_length;
  if (m->rules.max_age < 1 || m->rules.max_age > SRS_MAX_AGE)
    return config_error(r, "srs_maxage must be between 1 and %d", SRS_MAX_AGE);
  if (m->rules.hash_length < 1 || m->rules.hash_length > SRS_HASH_MAX)
    return config_error(r, "srs_hashlength must be between 1 and %d", SRS_HASH_MAX);
  if (m->rules.hash_min < 1 || m->rules.hash_min > m->rules.hash_length)
    return config_error(r, "srs_hashmin must be between 1 and srs_hashlength");
  if (!m->rules.use_hash)
    config_warning(r, "without srs_usehash anybody can make SRS addresses that are accepted");
  return 0;
}

/* ---- variables: they go with the address, as those of `set` do, under names that `set` cannot make ---- */

static void set(struct ctx *c, struct address *a, const char *name, struct str value) {
  struct map *vars = map_new(c->arena);
  struct str key, *stored = arena_new_of(c->arena, struct str);
  void *p;
  size_t i = 0;
  while (a->prop.set_vars && map_next(a->prop.set_vars, &i, &key, &p))
    map_set(vars, key, p);
  *stored = value;
  map_set(vars, str_c(name), stored);
  a->prop.set_vars = c->router_vars = vars;
}

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct str *value = c->router_vars ? map_get(c->router_vars, str_c(def->name)) : NULL;
  *ret = value ? *value : STR_EMPTY;
  return 0;
}

static const struct variable_def variables[] = {
  {"srs_db_address", get}, {"srs_db_key", get}, {"srs_orig_recipient", get}, {"srs_orig_sender", get}, {"srs_status", get}, {0},
};

static void log_item(struct ctx *c, struct address *a, void (*add)(void *arg, struct str item), void *arg) {
  const struct str *sender = a->prop.set_vars ? map_get(a->prop.set_vars, STR("srs_sender")) : NULL;
  if (sender)
    add(arg, str_printf(c->arena, "SRS=<%.*s>", STRF(log_printable(c->arena, *sender))));
}

/* ---- what the router does ---- */

static enum route_result expansion_failed(struct ctx *c, const struct instance *r, struct address *a, const struct option_expr *o) {
  return router_defer(c, a, ERROR_EXPAND_FAIL, "failed to expand \"%.*s\" in %.*s router: %.*s", STRF(o->text), STRF(r->name),
      STRF(c->error));
}

/* The mode, if srs_condition lets it be. */
static enum route_result read_mode(struct ctx *c, const struct instance *r, struct address *a, struct redirect_srs *ret) {
  const struct redirect_options *o = r->options;
  struct str mode, condition;
  *ret = (struct redirect_srs){0};
  if (!str_is_set(o->srs.text))
    return ROUTE_OK;
  if (str_is_set(o->srs_condition.text)) {
    int rc = expand_option(c, &o->srs_condition, &condition);
    if (rc && rc != OUTCOME_FORCED)
      return expansion_failed(c, r, a, &o->srs_condition);
    if (rc || !expand_truth_lax(condition))
      return ROUTE_OK;
  }
  int rc = expand_option(c, &o->srs, &mode);
  if (rc)
    return rc == OUTCOME_FORCED ? ROUTE_OK : expansion_failed(c, r, a, &o->srs);
  ret->forward = str_eq_c(mode, "forward") || str_eq_c(mode, "reverseandforward");
  ret->reverse = str_eq_c(mode, "reverse") || str_eq_c(mode, "reverseandforward");
  if (!ret->forward && !ret->reverse) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s router: \"%.*s\" is not a value of \"srs\"", STRF(r->name),
        STRF(log_printable(c->arena, mode)));
    return router_defer(c, a, ERROR_EXPAND_FAIL, "\"srs\" is neither forward, reverse nor reverseandforward in %.*s router", STRF(r->name));
  }
  if (rules_of(c)->use_hash && rules_of(c)->n_secrets == 0)
    return router_defer(c, a, ERROR_EXPAND_FAIL, "no srs_secrets for the \"srs\" of %.*s router", STRF(r->name));
  return ROUTE_OK;
}

/* A database says what a key stands for; nothing: nobody has seen the key. */
static enum srs_status select_address(struct ctx *c, struct address *a, const struct option_expr *option, struct str key, struct str *ret) {
  set(c, a, "srs_db_key", key);
  int rc = expand_option(c, option, ret);
  if (rc && rc != OUTCOME_FORCED)
    return SRS_DB_ERROR;
  if (!rc)
    *ret = str_trim(*ret);
  if (rc || ret->len == 0)
    return SRS_BAD_HASH;
  set(c, a, "srs_db_address", *ret);
  return SRS_OK;
}

static enum route_result reverse(struct ctx *c, const struct instance *r, struct address *a, bool or_forward) {
  const struct redirect_options *o = r->options;
  struct str original, key = str_is_set(o->srs_dbselect.text) ? srs_key_of(a->cc_local_part) : STR_UNSET;
  enum srs_status status = str_is_set(key) ? select_address(c, a, &o->srs_dbselect, key, &original)
                                           : srs_reverse(c->arena, rules_of(c), a->cc_local_part, time(NULL), &original);
  set(c, a, "srs_status", str_c(srs_status_name(status)));
  c->vars.srs_recipient = STR_UNSET;
  DEBUG(route, "SRS of %.*s: %s\n", STRF(a->address), srs_status_name(status));
  switch (status) {
  case SRS_OK:
    set(c, a, "srs_orig_recipient", a->address);
    c->vars.srs_recipient = original;
    return ROUTE_OK;
  case SRS_NOT: return or_forward ? ROUTE_OK : ROUTE_DECLINE;
  case SRS_DB_ERROR: return expansion_failed(c, r, a, &o->srs_dbselect);
  default:
    a->result = OUTCOME_FAIL;
    a->basic_errno = ERROR_UNKNOWN;
    a->message = a->user_message = STR("invalid SRS address");
    a->pass_message = true;
    return ROUTE_FAIL;
  }
}

enum route_result redirect_srs_begin(struct ctx *c, const struct instance *r, struct address *a, struct redirect_srs *ret) {
  enum route_result rc = read_mode(c, r, a, ret);
  return rc || !ret->reverse ? rc : reverse(c, r, a, ret->forward);
}

/* The rewritten sender behind a key. ROUTE_OK or DEFER. */
static enum route_result insert_address(struct ctx *c, const struct instance *r, struct address *a, struct str sender, struct str alias,
    struct str *ret) {
  const struct redirect_options *o = r->options;
  struct str key = srs_key(c->arena, rules_of(c), sender), ignored;
  *ret = str_printf(c->arena, "SRS0=%.*s@%.*s", STRF(key), STRF(alias));
  ret->taint = alias.taint;
  if (c->is_test)
    return ROUTE_OK;
  set(c, a, "srs_db_key", key);
  set(c, a, "srs_db_address", sender);
  if (!expand_option(c, &o->srs_dbinsert, &ignored))
    return ROUTE_OK;
  set(c, a, "srs_status", str_c(srs_status_name(SRS_DB_ERROR)));
  return expansion_failed(c, r, a, &o->srs_dbinsert);
}

enum route_result redirect_srs_sender(struct ctx *c, const struct instance *r, struct address *a, const struct redirect_srs *s,
    struct address_props *props) {
  const struct redirect_options *o = r->options;
  struct str local, domain, sender, rewritten, alias = a->domain;
  if (!s->forward || route_verifying(a))
    return ROUTE_OK;
  sender = str_is_set(a->prop.errors_address) ? a->prop.errors_address : c->message ? c->message->reverse_path : STR_EMPTY;
  address_split(sender, &local, &domain);
  if (local.len == 0 || domain.len == 0)
    return ROUTE_OK;
  if (str_is_set(o->srs_alias.text)) {
    int rc = expand_option(c, &o->srs_alias, &alias);
    if (rc && rc != OUTCOME_FORCED)
      return expansion_failed(c, r, a, &o->srs_alias);
    alias = rc || !str_trim(alias).len ? a->domain : str_trim(alias);
  }
  if (str_ieq(domain, alias))
    return ROUTE_OK;
  bool first = !str_istarts(local, STR("SRS0=")) && !str_istarts(local, STR("SRS1="));
  enum srs_status status = SRS_OK;
  if (first && str_is_set(o->srs_dbinsert.text)) {
    enum route_result rc = insert_address(c, r, a, sender, alias, &rewritten);
    if (rc)
      return rc;
  } else {
    status = srs_forward(c->arena, rules_of(c), local, domain, alias, time(NULL), &rewritten);
  }
  set(c, a, "srs_status", str_c(srs_status_name(status)));
  if (status != SRS_OK) {
    log_write(LOG_MAIN, c->message, "%.*s router: sender %.*s cannot be rewritten (SRS)", STRF(r->name), STRF(log_printable(c->arena, sender)));
    return ROUTE_OK;
  }
  if (str_is_set(router_options(r)->errors_to.text))
    log_write(LOG_MAIN, c->message, "%.*s router: \"srs\" overrides \"errors_to\"", STRF(r->name));
  set(c, a, "srs_orig_sender", sender);
  set(c, a, "srs_orig_recipient", a->address);
  set(c, a, "srs_sender", rewritten);
  props->set_vars = a->prop.set_vars;
  props->errors_address = rewritten;
  return ROUTE_OK;
}

const struct module srs_module = {
  .name = "srs",
  .summary = "sender rewriting by redirect routers",
  .main_size = sizeof(struct srs_main),
  .main_check = check_main,
  .variables = variables,
  .hooks = {.delivery_log = log_item},
};
