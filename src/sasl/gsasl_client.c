/* The driver gsasl as a client. */
#include "base/encode.h"
#include "deliver/address.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "sasl/gsasl.h"
#include "sasl/scram_keys.h"

/* A value into *ret; not SASL_OK is kept as the result of the run. */
static bool value(struct gsasl_run *r, const struct option_expr *o, struct str *ret) {
  enum sasl_result k = sasl_client_value(r->c, o, ret, &r->text);
  if (k != SASL_OK)
    r->result = k;
  return k == SASL_OK;
}

static int set_value(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p, const struct option_expr *o) {
  struct str text;
  if (!value(r, o, &text) || text.len == 0)
    return GSASL_NO_CALLBACK;
  return gsasl_set(r, s, p, text);
}

/* The salted password: what was kept of it, or made of the password, for as many rounds as the server says, up to a limit. */
static int set_salted(struct gsasl_run *r, Gsasl_session *s) {
  struct ctx *c = r->c;
  struct str iterations = gsasl_known(r, s, GSASL_SCRAM_ITER), salt64 = gsasl_known(r, s, GSASL_SCRAM_SALT), kept, plain, prepared, salt;
  struct scram_keys keys;
  uint64_t n;
  sasl_set_auth(c, 1, gsasl_known(r, s, GSASL_AUTHID));
  sasl_set_auth(c, 2, iterations);
  sasl_set_auth(c, 3, salt64);
  if (!value(r, &r->o->client_spassword, &kept))
    return GSASL_NO_CALLBACK;
  if (kept.len != (strcmp(r->digest, "sha1") == 0 ? 40 : 64)) {
    if (!value(r, &r->o->client_password, &plain))
      return GSASL_NO_CALLBACK;
    if (!str_to_u64(iterations, &n) || n > SCRAM_ITERATIONS_MAX) {
      r->result = SASL_ERROR;
      r->text = str_printf(c->arena, "the server asks for %.*s rounds of SCRAM", STRF(iterations));
      return GSASL_NO_CALLBACK;
    }
    if (!gsasl_prepared(r, plain, &prepared) || !base64_decode(c->arena, salt64, false, &salt) ||
        scram_keys_make(r->digest, prepared, salt, n, &keys) != 0)
      return GSASL_NO_CALLBACK;
    kept = hex_encode(c->arena, str_n((const char *)keys.salted, keys.len));
  }
  sasl_set_auth(c, 4, kept);
  return gsasl_set(r, s, GSASL_SCRAM_SALTED_PASSWORD, kept);
}

int gsasl_client_callback(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p) {
  if (r->result != SASL_OK)
    return GSASL_NO_CALLBACK;
  switch (p) {
  case GSASL_AUTHID: case GSASL_ANONYMOUS_TOKEN:
    return set_value(r, s, p, &r->o->client_username);
  case GSASL_AUTHZID:
    return set_value(r, s, p, &r->o->client_authz);
  case GSASL_PASSWORD:
    return r->digest != NULL ? GSASL_NO_CALLBACK : set_value(r, s, p, &r->o->client_password);
  case GSASL_SCRAM_SALTED_PASSWORD:
    return r->digest != NULL ? set_salted(r, s) : GSASL_NO_CALLBACK;
  case GSASL_CB_TLS_EXPORTER: case GSASL_CB_TLS_UNIQUE:
    return gsasl_set_binding(r, s, p);
  case GSASL_SERVICE:
    return gsasl_set(r, s, p, STR("smtp"));
  case GSASL_HOSTNAME:
    return r->c->host != NULL ? gsasl_set(r, s, p, r->c->host->name) : GSASL_NO_CALLBACK;
  default:
    return GSASL_NO_CALLBACK;
  }
}

/* The library has given up: why? */
static enum sasl_result failed(struct gsasl_run *r, int rc, struct str *ret_text) {
  *ret_text = r->result != SASL_OK ? r->text : str_c(gsasl_strerror(rc));
  return r->result != SASL_OK ? r->result : SASL_CANCELLED;
}

static enum sasl_result converse(struct gsasl_run *r, Gsasl_session *s, const struct sasl_io *io, struct str *ret_text) {
  struct ctx *c = r->c;
  struct str out, challenge;
  int code = 0, rc = gsasl_run_step(r, s, STR_UNSET, &out);
  if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE)
    return failed(r, rc, ret_text);
  struct str initial = out.len == 0 && rc == GSASL_NEEDS_MORE ? STR_UNSET : out;
  enum sasl_result k = sasl_client_start(c, r->i, io, initial, &code, &challenge, ret_text);
  while (k == SASL_OK && code == 334) {
    if (rc != GSASL_NEEDS_MORE)
      return SASL_DEFER;
    rc = gsasl_run_step(r, s, challenge, &out);
    if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE) {
      struct str why, unused;
      k = failed(r, rc, &why);
      if (sasl_client_cancel(c, io, STR_EMPTY, &unused) == SASL_GONE)
        return SASL_GONE;
      *ret_text = why;
      return k;
    }
    k = sasl_client_answer(c, io, out, &code, &challenge, ret_text);
  }
  if (k == SASL_OK && rc == GSASL_NEEDS_MORE) {
    *ret_text = STR("the server did not prove that it knows the password");
    return SASL_ERROR;
  }
  return k;
}

enum sasl_result gsasl_ask(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  struct gsasl_run r;
  Gsasl_session *s = NULL;
  gsasl_run_init(&r, c, i, true);
  sasl_clear_auth(c);
  if (str_ends(r.mechanism, STR("-PLUS")) && (c->tls_out == NULL || !r.o->client_channelbinding)) {
    *ret_text = STR_UNSET; /* not for this connection */
    return SASL_CANCELLED;
  }
  int rc = gsasl_run_start(&r, &s);
  if (rc != GSASL_OK)
    return failed(&r, rc, ret_text);
  enum sasl_result k = converse(&r, s, io, ret_text);
  gsasl_finish(s);
  return k;
}
