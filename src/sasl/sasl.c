#include "sasl/authenticator.h"

#include "base/ascii.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "sasl/drivers.h"

static const struct authenticator_def *def_of(const struct instance *i) { return (const struct authenticator_def *)(const void *)i->driver; }

static const struct authenticator_options *generic(const struct instance *i) { return i->generic; }

struct str sasl_public_name(const struct instance *i) {
  struct str name = generic(i)->public_name;
  return str_is_set(name) && name.len > 0 ? name : i->name;
}

static bool is_server(const struct instance *i) { return !def_of(i)->not_smtp && def_of(i)->is_server(i); }

static const struct instance *sasl_first_tls(const struct config *config) {
  for (const struct instance *i = config->drivers[DRIVER_AUTHENTICATOR]; i; i = i->next)
    if (def_of(i)->not_smtp)
      return i;
  return NULL;
}

const struct instance *sasl_server_tls(const struct ctx *c) { return sasl_first_tls(c->config); }

/* Is it worth offering here and now? */
static bool advertised(struct ctx *c, const struct instance *i) {
  const struct option_expr *o = &generic(i)->server_advertise_condition;
  struct str text;
  if (!str_is_set(o->text))
    return true;
  int rc = expand_option(c, o, &text);
  if (rc) {
    if (rc == OUTCOME_ERROR)
      log_write(LOG_MAIN | LOG_PANIC, NULL, "failed to expand condition \"%.*s\" for %.*s authenticator: %.*s", STRF(o->text),
          STRF(i->name), STRF(c->error));
    return false;
  }
  return !(!str_is_set(text) || text.len == 0 || str_eq_c(text, "0") || str_ieq_c(text, "no") || str_ieq_c(text, "false"));
}

struct str sasl_server_advertise(struct ctx *c, struct arena *a) {
  struct buf b;
  buf_init(&b, a, 4096);
  const struct option_expr *hosts = &main_options(c->config)->auth_advertise_hosts;
  if (!c->config->drivers[DRIVER_AUTHENTICATOR] || match_client_host(c, hosts, NULL) != OUTCOME_OK)
    return STR_EMPTY;
  for (const struct instance *i = c->config->drivers[DRIVER_AUTHENTICATOR]; i; i = i->next) {
    if (!is_server(i) || !advertised(c, i))
      continue;
    struct str name = sasl_public_name(i);
    buf_add_byte(&b, ' ');
    for (uint32_t k = 0; k < name.len; k++)
      buf_add_byte(&b, ascii_upper(name.p[k]));
  }
  return buf_str(&b);
}

const struct instance *sasl_server_find(struct ctx *c, struct str name) {
  for (const struct instance *i = c->config->drivers[DRIVER_AUTHENTICATOR]; i; i = i->next)
    if (is_server(i) && str_ieq(sasl_public_name(i), name))
      return i;
  return NULL;
}

/* ---- $auth<n> ---- */

void sasl_set_auth(struct ctx *c, int n, struct str value) {
  value.taint |= STR_TAINTED;
  if (n >= 1 && n <= (int)(sizeof c->auth / sizeof *c->auth))
    c->auth[n - 1] = value;
  if (n < CAPTURES_MAX)
    capture_set(&c->expand, n, value);
}

void sasl_clear_auth(struct ctx *c) {
  memset(c->auth, 0, sizeof c->auth);
  c->expand.captures = 0;
}

/* ---- the server ---- */

/* server_debug_print, for -d+auth. */
static void debug_print_option(struct ctx *c, const struct instance *i) {
  struct str text;
  const struct option_expr *o = &generic(i)->server_debug_print;
  if (!debug_on(DEBUG_auth) || !str_is_set(o->text))
    return;
  bool ok = expand_option(c, o, &text) == 0;
  DEBUG(auth, "%.*s authenticator server_debug_print%s: %.*s\n", STRF(i->name), ok ? "" : " failed to expand", STRF(ok ? text : c->error));
}

enum sasl_result sasl_server_value(struct ctx *c, const struct option_expr *o, struct str *ret, struct str *ret_text) {
  int rc = expand_option(c, o, ret);
  if (rc == 0 && !str_is_set(*ret))
    *ret = STR_EMPTY;
  if (rc != 0 && rc != OUTCOME_FORCED)
    *ret_text = c->error;
  return rc == 0 ? SASL_OK : rc == OUTCOME_FORCED ? SASL_FAIL : SASL_DEFER;
}

enum sasl_result sasl_server_accept(struct ctx *c, const struct instance *i, struct str *ret_text) {
  const struct option_expr *o = &generic(i)->server_condition;
  return str_is_set(o->text) ? sasl_condition(c, o, "server_condition", ret_text) : SASL_OK;
}

bool sasl_client_secured(const struct ctx *c) {
  const struct client *cl = c->client;
  if (cl->tls != NULL || cl->local || cl->ip.family == 0 || (c->session != NULL && c->session->kind != SESSION_SMTP))
    return true;
  return ip_is_loopback(&cl->ip) || (str_is_set(cl->interface_address) && str_eq(cl->host_address, cl->interface_address));
}

enum sasl_result sasl_condition(struct ctx *c, const struct option_expr *condition, const char *what, struct str *ret_text) {
  struct str text;
  int rc = expand_option(c, condition, &text);
  if (rc == OUTCOME_FORCED)
    return SASL_FAIL;
  if (rc) {
    *ret_text = c->error;
    return SASL_DEFER;
  }
  if (!str_is_set(text) || text.len == 0 || str_eq_c(text, "0") || str_ieq_c(text, "no") || str_ieq_c(text, "false"))
    return SASL_FAIL;
  if (str_eq_c(text, "1") || str_ieq_c(text, "yes") || str_ieq_c(text, "true"))
    return SASL_OK;
  *ret_text = text;
  return SASL_DEFER;
}

static void keep_result(struct ctx *c, const struct instance *i, enum sasl_result r) {
  struct str id = STR_EMPTY;
  const struct option_expr *o = &generic(i)->server_set_id;
  struct arena *a = c->session->arena;
  if (str_is_set(o->text) && expand_option(c, o, &id) == 0 && str_is_set(id)) {
    uint32_t taint = id.taint;
    id = str_dup(a, id);
    id.taint = taint | STR_TAINTED;
  } else {
    id = STR_EMPTY;
  }
  if (r == SASL_OK) {
    c->client->authenticated_id = id;
    c->client->authenticated_fail_id = STR_EMPTY;
    c->client->host_authenticated = i->name;
    c->client->host_auth_mechanism = sasl_public_name(i);
  } else {
    c->client->authenticated_fail_id = id;
  }
}

enum sasl_result sasl_server_run(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text) {
  *ret_text = STR_EMPTY;
  sasl_clear_auth(c);
  const struct instance *saved = c->authenticator;
  c->authenticator = i;
  enum sasl_result r = def_of(i)->server(c, i, initial, io, ret_text);
  debug_print_option(c, i);
  if (r == SASL_OK || r == SASL_FAIL || r == SASL_DEFER)
    keep_result(c, i, r);
  c->authenticator = saved;
  struct expand_vars none = {0};
  c->expand = none;
  return r;
}

/* ---- the class and its options ---- */

#define AT(field) offsetof(struct authenticator_options, field)
static const struct option_def generic_options[] = {
    {"client_condition", OPTION_EXPR, AT(client_condition)},
    {"client_set_id", OPTION_EXPR, AT(client_set_id)},
    {"public_name", OPTION_STRING, AT(public_name)},
    {"server_advertise_condition", OPTION_EXPR, AT(server_advertise_condition)},
    {"server_condition", OPTION_EXPR, AT(server_condition)},
    {"server_debug_print", OPTION_EXPR, AT(server_debug_print)},
    {"server_mail_auth_condition", OPTION_EXPR, AT(server_mail_auth_condition)},
    {"server_set_id", OPTION_EXPR, AT(server_set_id)},
    OPTIONS_END,
};

/* Two servers under one name would make AUTH ambiguous. */
static int link_instance(struct config_reader *r, struct instance *i) {
  struct authenticator_options *g = i->generic;
  g->public_name = str_upper(config_reader_config(r)->arena, sasl_public_name(i)); /* the way mechanisms are named */
  if (def_of(i)->not_smtp && sasl_first_tls(config_reader_config(r)) != i)
    return config_error_at(r, i->where, "authenticator %.*s: only one authenticator with the driver \"%s\" may be there", STRF(i->name),
        i->driver->name);
  for (const struct instance *o = config_reader_config(r)->drivers[DRIVER_AUTHENTICATOR]; o && o != i; o = o->next)
    if (is_server(i) && is_server(o) && str_ieq(sasl_public_name(i), sasl_public_name(o)))
      return config_error_at(r, i->where, "two server authenticators (%.*s and %.*s) have the same public name (%.*s)", STRF(o->name),
          STRF(i->name), STRF(sasl_public_name(o)));
  return 0;
}

static const struct driver_class_def class_def = {
    .class = DRIVER_AUTHENTICATOR,
    .options = generic_options,
    .options_size = sizeof(struct authenticator_options),
    .link = link_instance,
};

static const struct driver_def *const drivers[] = {&sasl_cram_md5.driver, &sasl_cyrus_sasl.driver, &sasl_dovecot.driver,
    &sasl_external.driver, &sasl_gsasl.driver, &sasl_heimdal_gssapi.driver, &sasl_plaintext.driver, &sasl_spa.driver, &sasl_tls.driver,
    NULL};

static const struct option_def main_options_table[] = {
    {"sasl_allow_digest_md5", OPTION_BOOL, offsetof(struct sasl_options, allow_digest_md5)},
    OPTIONS_END,
};

bool sasl_mechanism_allowed(const struct config *config, struct str mechanism) {
  const struct sasl_options *o = config_block(config, &sasl_module);
  return !str_ieq_c(mechanism, "DIGEST-MD5") || o->allow_digest_md5;
}

const struct module sasl_module = {
    .name = "sasl",
    .summary = "SMTP authentication",
    .main_options = main_options_table,
    .main_size = sizeof(struct sasl_options),
    .driver_class = &class_def,
    .macros = sasl_gsasl_macros,
    .drivers = drivers,
};
