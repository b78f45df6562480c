/* Failure reports: what RFC 9991 (before it RFC 7489, section 7.3) asks for, in the form of RFC 6591. */
#include <time.h>

#include "base/encode.h"
#include "base/random.h"
#include "base/time.h"
#include "core/build.h"
#include "core/main_options.h"
#include "deliver/submit.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/dmarc_state.h"
#include "message/address.h"
#include "message/message.h"

#define HEADER_BYTES_MAX (64u << 10) /* of the message's header in a report */
#define REMEMBERED 64
#define SECONDS_BETWEEN 60           /* reports about one domain, by one process */

bool dmarc_next_address(struct arena *a, struct str *rest, struct str *ret) {
  while (str_is_set(*rest)) {
    struct str item = str_trim(str_cut(rest, ',')), decoded, error;
    struct mail_address m;
    if (!str_istarts(item, STR("mailto:")))
      continue;
    item = str_from(item, 7);
    item = str_cut(&item, '!');
    item = str_cut(&item, '?');
    if (!url_decode(a, item, &decoded) || address_parse(a, decoded, 0, &m, &error) != 0 || m.domain.len == 0 || m.local_part.len == 0)
      continue;
    *ret = str_tainted(m.address);
    return true;
  }
  return false;
}

bool dmarc_destination_wants(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct str address) {
  struct dmarc_found theirs, ours;
  struct dns_answer answer;
  struct str local, host;
  address_split(address, &local, &host);
  host = str_lower(a, host);
  if (str_ieq(host, domain))
    return true;
  dmarc_find(a, dns, host, &theirs);
  dmarc_find(a, dns, domain, &ours);
  if (!theirs.trouble && !ours.trouble && str_ieq(theirs.organization, ours.organization))
    return true;
  struct str name = str_tainted(str_printf(a, "%.*s._report._dmarc.%.*s", STRF(domain), STRF(host)));
  if (name.len > 253 || dns->query(dns->arg, a, name, DNS_TXT, &answer) != DNS_OK)
    return false;
  for (size_t i = 0; i < answer.n; i++)
    if (dmarc_is_record(answer.v[i].text))
      return true;
  return false;
}

/* ---- whether ---- */

/* fo=: which failures are of interest; all of those that come here failed as a whole. */
static bool options_allow(const struct dmarc_state *s) {
  struct str rest = s->found.record.fo;
  if (!str_is_set(rest))
    return true;
  while (str_is_set(rest)) {
    struct str item = str_trim(str_cut(&rest, ':'));
    if (str_eq_c(item, "0") || str_eq_c(item, "1"))
      return true;
    if (str_eq_c(item, "s") && s->spf_known && s->spf != SPF_PASS)
      return true;
    for (int i = 0; i < s->signers && str_eq_c(item, "d"); i++)
      if (!s->signer[i].pass)
        return true;
  }
  return false;
}

/* Bounces and reports are not reported: two systems could go on for ever. */
static bool is_automatic(const struct ctx *c) {
  const struct message *m = c->message;
  const struct header *h = message_find_header(m, STR("Auto-Submitted"), NULL), *type = message_find_header(m, STR("Content-Type"), NULL);
  return m->reverse_path.len == 0 || (h && !str_ieq_c(header_value(h), "no")) ||
         (type && str_istarts(header_value(type), STR("multipart/report")));
}

/* One report about a domain in a while. */
static bool is_too_soon(struct str domain) {
  static struct {
    uint64_t domain;
    int64_t when;
  } recent[REMEMBERED];
  static unsigned next;
  uint64_t hash = str_ihash(domain);
  int64_t now = time(NULL);
  for (unsigned i = 0; i < REMEMBERED; i++)
    if (recent[i].domain == hash && recent[i].when + SECONDS_BETWEEN > now && recent[i].when <= now)
      return true;
  recent[next].domain = hash;
  recent[next].when = now;
  next = (next + 1) % REMEMBERED;
  return false;
}

/* ---- the report ---- */

/* From: and the envelope sender. */
static bool set_sender(struct ctx *c, struct submit *s, struct str *ret_from) {
  struct str text = STR_UNSET, error;
  struct mail_address m;
  int rc = expand_option(c, &main_options(c->config)->dmarc_forensic_sender, &text);
  if (rc != 0 && rc != OUTCOME_FORCED) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand dmarc_forensic_sender: %.*s", STRF(c->error));
    return false;
  }
  *ret_from = rc == 0 && str_is_set(text) ? str_trim(text) : STR_EMPTY;
  if (ret_from->len == 0) {
    *ret_from = submit_from(c);
    return true;
  }
  if (str_find_byte(*ret_from, '\n') >= 0 || address_parse(c->arena, *ret_from, 0, &m, &error) != 0) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "dmarc_forensic_sender \"%.*s\" is not an address", STRF(*ret_from));
    return false;
  }
  s->sender = m.domain.len ? m.address
                           : str_printf(c->arena, "%.*s@%.*s", STRF(m.address), STRF(main_options(c->config)->qualify_domain));
  return true;
}

static void add_feedback(struct ctx *c, struct buf *b, const struct dmarc_state *s) {
  const struct message *m = c->message;
  struct str results = STR_EMPTY, text = STR("${authresults{$primary_hostname}}");
  buf_printf(b, "Feedback-Type: auth-failure\nVersion: 1\nUser-Agent: Martlet/%s\nAuth-Failure: dmarc\n", build.version);
  buf_printf(b, "Identity-Alignment: %s\n", s->spf_aligned ? "dkim" : s->dkim_aligned ? "spf" : "dkim, spf");
  if (str_is_set(c->client->host_address))
    buf_printf(b, "Source-IP: %.*s\n", STRF(c->client->host_address));
  buf_printf(b, "Reported-Domain: %.*s\nOriginal-Mail-From: <%.*s>\n", STRF(s->from), STRF(log_printable(c->arena, m->reverse_path)));
  buf_printf(b, "Arrival-Date: %.*s\n", STRF(time_rfc2822(c->arena, time(NULL))));
  const struct header *id = message_find_header(m, STR("Message-ID"), NULL);
  if (id)
    buf_printf(b, "Original-Envelope-Id: %s\n", m->id);
  if (expand_text(c, text, &results) == 0 && results.len > 0)
    buf_printf(b, "%.*s\n", STRF(str_rtrim(results)));
}

static void add_header(struct buf *b, const struct message *m) {
  size_t from = b->len;
  for (const struct header *h = m->headers; h && b->len - from < HEADER_BYTES_MAX; h = h->next)
    if (h->type != HEADER_DELETED && h->text.len < HEADER_BYTES_MAX)
      buf_add(b, h->text);
}

static void compose(struct ctx *c, struct submit *s, const struct dmarc_state *state, struct str from) {
  const struct message *m = c->message;
  struct str boundary = str_printf(c->arena, "=_%s_%08x", m->id, (unsigned)random_below(UINT32_MAX));
  const struct header *id = message_find_header(m, STR("Message-ID"), NULL);
  buf_printf(&s->header, "From: %.*s\nTo: ", STRF(from));
  for (size_t i = 0; i < s->recipients.n; i++)
    buf_printf(&s->header, "%s%.*s", i ? ",\n " : "", STRF(s->recipients.v[i]));
  buf_printf(&s->header, "\nSubject: DMARC failure report for %.*s\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n"
      "Content-Type: multipart/report; report-type=feedback-report;\n\tboundary=\"%.*s\"\n", STRF(state->from), STRF(boundary));
  if (id && header_value(id).len < 900)
    buf_printf(&s->header, "References: %.*s\n", STRF(header_value(id)));
  buf_printf(&s->body, "--%.*s\nContent-Type: text/plain; charset=us-ascii\n\n"
      "A message in the name of %.*s came from %.*s\nand was not authenticated: neither SPF nor DKIM vouches for that domain.\n"
      "Its policy (of %.*s) is \"%s\".\n\n", STRF(boundary), STRF(state->from), STRF(c->client->host_address), STRF(state->found.domain),
      dmarc_policy_name(state->found.policy));
  buf_printf(&s->body, "--%.*s\nContent-Type: message/feedback-report\n\n", STRF(boundary));
  add_feedback(c, &s->body, state);
  buf_printf(&s->body, "\n--%.*s\nContent-Type: text/rfc822-headers\n\n", STRF(boundary));
  add_header(&s->body, m);
  buf_printf(&s->body, "\n--%.*s--\n", STRF(boundary));
}

void dmarc_failure_report(struct ctx *c, const struct dmarc_dns *dns, const struct dmarc_state *state) {
  struct submit s;
  struct str rest = state->found.record.ruf, address, from;
  bool failed = state->status == DMARC_REJECT || state->status == DMARC_QUARANTINE || state->status == DMARC_NONE;
  if (!state->forensic || !failed || !str_is_set(rest) || c->is_test || is_automatic(c) || !options_allow(state))
    return;
  submit_init(&s, c->arena, c->message);
  for (int i = 0; i < DMARC_REPORT_URIS_MAX && dmarc_next_address(c->arena, &rest, &address); i++) {
    if (dmarc_destination_wants(c->arena, dns, state->found.domain, address))
      vec_push(c->arena, &s.recipients, address);
    else
      DEBUG(acl, "DMARC: %.*s does not want reports about %.*s\n", STRF(address), STRF(state->found.domain));
  }
  if (s.recipients.n == 0 || !set_sender(c, &s, &from) || is_too_soon(state->found.domain))
    return;
  compose(c, &s, state, from);
  int rc = submit_message(c, &s);
  if (rc < 0)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "DMARC failure report for %.*s could not be written: %s", STRF(state->found.domain), strerror(-rc));
}
