/* The driver gsasl as a server. */
#include "base/encode.h"
#include "expand/expand.h"
#include "log/log.h"
#include "sasl/gsasl.h"
#include "sasl/scram_keys.h"

#define ROUNDS_MAX 8 /* the library would ask for ever who answers nothing */

/* $auth1 the authentication id, $auth2 the authorization id, $auth3 the realm. */
static void set_names(struct gsasl_run *r, Gsasl_session *s) {
  sasl_set_auth(r->c, 1, gsasl_known(r, s, GSASL_AUTHID));
  sasl_set_auth(r->c, 2, gsasl_known(r, s, GSASL_AUTHZID));
  sasl_set_auth(r->c, 3, gsasl_known(r, s, GSASL_REALM));
}

/* Only the condition decides. */
static int validate(struct gsasl_run *r) {
  r->validated = true;
  r->result = sasl_server_accept(r->c, r->i, &r->text);
  return r->result == SASL_OK ? GSASL_OK : GSASL_AUTHENTICATION_ERROR;
}

/* A value into *ret; not SASL_OK is kept as the result of the run. */
static bool value(struct gsasl_run *r, const struct option_expr *o, struct str *ret) {
  enum sasl_result k = sasl_server_value(r->c, o, ret, &r->text);
  if (k != SASL_OK)
    r->result = k;
  return k == SASL_OK;
}

static int set_value(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p, const struct option_expr *o) {
  struct str text;
  if (!value(r, o, &text))
    return GSASL_NO_CALLBACK;
  return text.len == 0 ? GSASL_NO_CALLBACK : gsasl_set(r, s, p, text);
}

/* Forced failure of the password defers, as the manual has it. */
static bool password(struct gsasl_run *r, struct str *ret) {
  if (value(r, &r->o->server_password, ret))
    return str_is_set(r->o->server_password.text);
  if (r->result == SASL_FAIL)
    r->result = SASL_DEFER;
  return false;
}

static int set_iterations(struct gsasl_run *r, Gsasl_session *s) {
  struct str text;
  uint64_t n;
  if (!value(r, &r->o->server_scram_iter, &text))
    return GSASL_NO_CALLBACK;
  if (!str_to_u64(str_trim(text), &n) || n < 1 || n > SCRAM_ITERATIONS_MAX) {
    r->result = SASL_DEFER;
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s authenticator: server_scram_iter is no number from 1 to %d: \"%.*s\"", STRF(r->i->name),
        SCRAM_ITERATIONS_MAX, STRF(text));
    return GSASL_NO_CALLBACK;
  }
  return gsasl_set(r, s, GSASL_SCRAM_ITER, str_trim(text));
}

/* ServerKey and StoredKey: as they are kept, or made of the password. */
static int set_keys(struct gsasl_run *r, Gsasl_session *s) {
  struct arena *a = r->c->arena;
  struct str server = STR_EMPTY, stored = STR_EMPTY, plain, prepared, salt;
  uint32_t want = strcmp(r->digest, "sha1") == 0 ? 28 : 44;
  uint64_t iterations;
  if (!value(r, &r->o->server_key, &server) || !value(r, &r->o->server_skey, &stored))
    return GSASL_NO_CALLBACK;
  if (server.len != want || stored.len != want) {
    struct scram_keys keys;
    if (!password(r, &plain))
      return GSASL_NO_CALLBACK;
    if (!gsasl_prepared(r, plain, &prepared) || !base64_decode(a, gsasl_known(r, s, GSASL_SCRAM_SALT), false, &salt) ||
        !str_to_u64(gsasl_known(r, s, GSASL_SCRAM_ITER), &iterations) ||
        scram_keys_make(r->digest, prepared, salt, iterations, &keys) != 0)
      return GSASL_NO_CALLBACK;
    server = base64_encode(a, str_n((const char *)keys.server, keys.len));
    stored = base64_encode(a, str_n((const char *)keys.stored, keys.len));
  }
  int rc = gsasl_set(r, s, GSASL_SCRAM_SERVERKEY, server);
  return rc == GSASL_OK ? gsasl_set(r, s, GSASL_SCRAM_STOREDKEY, stored) : rc;
}

int gsasl_server_callback(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p) {
  struct str text;
  if (r->result != SASL_OK)
    return GSASL_NO_CALLBACK;
  switch (p) {
  case GSASL_VALIDATE_SIMPLE:
    set_names(r, s);
    sasl_set_auth(r->c, 3, gsasl_known(r, s, GSASL_PASSWORD));
    return validate(r);
  case GSASL_VALIDATE_EXTERNAL:
    sasl_set_auth(r->c, 1, gsasl_known(r, s, GSASL_AUTHZID));
    return validate(r);
  case GSASL_VALIDATE_ANONYMOUS:
    sasl_set_auth(r->c, 1, gsasl_known(r, s, GSASL_ANONYMOUS_TOKEN));
    return validate(r);
  case GSASL_VALIDATE_GSSAPI:
    sasl_set_auth(r->c, 1, gsasl_known(r, s, GSASL_GSSAPI_DISPLAY_NAME));
    sasl_set_auth(r->c, 2, gsasl_known(r, s, GSASL_AUTHZID));
    return validate(r);
  case GSASL_CB_TLS_EXPORTER: case GSASL_CB_TLS_UNIQUE:
    return gsasl_set_binding(r, s, p);
  case GSASL_SERVICE:
    return gsasl_set(r, s, p, r->o->server_service);
  case GSASL_HOSTNAME:
    return set_value(r, s, p, &r->o->server_hostname);
  case GSASL_REALM:
    return set_value(r, s, p, &r->o->server_realm);
  case GSASL_QOPS:
    return gsasl_set(r, s, p, STR("qop-auth"));
  case GSASL_SCRAM_ITER:
    set_names(r, s);
    return set_iterations(r, s);
  case GSASL_SCRAM_SALT:
    set_names(r, s);
    return set_value(r, s, p, &r->o->server_scram_salt);
  case GSASL_SCRAM_SERVERKEY: case GSASL_SCRAM_STOREDKEY:
    set_names(r, s);
    return r->digest != NULL ? set_keys(r, s) : GSASL_NO_CALLBACK;
  case GSASL_PASSWORD:
    if (r->digest != NULL)
      return GSASL_NO_CALLBACK; /* the keys were made of it */
    set_names(r, s);
    return password(r, &text) ? gsasl_set(r, s, p, text) : GSASL_NO_CALLBACK;
  default:
    return GSASL_NO_CALLBACK;
  }
}

static enum sasl_result ended(struct gsasl_run *r, Gsasl_session *s, int rc, struct str *ret_text) {
  *ret_text = r->text;
  if (r->result != SASL_OK)
    return r->result;
  if (!r->validated)
    set_names(r, s);
  if (rc != GSASL_OK) {
    DEBUG(auth, "%.*s authenticator: %s\n", STRF(r->i->name), gsasl_strerror(rc));
    return SASL_FAIL;
  }
  return r->validated ? SASL_OK : sasl_server_accept(r->c, r->i, ret_text);
}

static enum sasl_result converse(struct gsasl_run *r, Gsasl_session *s, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  struct str in = initial, out;
  for (int n = 0;; n++) {
    int rc = n < ROUNDS_MAX ? gsasl_run_step(r, s, in, &out) : GSASL_MECHANISM_CALLED_TOO_MANY_TIMES;
    if (rc != GSASL_NEEDS_MORE && !(rc == GSASL_OK && out.len > 0))
      return ended(r, s, rc, ret_text);
    int asked = io->challenge(io->arg, out, &in, ret_text);
    if (asked != 0)
      return asked == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
    if (rc == GSASL_OK) /* the last word was ours; the client only says that it has seen it */
      return ended(r, s, in.len == 0 ? rc : GSASL_MECHANISM_PARSE_ERROR, ret_text);
  }
}

enum sasl_result gsasl_serve(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text) {
  struct gsasl_run r;
  Gsasl_session *s = NULL;
  gsasl_run_init(&r, c, i, false);
  if (str_ends(r.mechanism, STR("-PLUS")) && (c->client->tls == NULL || !r.o->server_channelbinding)) {
    *ret_text = STR("538 5.7.11 Encryption required for requested authentication mechanism");
    if (c->client->tls == NULL)
      return SASL_CANCELLED;
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s authenticator: %.*s needs server_channelbinding", STRF(i->name), STRF(r.mechanism));
    *ret_text = STR("no channel binding");
    return SASL_UNAVAILABLE;
  }
  int rc = gsasl_run_start(&r, &s);
  if (rc != GSASL_OK) {
    *ret_text = str_c(gsasl_strerror(rc));
    return SASL_UNAVAILABLE;
  }
  enum sasl_result k = converse(&r, s, initial, io, ret_text);
  gsasl_finish(s);
  return k;
}
