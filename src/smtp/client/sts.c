#include "smtp/client/sts.h"

#include <errno.h>
#include <time.h>

#include "base/idn.h"
#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "hints/hints.h"
#include "log/log.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "smtp/client/https.h"
#include "smtp/client/tlsrpt.h"
#include "tls/tls.h"

#define DATABASE "mta-sts"
#define FAILED_PAUSE 300  /* seconds until a policy that could not be had is asked for again (RFC 8461, 3.3) */

/* A record: "fetched expires tried id\npolicy"; tried: when a newer one could not be had. */
struct known {
  int64_t fetched, expires, tried;
  struct str id, text;
};

static bool known_get(struct ctx *c, struct str domain, struct known *ret) {
  struct str value, head;
  *ret = (struct known){.id = STR_EMPTY, .text = STR_EMPTY};
  if (hints_get(c, DATABASE, domain, c->arena, &value) != OUTCOME_OK)
    return false;
  head = str_cut(&value, '\n');
  int64_t *const numbers[] = {&ret->fetched, &ret->expires, &ret->tried};
  for (size_t i = 0; i < 3; i++)
    if (!str_is_set(head) || !str_to_i64(str_cut(&head, ' '), numbers[i]))
      return false;
  ret->id = str_is_set(head) ? head : STR_EMPTY;
  ret->text = str_is_set(value) ? value : STR_EMPTY;
  return true;
}

static void known_put(struct ctx *c, struct str domain, const struct known *k) {
  (void)hints_put(c, DATABASE, domain, str_printf(c->arena, "%lld %lld %lld %.*s\n%.*s", (long long)k->fetched, (long long)k->expires,
      (long long)k->tried, STRF(k->id), STRF(k->text)));
}

/* The id that the zone tells. OUTCOME_OK, _FAIL: there is no policy, _DEFER: it cannot be told. */
static int zone_id(struct ctx *c, struct str domain, struct str *ret) {
  struct dns_answer answer;
  struct str id, name = str_cat(c->arena, STR("_mta-sts."), domain);
  size_t found = 0;
  enum dns_result r = dns_query(c, c->arena, name, DNS_TXT, &answer);
  if (r == DNS_AGAIN || r == DNS_FAIL)
    return OUTCOME_DEFER;
  for (size_t i = 0; r == DNS_OK && i < answer.n; i++) {
    int e = sts_record_parse(answer.v[i].text, &id);
    if (e == -1)
      continue;
    found += e == 0 ? 1 : 2;
    *ret = id;
  }
  return found == 1 ? OUTCOME_OK : OUTCOME_FAIL;
}

static bool fetch(struct ctx *c, const struct smtp_client_options *o, struct str domain, struct str id, struct known *k,
    const char **ret_trouble) {
  struct str host = str_cat(c->arena, STR("mta-sts."), domain), ca = STR("system"), text = STR_EMPTY, error = STR("no addresses");
  struct sts_policy policy;
  int64_t now = time(NULL);
  struct str addresses = https_addresses(c, host);
  struct https_request request = {.host = host, .port = 443, .url = str_printf(c->arena, "https://%.*s/.well-known/mta-sts.txt", STRF(host)),
      .addresses = addresses, .type = STR_EMPTY, .body = STR_EMPTY};
  int e = -1;
  *ret_trouble = "sts-policy-fetch-error";
  if (expand_option(c, &o->mta_sts_verify_certificates, &ca)) {
    error = c->error;
  } else if (addresses.len) {
    request.ca = ca;
    e = https_ask(c, &request, &text, &error);
  }
  if (!e && sts_policy_parse(text, &policy)) {
    error = STR("the policy is not understood");
    *ret_trouble = "sts-policy-invalid";
    e = -1;
  }
  if (e == -EKEYREJECTED)
    *ret_trouble = "sts-webpki-invalid";
  if (e) {
    log_write(LOG_MAIN, c->message, "MTA-STS: the policy of %.*s cannot be had: %.*s", STRF(domain), STRF(log_printable(c->arena, error)));
    k->tried = now;
    known_put(c, domain, k);
    return false;
  }
  *ret_trouble = NULL;
  *k = (struct known){now, now + policy.max_age, 0, id, text};
  known_put(c, domain, k);
  return true;
}

/* The policy in force. A remembered one outlives trouble with the zone and the web server (RFC 8461, 5.1). */
static bool find_policy(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o, struct str *ret) {
  struct known k;
  struct str id = STR_EMPTY, domain = n->sts.domain;
  int64_t now = time(NULL);
  bool have = known_get(c, domain, &k) && k.text.len && k.expires > now;
  if (!have)
    k.text = STR_EMPTY;
  int found = zone_id(c, domain, &id);
  bool other = found == OUTCOME_OK && (!have || !str_eq(id, k.id) || now - k.fetched > (k.expires - k.fetched) / 2);
  if (other && now - k.tried < FAILED_PAUSE) {
    n->sts.trouble = have ? NULL : "sts-policy-fetch-error";
    other = false;
  }
  if (other && fetch(c, o, domain, id, &k, &n->sts.trouble))
    have = true;
  *ret = k.text;
  return have;
}

bool smtp_sts_watches(struct ctx *c, const struct smtp_client_options *o) {
  return str_is_set(o->hosts_try_mta_sts.text) && c->host->mx >= 0 &&
         match_host(c, &o->hosts_try_mta_sts, c->host->name, c->host->address, NULL) == OUTCOME_OK;
}

int smtp_sts_look_up(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o) {
  struct sts_policy policy;
  struct str ascii, text;
  const char *why;
  n->sts = (struct smtp_sts){.watched = smtp_sts_watches(c, o), .domain = STR_EMPTY, .text = STR_EMPTY};
  if (!n->sts.watched || !str_is_set(c->vars.domain) || !idn_domain_to_ascii(c->arena, c->vars.domain, &ascii, &why))
    return SMTP_OK;
  n->sts.domain = str_lower(n->arena, ascii);
  if (n->dane.tls_required || n->requiretls == REQUIRETLS_RELAXED) /* RFC 8461, section 2: DANE has the say where it is */
    return SMTP_OK;
  if (!find_policy(c, n, o, &text) || sts_policy_parse(text, &policy))
    return SMTP_OK;
  const struct host *h = c->host;
  struct str name = str_is_set(h->certname) && h->certname.len ? h->certname : h->name;
  n->sts.text = str_dup(n->arena, text);
  n->sts.mode = policy.mode;
  n->sts.allowed = sts_policy_allows(&policy, name);
  if (policy.mode == STS_NONE || n->sts.allowed)
    return SMTP_OK;
  struct str about = str_printf(c->arena, "MTA-STS: %.*s is none of the hosts in the policy of %.*s", STRF(name), STRF(n->sts.domain));
  if (policy.mode == STS_TESTING) {
    log_write(LOG_MAIN, c->message, "%.*s (testing)", STRF(about));
    return SMTP_OK;
  }
  tlsrpt_note(c, n, "validation-failure", "the policy does not name the host");
  n->error = ERROR_STS_POLICY;
  n->error_text = about;
  return SMTP_BROKEN;
}

void smtp_sts_params(const struct ctx *c, const struct smtp_connection *n, struct tls_params *p) {
  const struct host *h = c->host;
  if (n->sts.mode == STS_NONE)
    return;
  if (str_trim(p->verify_certificates).len == 0)
    p->verify_certificates = STR("system");
  p->verify_host = str_is_set(h->certname) && h->certname.len ? h->certname : h->name;
  if (n->sts.mode == STS_ENFORCE)
    p->verify = TLS_VERIFY_REQUIRED;
  else if (p->verify == TLS_VERIFY_NONE)
    p->verify = TLS_VERIFY_OPTIONAL;
  p->sni = p->verify_host; /* RFC 8461, 4: the server may have several certificates */
}
