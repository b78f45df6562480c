/* `martlet tls-report [--domain D] [--until YYYY-MM-DD] [--dry-run]`: reports about TLS (RFC 8460) of the days before this one (UTC),
mailed to those who asked for them; what was reported is removed. Meant for cron, once a day. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/encode.h"
#include "base/random.h"
#include "base/vec.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "deliver/submit.h"
#include "hints/hints.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"
#include "smtp/client/tlsrpt.h"

#define REPORT_MAX (16u << 20)
#define RESULTS_MAX 100000

struct options {
  struct str domain, until;
  bool dry_run;
};

struct work {
  struct process *p;
  struct ctx *c;
  const struct options *o;
  struct str from, sender;
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

static void compose(struct work *w, struct submit *s, const struct tlsrpt_result *r, struct str id, struct str json) {
  struct arena *a = w->c->arena;
  struct str host = main_options(w->c->config)->primary_hostname, boundary = str_printf(a, "=_%016llx", (unsigned long long)random_u64());
  buf_printf(&s->header, "From: %.*s\nTo: ", STRF(w->from));
  for (size_t i = 0; i < s->recipients.n; i++)
    buf_printf(&s->header, "%s%.*s", i ? ",\n " : "", STRF(s->recipients.v[i]));
  buf_printf(&s->header, "\nSubject: Report Domain: %.*s Submitter: %.*s\n Report-ID: <%.*s>\nTLS-Report-Domain: %.*s\nTLS-Report-Submitter: %.*s\n"
      "TLS-Required: No\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n"
      "Content-Type: multipart/report; report-type=\"tlsrpt\";\n\tboundary=\"%.*s\"\n", STRF(r->domain), STRF(host), STRF(id), STRF(r->domain), STRF(host),
      STRF(boundary));
  buf_printf(&s->body, "--%.*s\nContent-Type: text/plain; charset=us-ascii\n\nThis is a report on the use of TLS for mail from %.*s to %.*s on %.*s (UTC).\n\n",
      STRF(boundary), STRF(host), STRF(r->domain), STRF(r->day));
  buf_printf(&s->body, "--%.*s\nContent-Type: application/tlsrpt+json\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment;\n"
      "\tfilename=\"%.*s!%.*s!%.*s.json\"\n\n", STRF(boundary), STRF(host), STRF(r->domain), STRF(r->day));
  struct str text = base64_encode(a, json);
  for (size_t i = 0; i < text.len; i += 76) {
    buf_add(&s->body, str_slice(text, i, i + 76));
    buf_add_byte(&s->body, '\n');
  }
  buf_printf(&s->body, "\n--%.*s--\n", STRF(boundary));
}

static bool add_recipients(struct work *w, struct submit *s, struct str domain) {
  struct str uris[TLSRPT_URIS_MAX], error;
  int n = tlsrpt_destinations(w->c, domain, uris);
  for (int i = 0; i < n; i++) {
    struct mail_address m;
    struct str address = str_istarts(uris[i], STR("mailto:")) ? str_from(uris[i], 7) : STR_EMPTY, rest = address;
    address = str_cut(&rest, '?');
    if (address.len && address_parse(w->c->arena, address, 0, &m, &error) == 0 && m.domain.len)
      vec_push(w->c->arena, &s->recipients, m.address);
    else
      fprintf(w->p->err, "martlet: tls-report: %.*s: reports cannot go to %.*s\n", STRF(log_printable(w->c->arena, domain)),
          STRF(log_printable(w->c->arena, uris[i])));
  }
  return s->recipients.n > 0;
}

/* The results of one domain and day. [suspends] */
static bool report(struct work *w, const struct tlsrpt_result *v, size_t n) {
  struct ctx *c = w->c;
  struct submit s;
  struct str id = str_printf(c->arena, "%.*s.%08x@%.*s", STRF(v[0].day), (unsigned)random_below(UINT32_MAX), STRF(main_options(c->config)->primary_hostname));
  struct str json = make_report(w, v, n, id);
  if (!str_is_set(json))
    return false;
  if (w->o->dry_run) {
    fwrite(json.p, 1, json.len, w->p->out);
    return true;
  }
  submit_init(&s, c->arena, NULL);
  s.sender = w->sender;
  if (add_recipients(w, &s, v[0].domain)) { /* else nobody wants it any more */
    compose(w, &s, &v[0], id, json);
    int rc = submit_message(c, &s);
    if (rc < 0) {
      fprintf(w->p->err, "martlet: tls-report: %.*s: not sent: %s\n", STRF(v[0].domain), strerror(-rc));
      return false;
    }
    w->sent++;
  }
  return true;
}

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
    if (!report(&w, &w.results.v[i], end - i)) {
      w.failed++;
      continue;
    }
    for (size_t k = i; k < end && !o.dry_run; k++)
      (void)hints_delete(w.c, TLSRPT_DATABASE, w.keys.v[k]);
  }
  if (!o.dry_run)
    fprintf(p->out, "%d report%s sent, %d failed\n", w.sent, w.sent == 1 ? "" : "s", w.failed);
  return w.failed > 0;
}
