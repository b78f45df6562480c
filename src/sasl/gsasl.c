/* Mechanisms of GNU SASL (Exim manual, chapter "The gsasl authenticator"). The library computes; what it wants to know it
asks through a callback, which may suspend the fiber: a session of the library is one fiber's. */
#include "sasl/gsasl.h"

#include <stdlib.h>

#include "base/encode.h"
#include "log/log.h"
#include "tls/tls.h"

static int callback(Gsasl *library, Gsasl_session *s, Gsasl_property p) {
  struct gsasl_run *r = gsasl_session_hook_get(s);
  if (r == NULL)
    r = gsasl_callback_hook_get(library); /* while the session starts; nothing suspends then */
  if (r == NULL)
    return GSASL_NO_CALLBACK;
  return r->client ? gsasl_client_callback(r, s, p) : gsasl_server_callback(r, s, p);
}

Gsasl *gsasl_library(void) {
  static Gsasl *library;
  if (library == NULL && gsasl_init(&library) == GSASL_OK)
    gsasl_callback_set(library, callback);
  return library;
}

static struct str mechanism_of(struct arena *a, const struct instance *i) {
  const struct gsasl_options *o = i->options;
  return str_upper(a, str_is_set(o->server_mech) && o->server_mech.len > 0 ? o->server_mech : sasl_public_name(i));
}

void gsasl_run_init(struct gsasl_run *r, struct ctx *c, const struct instance *i, bool client) {
  *r = (struct gsasl_run){.c = c, .i = i, .o = i->options, .client = client, .mechanism = mechanism_of(c->arena, i)};
  if (str_starts(r->mechanism, STR("SCRAM-SHA-1")))
    r->digest = "sha1";
  else if (str_starts(r->mechanism, STR("SCRAM-SHA-256")))
    r->digest = "sha256";
}

int gsasl_run_start(struct gsasl_run *r, Gsasl_session **ret) {
  Gsasl *library = gsasl_library();
  const char *name = str_dup_c(r->c->arena, r->mechanism);
  gsasl_callback_hook_set(library, r);
  int rc = r->client ? gsasl_client_start(library, name, ret) : gsasl_server_start(library, name, ret);
  gsasl_callback_hook_set(library, NULL);
  if (rc == GSASL_OK)
    gsasl_session_hook_set(*ret, r);
  return rc;
}

int gsasl_run_step(struct gsasl_run *r, Gsasl_session *s, struct str in, struct str *ret_out) {
  char *out = NULL;
  size_t n = 0;
  int rc = gsasl_step(s, str_is_set(in) ? in.p : NULL, str_is_set(in) ? in.len : 0, &out, &n);
  *ret_out = rc == GSASL_OK || rc == GSASL_NEEDS_MORE ? str_dup(r->c->arena, str_n(out, n)) : STR_EMPTY;
  gsasl_free(out);
  return rc;
}

struct str gsasl_known(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p) {
  const char *value = gsasl_property_fast(s, p);
  return value == NULL ? STR_EMPTY : str_tainted(str_dup(r->c->arena, str_c(value)));
}

int gsasl_set(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p, struct str value) {
  return gsasl_property_set_raw(s, p, value.p, value.len);
}

int gsasl_set_binding(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p) {
  const struct tls_info *tls = r->client ? r->c->tls_out : r->c->client->tls;
  bool wanted = r->client ? r->o->client_channelbinding : r->o->server_channelbinding;
  const char *type = p == GSASL_CB_TLS_EXPORTER ? "tls-exporter" : "tls-unique";
  if (!wanted || tls == NULL || tls->channel_binding.len == 0 || strcmp(tls->channel_binding_type, type) != 0)
    return GSASL_NO_CALLBACK;
  return gsasl_set(r, s, p, base64_encode(r->c->arena, tls->channel_binding));
}

bool gsasl_prepared(struct gsasl_run *r, struct str password, struct str *ret) {
  char *out = NULL;
  int rc = gsasl_saslprep(str_dup_c(r->c->arena, password), 0, &out, NULL);
  if (rc == GSASL_OK)
    *ret = str_dup(r->c->arena, str_c(out));
  gsasl_free(out);
  return rc == GSASL_OK;
}

/* --- the driver --- */

static bool has(const struct option_expr *o) { return str_is_set(o->text) && o->text.len > 0; }

static bool is_server(const struct instance *i) {
  const struct gsasl_options *o = i->options;
  return str_is_set(((const struct authenticator_options *)i->generic)->server_condition.text) || has(&o->server_password) ||
         (has(&o->server_key) && has(&o->server_skey));
}

static bool is_client(const struct instance *i) { return has(&((const struct gsasl_options *)i->options)->client_username); }

static void show_mechanisms(void) {
  char *list = NULL;
  if (debug_on(DEBUG_auth) && gsasl_server_mechlist(gsasl_library(), &list) == GSASL_OK)
    DEBUG(auth, "GNU SASL supports: %s\n", list);
  gsasl_free(list);
}

static int init(struct config_reader *r, struct instance *i) {
  struct str name = mechanism_of(config_reader_arena(r), i);
  if (gsasl_library() == NULL)
    return config_error_at(r, i->where, "authenticator %.*s: GNU SASL could not be initialised", STRF(i->name));
  show_mechanisms();
  const char *text = str_dup_c(config_reader_arena(r), name);
  if (!gsasl_server_support_p(gsasl_library(), text) && !gsasl_client_support_p(gsasl_library(), text))
    return config_error_at(r, i->where, "authenticator %.*s: GNU SASL does not support mechanism \"%s\"", STRF(i->name), text);
  if (!sasl_mechanism_allowed(config_reader_config(r), name))
    return config_error_at(r, i->where, "authenticator %.*s: DIGEST-MD5 is historic (RFC 6331): it needs sasl_allow_digest_md5",
        STRF(i->name));
  /* These have nothing but a condition that could decide. */
  static const char *const open[] = {"PLAIN", "LOGIN", "EXTERNAL", "ANONYMOUS", "GSSAPI"};
  const struct authenticator_options *g = i->generic;
  for (size_t k = 0; k < sizeof open / sizeof *open; k++)
    if (str_eq_c(name, open[k]) && is_server(i) && !str_is_set(g->server_condition.text))
      return config_error_at(r, i->where, "authenticator %.*s: a server of %s needs server_condition", STRF(i->name), open[k]);
  return 0;
}

const char *const sasl_gsasl_macros[] = {"_HAVE_AUTH_GSASL_SCRAM_SHA_256", "_HAVE_AUTH_GSASL_SCRAM_S_KEY", NULL};

const struct authenticator_def sasl_gsasl = {
  .driver = {.name = "gsasl", .class = DRIVER_AUTHENTICATOR, .options = sasl_gsasl_options, .options_size = sizeof(struct gsasl_options),
    .summary = "mechanisms of GNU SASL, SCRAM among them", .init = init},
  .is_server = is_server,
  .is_client = is_client,
  .server = gsasl_serve,
  .client = gsasl_ask,
};
