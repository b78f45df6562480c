/* STARTTLS (RFC 3207) and TLS from the first byte: options into parameters,
the handshake, and what the session forgets after it. */
#include <errno.h>

#include "core/build.h"
#include "expand/expand.h"
#include "match/match.h"
#include "smtp/server/internal.h"
#include "transport/event.h"
#include "tls/tls.h"

bool smtp_tls_offered(struct smtp_session *s) {
  /* A stream has room for one layer: a session that comes through the local socket has it already. */
  return !s->c->client->tls && s->p->kind != SESSION_BATCH && !stream_layer_state(s->stream) && smtp_match_host(s, &s->o->tls_advertise_hosts);
}

/* An option's value, or empty; a forced failure is as if it were unset. false: it does not expand; logged. */
static bool value_of(struct smtp_session *s, const struct option_expr *o, const char *name, struct str *ret) {
  struct str text;
  int rc = expand_option(s->c, o, &text);
  *ret = STR_EMPTY;
  if (rc == 0 && str_is_set(text))
    *ret = text;
  if (rc && rc != OUTCOME_FORCED) {
    acl_log(s->c, LOG_MAIN | LOG_PANIC, "expansion of %s failed: %.*s", name, STRF(s->c->error));
    return false;
  }
  return true;
}

/* The subject of the certificate that is made when none is configured. */
static struct str self_signed_subject(struct smtp_session *s) {
  return str_printf(s->c->arena, "/C=UK/O=%s Developers/CN=%.*s", build.mailer_name, STRF(s->o->primary_hostname));
}

static bool expand_params(struct smtp_session *s, struct tls_params *p) {
  const struct main_options *o = s->o;
  return value_of(s, &o->tls_certificate, "tls_certificate", &p->certificate) &&
         value_of(s, &o->tls_privatekey, "tls_privatekey", &p->private_key) &&
         value_of(s, &o->tls_require_ciphers, "tls_require_ciphers", &p->ciphers) &&
         value_of(s, &o->tls_verify_certificates, "tls_verify_certificates", &p->verify_certificates) &&
         value_of(s, &o->tls_ocsp_file, "tls_ocsp_file", &p->ocsp_file) &&
         value_of(s, &o->tls_crl, "tls_crl", &p->crl) && value_of(s, &o->tls_eccurve, "tls_eccurve", &p->groups) &&
         value_of(s, &o->tls_dhparam, "tls_dhparam", &p->dhparam) && value_of(s, &o->tls_alpn, "tls_alpn", &p->alpn);
}

static void on_verify_error(void *arg, struct str text) {
  struct smtp_session *s = arg;
  acl_log(s->c, LOG_MAIN, "[%.*s] %.*s", STRF(s->c->client->host_address), STRF(log_printable(s->c->arena, text)));
}

/* The event tls:cert: something said in answer refuses the certificate. */
static int on_certificate(void *arg, struct x509_st *cert, int depth, bool good) {
  struct smtp_session *s = arg;
  struct tls_info seen = {.server = true, .peer_cert = cert}, *saved = s->c->client->tls;
  struct str text;
  if (!good || !event_wanted(s->c, NULL))
    return 0;
  s->c->client->tls = &seen;
  int rc = event_raise(s->c, NULL, "tls:cert", str_printf(s->c->arena, "%d", depth), 0, &text);
  s->c->client->tls = saved;
  return rc || text.len ? -1 : 0;
}

static bool not_forced(struct smtp_session *s, const struct option_expr *o, const char *name, struct str value) {
  if (value.len || str_is_empty(o->text))
    return true;
  acl_log(s->c, LOG_MAIN | LOG_PANIC, "expansion of %s failed", name);
  return false;
}

/* The client named a server: the options may depend on it. */
static int on_sni(void *arg, struct str sni, struct tls_params *p) {
  struct smtp_session *s = arg;
  struct tls_info seen = {.server = true, .sni = str_dup(s->c->arena, sni)};
  seen.sni.taint = STR_TAINTED;
  struct tls_info *saved = s->c->client->tls;
  s->c->client->tls = &seen;
  /* Here a forced failure is an error: without a certificate for this name another one would be shown. */
  bool ok = expand_params(s, p) && not_forced(s, &s->o->tls_certificate, "tls_certificate", p->certificate) &&
            not_forced(s, &s->o->tls_privatekey, "tls_privatekey", p->private_key);
  s->c->client->tls = saved;
  return ok ? 1 : -1;
}

static void on_config_error(void *arg, struct str text) {
  struct smtp_session *s = arg;
  acl_log(s->c, LOG_MAIN | LOG_PANIC, "%.*s", STRF(log_printable(s->c->arena, text)));
}

static void on_config_note(void *arg, struct str text) {
  struct smtp_session *s = arg;
  if (!build.quiet_about_proofs)
    acl_log(s->c, LOG_MAIN, "%.*s", STRF(log_printable(s->c->arena, text)));
}

static void log_tls_error(struct smtp_session *s, struct str error) {
  acl_log(s->c, LOG_MAIN, "TLS error on connection from %.*s %.*s", STRF(smtp_sender_who(s)),
      STRF(log_printable(s->c->arena, error)));
}

/* The options, and whether they load. */
static int make_params(struct smtp_session *s, struct tls_params *ret) {
  struct tls_params p = {.arg = s, .on_verify_error = on_verify_error, .on_certificate = on_certificate, .self_signed_name = self_signed_subject(s),
      .on_config_error = on_config_error, .on_config_note = on_config_note,
      .dh_max_bits = s->o->tls_dh_max_bits};
  if (!value_of(s, &s->o->openssl_options, "openssl_options", &p.openssl_options) || !expand_params(s, &p))
    return -EINVAL;
  if (str_find_byte(s->o->tls_certificate.text, '$') >= 0 || str_find_byte(s->o->tls_privatekey.text, '$') >= 0)
    p.on_sni = on_sni;
  int must = smtp_host_in(s, &s->o->tls_verify_hosts, "tls_verify_hosts");
  if (must != OUTCOME_OK && must != OUTCOME_FAIL)
    return -EINVAL; /* who has to show a certificate cannot be told */
  if (must == OUTCOME_OK)
    p.verify = TLS_VERIFY_REQUIRED;
  else if (smtp_match_host(s, &s->o->tls_try_verify_hosts))
    p.verify = TLS_VERIFY_OPTIONAL;
  p.resumption = p.verify != TLS_VERIFY_REQUIRED && smtp_match_host(s, &s->o->tls_resumption_hosts);
  if (!str_is_empty(s->o->tls_resumption_hosts.text))
    tls_tickets_prepare(s->c);
  p.require_alpn = smtp_match_host(s, &s->o->hosts_require_alpn);
  *ret = p;
  struct str error = STR_UNSET;
  int rc = tls_server_check(&p, s->c->arena, &error);
  if (rc < 0)
    log_tls_error(s, error);
  return rc;
}

void smtp_server_preload(struct config *config) {
  const struct main_options *o = main_options(config);
  const struct option_expr *const options[] = {&o->tls_certificate, &o->tls_privatekey, &o->tls_require_ciphers,
      &o->tls_verify_certificates, &o->tls_ocsp_file, &o->tls_crl, &o->tls_eccurve, &o->tls_dhparam, &o->tls_alpn, &o->openssl_options};
  if (str_is_empty(o->tls_certificate.text) || (str_is_empty(o->tls_advertise_hosts.text) && str_is_empty(o->tls_on_connect_ports)))
    return;
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    if (str_find_byte(options[i]->text, '$') >= 0)
      return;
  struct arena *a = arena_new("tls preload");
  struct smtp_session s = {.c = ctx_new(a, config), .o = o};
  struct tls_params p = {.self_signed_name = self_signed_subject(&s), .dh_max_bits = o->tls_dh_max_bits};
  struct str error;
  if (!str_is_empty(o->tls_resumption_hosts.text))
    tls_tickets_prepare(s.c);
  if (value_of(&s, &o->openssl_options, "openssl_options", &p.openssl_options) && expand_params(&s, &p))
    (void)tls_server_check(&p, a, &error); /* a session will say so, to its client, too */
  arena_free(a);
}

static int run_handshake(struct smtp_session *s, const struct tls_params *p) {
  struct client *cl = s->c->client;
  struct str error = STR_UNSET;
  stream_discard_input(s->stream);
  int rc = tls_server_start(s->stream, p, deadline_in(smtp_timeout_of(s)), s->arena, &cl->tls, &error);
  if (rc < 0) {
    cl->tls = NULL;
    log_tls_error(s, error);
    struct str unused;
    (void)event_raise(s->c, NULL, "tls:fail:connect", error, 0, &unused);
    return rc;
  }
  smtp_set_protocol(s);
  return 0;
}

int smtp_tls_start(struct smtp_session *s) {
  struct tls_params p;
  int rc = make_params(s, &p);
  if (rc < 0)
    return rc;
  p.early_write = p.verify == TLS_VERIFY_NONE && smtp_match_host(s, &s->o->tls_early_banner_hosts);
  return run_handshake(s, &p);
}

enum smtp_next smtp_verb_starttls(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  if (args.len > 0)
    return smtp_synprot(s, false, 501, STR_UNSET, "unexpected argument data");
  if (!s->ad_tls)
    return smtp_synprot(s, true, 503, STR_UNSET, "STARTTLS command used when not advertised");
  enum acl_result r = smtp_acl(s, ACL_STARTTLS, &s->o->acl_smtp_starttls, ACL_OK);
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_STARTTLS, r, STR("STARTTLS"));
  smtp_reset(s);
  if (stream_peek(s->stream).len > 0)
    acl_log(c, LOG_MAIN, "Non-empty input buffer after STARTTLS; naive attack?");
  struct tls_params p;
  if (make_params(s, &p) < 0) {
    s->tls_broken = true;
    smtp_say(s, "454 TLS currently unavailable");
    return SMTP_GO_ON;
  }
  smtp_say(s, "220 TLS go ahead");
  if (smtp_flush(s) < 0)
    return smtp_notquit(s, "connection-lost", NULL, " ");
  if (run_handshake(s, &p) < 0) {
    s->tls_broken = true;
    return SMTP_GO_ON;
  }
  /* What was said in clear counts no more (RFC 3207 section 4.2). */
  struct client *cl = c->client;
  s->helo_seen = false;
  cl->helo_name = STR_UNSET;
  cl->helo_verified = cl->helo_verify_failed = false;
  cl->host_authenticated = s->p->host_authenticated;
  cl->host_auth_mechanism = STR_UNSET;
  cl->authenticated_id = s->p->authenticated_id;
  client_set_fullhost(s->arena, cl);
  s->ad_tls = false;
  if (!s->o->tls_remember_esmtp) {
    s->esmtp = false;
    smtp_clear_offers(s);
  }
  s->helo_free = s->auth_free = true;
  s->starttls_free = false;
  smtp_set_protocol(s);
  smtp_tls_authenticate(s);
  return SMTP_GO_ON;
}
