/* `martlet tls-report [--domain D] [--until YYYY-MM-DD] [--dry-run]`: reports about TLS (RFC 8460) of the days before this one (UTC),
mailed or posted to those who asked for them; what was reported is removed. Meant for cron, once a day. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/encode.h"
#include "base/random.h"
#include "base/vec.h"
#include "cli/gzip.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "deliver/submit.h"
#include "hints/hints.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"
#include "smtp/client/https.h"
#include "smtp/client/tlsrpt.h"

#define REPORT_MAX (16u << 20)
#define RESULTS_MAX 100000
#define GZIP_TYPE "application/tlsrpt+gzip"

struct options {
  struct str domain, until;
  bool dry_run;
};

struct work {
  struct process *p;
  struct ctx *c;
  const struct options *o;
  struct str from, sender, authorities;
  VEC(struct tlsrpt_result) results;
  VEC(struct str) keys;
  int sent, failed;
};

static int usage(const char *what, struct str word) {
  fprintf(stderr, "martlet: tls-report: %s%.*s\nusage: martlet tls-report [--domain DOMAIN] [--until YYYY-MM-DD] [--dry-run]\n", what, STRF(word));
  return 1;
}

static int parse(struct process *p, struct options *o) {
  char today[16];
  struct tm tm;
  time_t now = time(NULL);
  strftime(today, sizeof today, "%Y-%m-%d", gmtime_r(&now, &tm));
  *o = (struct options){.domain = STR_UNSET, .until = str_dup(p->arena, str_c(today))};
  for (size_t i = 0; i < p->cli.args.n; i++) {
    struct str word = str_untainted(p->cli.args.v[i]), value = i + 1 < p->cli.args.n ? str_untainted(p->cli.args.v[i + 1]) : STR_UNSET;
    if (str_eq_c(word, "--dry-run")) {
      o->dry_run = true;
      continue;
    }
    if (!str_is_set(value))
      return usage("a value is missing behind, or unknown: ", word);
    if (str_eq_c(word, "--domain"))
      o->domain = str_lower(p->arena, value);
    else if (str_eq_c(word, "--until") && value.len == 10)
      o->until = value;
    else
      return usage("not understood: ", word);
    i++;
  }
  return 0;
}

/* --- the report --- */

static void add_json(struct buf *b, struct str s) {
  buf_add_byte(b, '"');
  for (size_t i = 0; i < s.len; i++) {
    unsigned char ch = (unsigned char)s.p[i];
    if (ch == '"' || ch == '\\')
      buf_printf(b, "\\%c", ch);
    else if (ch < 32 || ch > 126) /* all of it is ASCII; what is not came from a damaged store */
      buf_printf(b, "\\u%04x", ch);
    else
      buf_add_byte(b, (char)ch);
  }
  buf_add_byte(b, '"');
}

static void add_member(struct buf *b, const char *name, struct str value) {
  buf_printf(b, "\"%s\":", name);
  add_json(b, value);
}

static bool same_policy(const struct tlsrpt_result *a, const struct tlsrpt_result *b) {
  return str_eq(a->policy_type, b->policy_type) && str_eq(a->policy, b->policy);
}

static void add_policy_strings(struct buf *b, const struct tlsrpt_result *r) {
  struct str rest = r->policy;
  bool first = true;
  buf_add_c(b, ",\"policy-string\":[");
  while (str_is_set(rest)) {
    struct str line = str_trim(str_cut(&rest, '\n'));
    if (line.len == 0)
      continue;
    if (!first)
      buf_add_byte(b, ',');
    first = false;
    add_json(b, line);
  }
  buf_add_byte(b, ']');
}

/* The patterns of an MTA-STS policy's hosts. */
static void add_hosts(struct buf *b, const struct tlsrpt_result *r) {
  struct str rest = r->policy;
  bool any = false;
  while (str_is_set(rest)) {
    struct str line = str_trim(str_cut(&rest, '\n'));
    if (!str_istarts(line, STR("mx:")))
      continue;
    buf_add_c(b, any ? "," : ",\"mx-host\":[");
    any = true;
    add_json(b, str_trim(str_from(line, 3)));
  }
  if (any)
    buf_add_byte(b, ']');
}

/* The words as they were before they went into a key. */
static void add_reason(struct buf *b, struct str reason) {
  if (str_eq_c(reason, "-"))
    return;
  buf_add_c(b, ",\"failure-reason-code\":\"");
  for (size_t i = 0; i < reason.len; i++) {
    char ch = reason.p[i];
    buf_add_byte(b, ch == '_' || ch == '"' || ch == '\\' || ch < ' ' || ch > '~' ? ' ' : ch);
  }
  buf_add_byte(b, '"');
}

static void add_failure(struct buf *b, const struct tlsrpt_result *r) {
  buf_add_byte(b, '{');
  add_member(b, "result-type", r->type);
  if (!str_eq_c(r->sender, "-")) {
    buf_add_byte(b, ',');
    add_member(b, "sending-mta-ip", r->sender);
  }
  buf_add_byte(b, ',');
  add_member(b, "receiving-mx-hostname", r->mx);
  buf_add_byte(b, ',');
  add_member(b, "receiving-ip", r->receiver);
  add_reason(b, r->reason);
  buf_printf(b, ",\"failed-session-count\":%lld}", (long long)r->count);
}

/* One policy, with all that happened under it: those of v that are like the first. */
static void add_policy(struct buf *b, const struct tlsrpt_result *first, const struct tlsrpt_result *v, size_t n) {
  int64_t good = 0, bad = 0;
  bool any = false;
  buf_add_c(b, "{\"policy\":{");
  add_member(b, "policy-type", first->policy_type);
  if (first->policy.len)
    add_policy_strings(b, first);
  buf_add_byte(b, ',');
  add_member(b, "policy-domain", first->domain);
  if (str_eq_c(first->policy_type, "sts"))
    add_hosts(b, first);
  for (size_t i = 0; i < n; i++)
    if (same_policy(first, &v[i]))
      *(str_eq_c(v[i].type, "-") ? &good : &bad) += v[i].count;
  buf_printf(b, "},\"summary\":{\"total-successful-session-count\":%lld,\"total-failure-session-count\":%lld}", (long long)good, (long long)bad);
  for (size_t i = 0; i < n; i++) {
    if (!same_policy(first, &v[i]) || str_eq_c(v[i].type, "-"))
      continue;
    buf_add_c(b, any ? "," : ",\"failure-details\":[");
    add_failure(b, &v[i]);
    any = true;
  }
  buf_add_c(b, any ? "]}" : "}");
}

static struct str make_report(struct work *w, const struct tlsrpt_result *v, size_t n, struct str id) {
  struct buf b;
  bool any = false;
  buf_init(&b, w->c->arena, REPORT_MAX);
  buf_add_byte(&b, '{');
  add_member(&b, "organization-name", main_options(w->c->config)->primary_hostname);
  buf_printf(&b, ",\"date-range\":{\"start-datetime\":\"%.*sT00:00:00Z\",\"end-datetime\":\"%.*sT23:59:59Z\"},", STRF(v[0].day), STRF(v[0].day));
  add_member(&b, "contact-info", w->sender);
  buf_add_byte(&b, ',');
  add_member(&b, "report-id", id);
  buf_add_c(&b, ",\"policies\":[");
  for (size_t i = 0; i < n; i++) {
    bool seen = false;
    for (size_t k = 0; k < i && !seen; k++)
      seen = same_policy(&v[i], &v[k]);
    if (seen)
      continue;
    if (any)
      buf_add_byte(&b, ',');
    any = true;
    add_policy(&b, &v[i], v, n);
  }
  buf_add_c(&b, "]}\n");
  return b.overflow ? STR_UNSET : buf_str(&b);
}

/* --- where it goes --- */

/* One domain's, of one day. */
struct outgoing {
  const struct tlsrpt_result *about;
  struct str id, packed;
};

static void compose(struct work *w, struct submit *s, const struct outgoing *m) {
  struct arena *a = w->c->arena;
  const struct tlsrpt_result *r = m->about;
  struct str host = main_options(w->c->config)->primary_hostname, boundary = str_printf(a, "=_%016llx", (unsigned long long)random_u64());
  buf_printf(&s->header, "From: %.*s\nTo: ", STRF(w->from));
  for (size_t i = 0; i < s->recipients.n; i++)
    buf_printf(&s->header, "%s%.*s", i ? ",\n " : "", STRF(s->recipients.v[i]));
  buf_printf(&s->header, "\nSubject: Report Domain: %.*s Submitter: %.*s\n Report-ID: <%.*s>\nTLS-Report-Domain: %.*s\nTLS-Report-Submitter: %.*s\n"
      "TLS-Required: No\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n"
      "Content-Type: multipart/report; report-type=\"tlsrpt\";\n\tboundary=\"%.*s\"\n", STRF(r->domain), STRF(host), STRF(m->id), STRF(r->domain), STRF(host),
      STRF(boundary));
  buf_printf(&s->body, "--%.*s\nContent-Type: text/plain; charset=us-ascii\n\nThis is a report on the use of TLS for mail from %.*s to %.*s on %.*s (UTC).\n\n",
      STRF(boundary), STRF(host), STRF(r->domain), STRF(r->day));
  buf_printf(&s->body, "--%.*s\nContent-Type: " GZIP_TYPE "\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment;\n"
      "\tfilename=\"%.*s!%.*s!%.*s.json.gz\"\n\n", STRF(boundary), STRF(host), STRF(r->domain), STRF(r->day));
  struct str text = base64_encode(a, m->packed);
  for (size_t i = 0; i < text.len; i += 76) {
    buf_add(&s->body, str_slice(text, i, i + 76));
    buf_add_byte(&s->body, '\n');
  }
  buf_printf(&s->body, "\n--%.*s--\n", STRF(boundary));
}

static void complain(struct work *w, const struct outgoing *m, const char *what, struct str uri, struct str why) {
  struct arena *a = w->c->arena;
  fprintf(w->p->err, "martlet: tls-report: %.*s: %s %.*s%s%.*s\n", STRF(log_printable(a, m->about->domain)), what,
      STRF(log_printable(a, uri)), why.len ? ": " : "", STRF(log_printable(a, why)));
}

/* RFC 8460, section 5.5. [suspends] */
static bool post(struct work *w, const struct outgoing *m, struct str uri) {
  struct tlsrpt_uri where;
  struct str answer, error = STR("the host has no addresses");
  struct https_request r = {.url = uri, .ca = w->authorities, .type = STR(GZIP_TYPE), .body = m->packed};
  if (!tlsrpt_https_parse(uri, &where)) {
    complain(w, m, "reports cannot go to", uri, STR_EMPTY);
    return false;
  }
  r.host = where.host;
  r.port = where.port;
  r.addresses = https_addresses(w->c, where.host);
  if (r.addresses.len && https_ask(w->c, &r, &answer, &error) == 0)
    return true;
  complain(w, m, "not posted to", uri, error);
  return false;
}

static void add_recipient(struct work *w, struct submit *s, const struct outgoing *m, struct str uri) {
  struct mail_address address;
  struct str error, rest = str_from(uri, 7), text = str_cut(&rest, '?');
  if (text.len && address_parse(w->c->arena, text, 0, &address, &error) == 0 && address.domain.len)
    vec_push(w->c->arena, &s->recipients, address.address);
  else
    complain(w, m, "reports cannot go to", uri, STR_EMPTY);
}

static bool mail(struct work *w, const struct outgoing *m, struct submit *s) {
  compose(w, s, m);
  int rc = submit_message(w->c, s);
  if (rc < 0)
    fprintf(w->p->err, "martlet: tls-report: %.*s: not sent: %s\n", STRF(m->about->domain), strerror(-rc));
  return rc >= 0;
}

/* To all who asked for it. One who got it is enough: with another attempt he would get it twice. [suspends] */
static bool deliver(struct work *w, const struct outgoing *m) {
  struct str uris[TLSRPT_URIS_MAX];
  struct submit s;
  bool sent = false;
  int n = tlsrpt_destinations(w->c, m->about->domain, uris);
  submit_init(&s, w->c->arena, NULL);
  s.sender = w->sender;
  for (int i = 0; i < n; i++) {
    if (str_istarts(uris[i], STR("mailto:")))
      add_recipient(w, &s, m, uris[i]);
    else if (post(w, m, uris[i]))
      sent = true;
  }
  if (s.recipients.n > 0 && mail(w, m, &s))
    sent = true;
  w->sent += sent;
  return sent || n == 0; /* nobody wants it any more */
}

/* The results of one domain and day. [suspends] */
static bool report(struct work *w, const struct tlsrpt_result *v, size_t n) {
  struct ctx *c = w->c;
  struct outgoing m = {.about = v};
  m.id = str_printf(c->arena, "%.*s.%08x@%.*s", STRF(v[0].day), (unsigned)random_below(UINT32_MAX), STRF(main_options(c->config)->primary_hostname));
  struct str json = make_report(w, v, n, m.id);
  if (!str_is_set(json))
    return false;
  if (w->o->dry_run) {
    fwrite(json.p, 1, json.len, w->p->out);
    return true;
  }
  return gzip_text(c->arena, json, &m.packed) && deliver(w, &m);
}

static void forget(struct work *w, size_t from, size_t to) {
  for (size_t k = from; k < to && !w->o->dry_run; k++)
    (void)hints_delete(w->c, TLSRPT_DATABASE, w->keys.v[k]);
  if (!str_is_set(w->o->domain) && !w->o->dry_run)
    (void)hints_delete(w->c, TLSRPT_DATABASE, tlsrpt_size_key(w->c->arena, w->keys.v[from]));
}

/* Reports that nobody took for some days are not tried any more. */
static bool is_late(const struct tlsrpt_result *r) { return str_cmp(r->day, str_c(tlsrpt_day(time(NULL) - TLSRPT_DAYS * 86400).text)) < 0; }

/* --- all of them --- */

static bool collect(struct str key, struct str value, void *arg) {
  struct work *w = arg;
  struct tlsrpt_result r;
  struct arena *a = w->c->arena;
  key = str_dup(a, key);
  if (str_cmp(str_slice(key, 0, 10), w->o->until) >= 0 || w->results.n >= RESULTS_MAX)
    return false;
  if (!tlsrpt_decode(key, str_dup(a, value), &r) || (str_is_set(w->o->domain) && !str_eq(r.domain, w->o->domain)))
    return true;
  vec_push(a, &w->results, r);
  vec_push(a, &w->keys, key);
  return true;
}

static bool set_sender(struct work *w) {
  struct mail_address m;
  struct str error;
  if (tlsrpt_sender(w->c, &w->from)) {
    fprintf(w->p->err, "martlet: %.*s\n", STRF(w->c->error));
    return false;
  }
  if (!str_is_set(w->from) || w->from.len == 0) {
    fprintf(w->p->err, "martlet: tls-report: tls_report_sender is not set\n");
    return false;
  }
  if (str_find_byte(w->from, '\n') >= 0 || address_parse(w->c->arena, w->from, 0, &m, &error) != 0 || m.domain.len == 0) {
    fprintf(w->p->err, "martlet: tls_report_sender \"%.*s\" is not an address\n", STRF(w->from));
    return false;
  }
  w->sender = m.address;
  if (tlsrpt_authorities(w->c, &w->authorities)) {
    fprintf(w->p->err, "martlet: %.*s\n", STRF(w->c->error));
    return false;
  }
  return true;
}

int mode_tls_report(struct process *p) {
  struct options o;
  struct work w = {.p = p, .c = p->ctx, .o = &o};
  if (parse(p, &o) || !process_require_admin(p) || !set_sender(&w))
    return 1;
  if (hints_each(w.c, TLSRPT_DATABASE, collect, &w) == OUTCOME_DEFER)
    return 1;
  for (size_t i = 0, end; i < w.results.n; i = end) {
    for (end = i + 1; end < w.results.n && str_eq(w.results.v[end].day, w.results.v[i].day) && str_eq(w.results.v[end].domain, w.results.v[i].domain); end++)
      ;
    bool done = report(&w, &w.results.v[i], end - i);
    w.failed += !done;
    if (done || is_late(&w.results.v[i]))
      forget(&w, i, end);
  }
  if (!o.dry_run)
    fprintf(p->out, "%d report%s sent, %d failed\n", w.sent, w.sent == 1 ? "" : "s", w.failed);
  return w.failed > 0;
}
