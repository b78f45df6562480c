#include "smtp/client/tlsrpt.h"

#include <sys/socket.h>
#include <time.h>

#include "base/buf.h"
#include "base/encode.h"
#include "base/idn.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "hints/hints.h"
#include "smtp/client/client.h"
#include "smtp/client/module.h"
#include "tls/dane.h"
#include "tls/tls.h"

#define KEY_MAX 500
#define POLICY_MAX 8192
#define RECORD_MAX 8192

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
  struct str *const words[] = {&ret->day, &ret->domain, &ret->policy_type, &ret->type, &ret->mx, &ret->receiver, &ret->sender};
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

static int add_one(struct arena *a, struct str *value, void *arg) {
  struct str old = *value, *policy = arg;
  int64_t count = 0;
  if (str_is_set(old) && !str_to_i64(str_cut(&old, '\n'), &count))
    count = 0;
  *value = str_printf(a, "%lld\n%.*s", (long long)count + 1, STRF(str_slice(*policy, 0, policy->len < POLICY_MAX ? policy->len : POLICY_MAX)));
  return 1;
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

void tlsrpt_note(struct ctx *c, const struct smtp_connection *n, const char *type) {
  struct str domain, uris[TLSRPT_URIS_MAX];
  const char *why;
  struct tm tm;
  time_t now = time(NULL);
  char day[16];
  if (!is_on(c, n) || !idn_domain_to_ascii(c->arena, c->vars.domain, &domain, &why) || !tlsrpt_destinations(c, domain, uris))
    return;
  bool tlsa = n->dane.tls_required || n->dane.mode == DANE_REQUIRE || (type && !strcmp(type, "dnssec-invalid"));
  bool sts = !tlsa && (n->sts.mode != STS_NONE || (type && !strncmp(type, "sts-", 4)));
  const struct host *h = c->host;
  struct str mx = str_is_set(h->certname) && h->certname.len ? h->certname : h->name, policy = policy_text(c, n, tlsa);
  strftime(day, sizeof day, "%Y-%m-%d", gmtime_r(&now, &tm));
  struct str key = str_printf(c->arena, "%s %.*s %s %s %.*s %.*s %.*s", day, STRF(str_lower(c->arena, domain)),
      tlsa ? "tlsa" : sts ? "sts" : "no-policy-found", type ? type : "-", STRF(mx), STRF(n->host_address), STRF(local_address(c, n)));
  if (key.len <= KEY_MAX)
    (void)hints_update(c, TLSRPT_DATABASE, key, add_one, &policy);
}

void tlsrpt_note_ready(struct ctx *c, const struct smtp_connection *n) {
  if (n->sts.trouble && strncmp(n->sts.trouble, "sts-", 4) == 0) /* told beside what became of the connection */
    tlsrpt_note(c, n, n->sts.trouble);
  if (!n->tls)
    tlsrpt_note(c, n, "starttls-not-supported");
  else if (n->sts.mode != STS_NONE && !n->dane.tls_required && (!n->sts.allowed || !n->tls_info->peer_verified))
    tlsrpt_note(c, n, "validation-failure");
  else
    tlsrpt_note(c, n, NULL);
}
