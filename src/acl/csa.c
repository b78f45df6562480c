/* `verify = csa` (Exim manual, section "Client SMTP authorization"). */
#include "acl/internal.h"
#include "dns/dns.h"
#include "log/log.h"

/* What is known of the client by this name; the words of $csa_status. */
enum csa { CSA_UNKNOWN, CSA_OK, CSA_DEFER_SRV, CSA_DEFER_ADDRESS, CSA_FAIL_EXPLICIT, CSA_FAIL_DOMAIN, CSA_FAIL_NOADDRESS, CSA_FAIL_MISMATCH };

static const struct {
  const char *status, *reason;
} texts[] = {
    [CSA_UNKNOWN] = {"unknown", NULL}, [CSA_OK] = {"ok", NULL}, [CSA_DEFER_SRV] = {"defer", "SRV lookup deferred"},
    [CSA_DEFER_ADDRESS] = {"defer", "target address lookup deferred"}, [CSA_FAIL_EXPLICIT] = {"fail", "explicit authorization required"},
    [CSA_FAIL_DOMAIN] = {"fail", "host name not authorized"}, [CSA_FAIL_NOADDRESS] = {"fail", "no authorized addresses"},
    [CSA_FAIL_MISMATCH] = {"fail", "client address mismatch"},
};

static enum csa check_addresses(struct ctx *c, struct str target) {
  const struct ip_addr *client = &c->client->ip;
  struct dns_answer answer;
  enum dns_result r = dns_query(c, c->arena, target, client->family == AF_INET6 ? DNS_AAAA : DNS_A, &answer);
  if (r == DNS_AGAIN || r == DNS_FAIL)
    return CSA_DEFER_ADDRESS;
  if (r != DNS_OK || answer.n == 0)
    return CSA_FAIL_NOADDRESS;
  for (size_t i = 0; i < answer.n; i++)
    if (ip_eq(&answer.v[i].ip, client))
      return CSA_OK;
  return CSA_FAIL_MISMATCH;
}

static enum csa check(struct ctx *c, struct str domain) {
  struct dns_record record;
  char code;
  switch (dns_find_csa(c, c->arena, domain, &record, &code)) {
    case DNS_OK: break;
    case DNS_AGAIN:
    case DNS_FAIL: return CSA_DEFER_SRV;
    default: return CSA_UNKNOWN;
  }
  switch (code) {
    case 'N': return CSA_FAIL_DOMAIN;
    case 'X': return CSA_FAIL_EXPLICIT;
    case 'Y': return check_addresses(c, record.text);
    default: return CSA_UNKNOWN;
  }
}

int acl_verify_csa(struct ctx *c, struct str domain) {
  struct acl_session *s = acl_session(c);
  const struct client *cl = c->client;
  enum csa result;
  if (!s || cl->ip.family == 0) {
    result = CSA_OK; /* a local caller is not a host that could lack permission */
  } else {
    if (!str_is_set(domain) || domain.len == 0)
      domain = str_is_set(cl->helo_name) && cl->helo_name.len ? cl->helo_name : cl->host_address;
    result = check(c, domain);
    DEBUG(acl, "CSA result is %s\n", texts[result].status);
  }
  if (s)
    s->csa_status = texts[result].status;
  if (!texts[result].reason)
    return OUTCOME_OK;
  c->log_message = str_printf(c->arena, "client SMTP authorization %s", texts[result].reason);
  c->vars.acl_verify_message = c->log_message;
  if (str_eq_c(str_c(texts[result].status), "fail")) {
    c->user_message = c->log_message;
    return OUTCOME_FAIL;
  }
  return OUTCOME_OK;
}
