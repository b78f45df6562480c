#include "smtp/client/tlsrpt.h"

#include <sys/socket.h>
#include <time.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "base/encode.h"
#include "base/idn.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "smtp/client/client.h"
#include "smtp/client/module.h"
#include "tls/dane.h"
#include "tls/tls.h"

#define POLICY_MAX 8192
#define RECORD_MAX 8192
#define WORD_MAX 80
#define URI_MAX 1000

int tlsrpt_record_parse(struct str text, struct str uris[TLSRPT_URIS_MAX]) {
  struct str rest = text;
  int n = 0;
  if (text.len > RECORD_MAX || !str_eq_c(str_trim(str_cut(&rest, ';')), "v=TLSRPTv1"))
    return -1;
  while (str_is_set(rest)) {
    struct str value = str_trim(str_cut(&rest, ';')), name = str_trim(str_cut(&value, '='));
    if (!str_eq_c(name, "rua"))
      continue;
    while (str_is_set(value) && n < TLSRPT_URIS_MAX) {
      struct str uri = str_trim(str_cut(&value, ','));
      if (str_istarts(uri, STR("mailto:")) || str_istarts(uri, STR("https:")))
        uris[n++] = uri;
    }
  }
  return n;
}

/* What is written here goes to libcurl: only what an honest URI needs. */
bool tlsrpt_https_parse(struct str uri, struct tlsrpt_uri *ret) {
  int64_t port = 443;
  if (uri.len > URI_MAX || !str_istarts(uri, STR("https://")))
    return false;
  for (size_t i = 0; i < uri.len; i++)
    if (uri.p[i] <= ' ' || uri.p[i] > '~' || strchr("\"<>\\^`{|}#@", uri.p[i]))
      return false;
  struct str rest = str_from(uri, 8), host = str_cut(&rest, '/');
  ptrdiff_t colon = str_find_byte(host, ':');
  if (colon >= 0) {
    if (!str_to_i64(str_from(host, (size_t)colon + 1), &port) || port < 1 || port > 65535)
      return false;
    host = str_slice(host, 0, (size_t)colon);
  }
  for (size_t i = 0; i < host.len; i++)
    if (!ascii_is_alnum(host.p[i]) && host.p[i] != '-' && host.p[i] != '.')
      return false;
  *ret = (struct tlsrpt_uri){host, (int)port};
  return host.len > 0 && host.len <= 255 && str_find_byte(host, '.') > 0;
}

int tlsrpt_destinations(struct ctx *c, struct str domain, struct str uris[TLSRPT_URIS_MAX]) {
  struct dns_answer answer;
  int found = 0, n = 0;
  if (dns_query(c, c->arena, str_cat(c->arena, STR("_smtp._tls."), domain), DNS_TXT, &answer) != DNS_OK)
    return 0;
  for (size_t i = 0; i < answer.n; i++) {
    struct str these[TLSRPT_URIS_MAX];
    int count = tlsrpt_record_parse(answer.v[i].text, these);
    if (count < 0)
      continue;
    found++;
    n = count;
    memcpy(uris, these, sizeof these);
  }
  return found == 1 ? n : 0; /* several are none (RFC 8460, section 3) */
}

static struct str next_word(struct str *rest) { return str_is_set(*rest) ? str_cut(rest, ' ') : STR_EMPTY; }

bool tlsrpt_decode(struct str key, struct str value, struct tlsrpt_result *ret) {
  struct str *const words[] = {&ret->day, &ret->domain, &ret->policy_type, &ret->type, &ret->mx, &ret->receiver, &ret->sender, &ret->reason};
  *ret = (struct tlsrpt_result){.count = 0};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if ((*words[i] = next_word(&key)).len == 0)
      return false;
  if (!str_to_i64(str_cut(&value, '\n'), &ret->count) || ret->count <= 0)
    return false;
  ret->policy = str_is_set(value) ? value : STR_EMPTY;
  return !str_is_set(key) && ret->day.len == 10;
}

/* The policy as the report shows it, one item a line. */
static struct str policy_text(struct ctx *c, const struct smtp_connection *n, bool tlsa) {
  struct buf b;
  if (!tlsa)
    return str_is_set(n->sts.text) ? n->sts.text : STR_EMPTY;
  buf_init(&b, c->arena, POLICY_MAX);
  for (size_t i = 0; i < n->dane.records_n; i++) {
    const struct tls_tlsa *r = &n->dane.records[i];
    struct str hex = hex_encode(c->arena, r->data);
    if (b.len + hex.len + 16 > POLICY_MAX)
      break;
    buf_printf(&b, "%u %u %u %.*s\n", r->usage, r->selector, r->matching, STRF(hex));
  }
  return buf_str(&b);
}

static struct str local_address(struct ctx *c, const struct smtp_connection *n) {
  struct sockaddr_storage own;
  socklen_t len = sizeof own;
  struct ip_addr ip;
  int port;
  if (!n->stream || getsockname(stream_fd(n->stream), (struct sockaddr *)&own, &len) || !ip_from_sockaddr((struct sockaddr *)&own, &ip, &port))
    return STR("-");
  return ip_text(c->arena, &ip);
}

static bool is_on(struct ctx *c, const struct smtp_connection *n) {
  struct str sender;
  return !smtp_client_options(n->transport)->callout && c->host && str_is_set(c->vars.domain) && c->vars.domain.len &&
         tlsrpt_sender(c, &sender) == 0 && str_is_set(sender) && sender.len;
}

/* RFC 8460, section 4.3.1, for a certificate that did not do. */
static const char *finer(const struct smtp_connection *n, const char *type, const char **reason) {
  if (!type || strcmp(type, "validation-failure") || *reason)
    return type;
  if (n->tls_fault.kind == TLS_FAULT_NONE && n->ocsp_status == TLS_OCSP_FAILED) {
    *reason = "the certificate's OCSP proof is missing or bad";
    return "certificate-not-trusted";
  }
  *reason = n->tls_fault.reason;
  switch (n->tls_fault.kind) {
  case TLS_FAULT_NAME: return "certificate-host-mismatch";
  case TLS_FAULT_EXPIRED: return "certificate-expired";
  case TLS_FAULT_UNTRUSTED: return "certificate-not-trusted";
  case TLS_FAULT_TLSA: *reason = "no TLSA record names the certificate"; break;
  case TLS_FAULT_NONE: break;
  }
  return type;
}

static struct str one_word(struct arena *a, const char *text) {
  struct buf b;
  buf_init(&b, a, WORD_MAX);
  for (const char *p = text ? text : "-"; *p && b.len < WORD_MAX - 1; p++)
    buf_add_byte(&b, *p == ' ' ? '_' : *p);
  return buf_str(&b);
}

void tlsrpt_note(struct ctx *c, const struct smtp_connection *n, const char *type, const char *reason) {
  struct str domain, uris[TLSRPT_URIS_MAX];
  const char *why;
  if (!is_on(c, n) || !idn_domain_to_ascii(c->arena, c->vars.domain, &domain, &why) || !tlsrpt_destinations(c, domain, uris))
    return;
  type = finer(n, type, &reason);
  bool tlsa = n->dane.tls_required || n->dane.mode == DANE_REQUIRE || (type && !strcmp(type, "dnssec-invalid"));
  bool sts = !tlsa && (n->sts.mode != STS_NONE || (type && !strncmp(type, "sts-", 4)));
  const struct host *h = c->host;
  struct str mx = str_is_set(h->certname) && h->certname.len ? h->certname : h->name, policy = policy_text(c, n, tlsa);
  tlsrpt_keep(c, time(NULL), str_printf(c->arena, "%.*s %s %s %.*s %.*s %.*s %.*s", STRF(str_lower(c->arena, domain)),
      tlsa ? "tlsa" : sts ? "sts" : "no-policy-found", type ? type : "-", STRF(mx), STRF(n->host_address), STRF(local_address(c, n)),
      STRF(one_word(c->arena, reason))), policy);
}

void tlsrpt_note_ready(struct ctx *c, const struct smtp_connection *n) {
  if (n->sts.trouble && strncmp(n->sts.trouble, "sts-", 4) == 0) /* told beside what became of the connection */
    tlsrpt_note(c, n, n->sts.trouble, NULL);
  if (!n->tls)
    tlsrpt_note(c, n, "starttls-not-supported", NULL);
  else if (n->dane.tls_required && !n->dane.in_effect)
    tlsrpt_note(c, n, "tlsa-invalid", "no TLSA record is usable");
  else if (n->sts.mode != STS_NONE && !n->dane.tls_required && !n->sts.allowed)
    tlsrpt_note(c, n, "validation-failure", "the policy does not name the host");
  else if (n->sts.mode != STS_NONE && !n->dane.tls_required && !n->tls_info->peer_verified)
    tlsrpt_note(c, n, "validation-failure", NULL);
  else
    tlsrpt_note(c, n, NULL, NULL);
}
