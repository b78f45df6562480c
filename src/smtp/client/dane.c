#include "smtp/client/dane.h"

#include "base/idn.h"
#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "smtp/client/tlsrpt.h"
#include "tls/dane.h"
#include "tls/tls.h"
#include "transport/event.h"

static bool host_in(struct ctx *c, const struct option_expr *list) {
  return str_is_set(list->text) && match_host(c, list, c->host->name, c->host->address, NULL) == OUTCOME_OK;
}

enum smtp_dane_mode smtp_dane_mode(struct ctx *c, const struct smtp_client_options *o) {
  if (smtp_requiretls_mode(c, o) == REQUIRETLS_RELAXED) /* the sender wants it to arrive (RFC 8689, 4.1) */
    return DANE_OFF;
  int required = str_is_set(o->hosts_require_dane.text) ? match_host(c, &o->hosts_require_dane, c->host->name, c->host->address, NULL)
                                                       : OUTCOME_FAIL;
  if (required != OUTCOME_FAIL)
    return required == OUTCOME_OK ? DANE_REQUIRE : DANE_UNKNOWN;
  return c->host->dnssec && host_in(c, &o->hosts_try_dane) ? DANE_TRY : DANE_OFF;
}

void smtp_dane_failed(struct ctx *c, const struct smtp_connection *n, const char *type, const char *reported, const char *reason) {
  struct str unused;
  tlsrpt_note(c, n, reported, reason);
  if (!smtp_client_options(n->transport)->callout)
    (void)event_raise_known(c, n->transport, "dane:fail", str_c(type), &unused);
}

static int fail(struct ctx *c, struct smtp_connection *n, int error, struct str text, const char *reported, const char *reason) {
  n->error = error;
  n->error_text = str_cat(c->arena, STR("DANE error: "), text);
  /* The event tells who requires DANE just that, whatever the reason; reports are exact. */
  smtp_dane_failed(c, n, n->dane.mode == DANE_REQUIRE ? "dane-required" : "dnssec-invalid", reported, reason);
  return SMTP_BROKEN;
}

/* What one name has. DNS_OK: secure records are there; DNS_NODATA: none that count; DNS_AGAIN: it cannot be told. */
static enum dns_result ask(struct ctx *c, struct smtp_connection *n, struct str host, struct dns_answer *ret) {
  struct str name = str_printf(c->arena, "_%d._tcp.%.*s", n->port, STRF(host));
  name.taint = host.taint;
  enum dns_result r = dns_query(c, c->arena, name, DNS_TLSA, ret);
  if (r == DNS_NOMATCH || r == DNS_NODATA)
    return DNS_NODATA;
  if (r != DNS_OK)
    return DNS_AGAIN;
  if (!ret->secure)
    log_write(LOG_MAIN, c->message, "DANE error: TLSA lookup for %.*s not DNSSEC", STRF(host));
  return ret->secure ? DNS_OK : DNS_NODATA;
}

static void take_records(struct smtp_connection *n, const struct dns_answer *answer) {
  struct smtp_dane *d = &n->dane;
  d->records = arena_array(n->arena, struct tls_tlsa, TLS_TLSA_MAX);
  for (size_t i = 0; i < answer->n && d->records_n < TLS_TLSA_MAX; i++) {
    struct tls_tlsa *r = &d->records[d->records_n];
    if (!tls_tlsa_read(answer->v[i].text, r))
      continue;
    r->data = str_dup(n->arena, r->data);
    d->usage |= 1 << r->usage;
    d->records_n++;
  }
}

static void add_name(struct smtp_connection *n, struct str name) {
  struct smtp_dane *d = &n->dane;
  if (name.len && !str_ieq(name, d->base))
    d->names[d->names_n++] = str_dup(n->arena, name);
}

/* The names that a trust anchor's certificate may be for (RFC 7672, 3.2.2): the host's, before and behind secure CNAMEs, and
the domain whose secure MX record led here. */
static void take_names(struct ctx *c, struct smtp_connection *n, struct str base) {
  const struct host *h = c->host;
  n->dane.base = str_dup(n->arena, base);
  add_name(n, str_is_set(h->certname) ? h->certname : h->name);
  add_name(n, h->name);
  if (h->mx >= 0 && str_is_set(c->vars.domain))
    add_name(n, c->vars.domain);
}

int smtp_dane_look_up(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o) {
  struct host *h = c->host;
  struct dns_answer answer;
  struct str base = h->name;
  n->dane = (struct smtp_dane){.mode = smtp_dane_mode(c, o)};
  if (n->dane.mode == DANE_OFF)
    return SMTP_OK;
  if (n->dane.mode == DANE_UNKNOWN) {
    n->error = ERROR_EXPAND_FAIL;
    n->error_text = str_printf(c->arena, "failed to check hosts_require_dane: %.*s", STRF(c->error));
    return SMTP_BROKEN;
  }
  if (!h->dnssec)
    return fail(c, n, ERROR_DANE_REQUIRED, str_printf(c->arena, "%.*s lookup not DNSSEC", STRF(h->name)), "dnssec-invalid",
        "the host's records are not secure");
  enum dns_result r = ask(c, n, base, &answer);
  if (r == DNS_NODATA && str_is_set(h->certname) && h->certname.len && !str_ieq(h->certname, base)) {
    base = h->certname; /* the alias may have records of its own (RFC 7672, 2.2.2) */
    r = ask(c, n, base, &answer);
  }
  if (r == DNS_AGAIN)
    return fail(c, n, ERROR_DNS_DEFER, STR("tlsa lookup DEFER"), "dnssec-invalid", "the TLSA lookup failed or is bogus");
  if (r == DNS_NODATA)
    return n->dane.mode == DANE_REQUIRE
               ? fail(c, n, ERROR_DANE_REQUIRED, STR("tlsa lookup FAIL"), "dane-required", "there are no secure TLSA records")
               : SMTP_OK;
  take_records(n, &answer);
  take_names(c, n, base);
  n->dane.tls_required = true;
  n->dane.in_effect = n->dane.records_n > 0;
  if (!n->dane.in_effect) {
    log_write(LOG_MAIN, c->message, "DANE error: No usable TLSA records for %.*s", STRF(base));
    if (n->dane.mode == DANE_REQUIRE)
      return fail(c, n, ERROR_DANE_REQUIRED, STR("no usable TLSA records"), "tlsa-invalid", "no TLSA record is usable");
  }
  struct tls_info *info = arena_new_of(c->arena, struct tls_info);
  info->tlsa_usage = n->dane.usage;
  c->tls_out = info; /* for options that ask before the handshake */
  return SMTP_OK;
}

int smtp_dane_params(struct ctx *c, const struct smtp_connection *n, const struct smtp_client_options *o, struct tls_params *p) {
  const struct smtp_dane *d = &n->dane;
  struct str ciphers = STR_EMPTY;
  if (!d->in_effect)
    return 0;
  int rc = str_is_set(o->dane_require_tls_ciphers.text) ? expand_option(c, &o->dane_require_tls_ciphers, &ciphers) : 0;
  if (rc && rc != OUTCOME_FORCED)
    return rc;
  if (!rc && str_is_set(ciphers) && ciphers.len)
    p->ciphers = ciphers;
  p->verify = TLS_VERIFY_REQUIRED;
  p->verify_certificates = p->crl = p->verify_host = STR_EMPTY;
  p->sni = d->base;
  p->on_verify_error = NULL; /* one line says it all */
  p->tlsa = d->records;
  p->tlsa_n = d->records_n;
  p->dane_base = d->base;
  p->dane_names = d->names;
  p->dane_names_n = d->names_n;
  const char *why;
  (void)idn_domain_to_ascii(c->arena, p->dane_base, &p->dane_base, &why);
  return 0;
}
