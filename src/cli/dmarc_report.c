/* `martlet dmarc-report [--domain D] [--until SECONDS] [--store FILE] [--dry-run]`: aggregate reports (RFC 9990) about the results in
dmarc_report_store, mailed to those who asked for them; what was reported is removed. Meant for cron, once a day. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/encode.h"
#include "base/random.h"
#include "base/vec.h"
#include "cli/gzip.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "deliver/submit.h"
#include "log/log.h"
#include "mailauth/dmarc_state.h"
#include "mailauth/dmarc_store.h"
#include "message/address.h"
#include "message/message.h"

#define REPORT_MAX (64u << 20)
#define BAR 30

struct options {
  struct str domain, store;
  int64_t until;
  bool dry_run;
};

struct work {
  struct process *p;
  struct ctx *c;
  const struct options *o;
  sqlite3 *db;
  struct dmarc_dns dns;
  struct dmarc_asker asker;
  struct str from, sender;  /* of the reports: From: and its address */
  int sent, failed;
};

static int usage(const char *what, struct str word) {
  fprintf(stderr, "martlet: dmarc-report: %s%.*s\n"
                  "usage: martlet dmarc-report [--domain DOMAIN] [--until SECONDS] [--store FILE] [--dry-run]\n", what, STRF(word));
  return 1;
}

static int parse(const struct cli *cli, struct options *o) {
  *o = (struct options){.domain = STR_UNSET, .store = STR_UNSET, .until = time(NULL) + 1};
  for (size_t i = 0; i < cli->args.n; i++) {
    struct str word = str_untainted(cli->args.v[i]), value = i + 1 < cli->args.n ? str_untainted(cli->args.v[i + 1]) : STR_UNSET;
    if (str_eq_c(word, "--dry-run")) {
      o->dry_run = true;
      continue;
    }
    if (!str_is_set(value))
      return usage("a value is missing behind, or unknown: ", word);
    if (str_eq_c(word, "--domain"))
      o->domain = value;
    else if (str_eq_c(word, "--store"))
      o->store = value;
    else if (!str_eq_c(word, "--until") || !str_to_i64(value, &o->until))
      return usage("not understood: ", word);
    i++;
  }
  return 0;
}

/* ---- the message ---- */

static void add_base64(struct arena *a, struct buf *b, struct str data) {
  struct str text = base64_encode(a, data);
  for (size_t i = 0; i < text.len; i += 76) {
    buf_add(b, str_slice(text, i, i + 76));
    buf_add_byte(b, '\n');
  }
}

static void compose(struct work *w, struct submit *s, const struct dmarc_report *r, struct str packed) {
  struct arena *a = w->c->arena;
  struct str host = main_options(w->c->config)->primary_hostname, boundary = str_printf(a, "=_%016llx", (unsigned long long)random_u64());
  buf_printf(&s->header, "From: %.*s\nTo: ", STRF(w->from));
  for (size_t i = 0; i < s->recipients.n; i++)
    buf_printf(&s->header, "%s%.*s", i ? ",\n " : "", STRF(s->recipients.v[i]));
  buf_printf(&s->header, "\nSubject: Report Domain: %.*s Submitter: %.*s\n Report-ID: <%.*s>\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n"
      "Content-Type: multipart/mixed; boundary=\"%.*s\"\n", STRF(r->domain), STRF(host), STRF(r->id), STRF(boundary));
  buf_printf(&s->body, "--%.*s\nContent-Type: text/plain; charset=us-ascii\n\nThis is a DMARC aggregate report for %.*s\nabout %d message%s that %.*s received.\n\n",
      STRF(boundary), STRF(r->domain), r->messages, r->messages == 1 ? "" : "s", STRF(host));
  buf_printf(&s->body, "--%.*s\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment;\n"
      "\tfilename=\"%.*s!%.*s!%lld!%lld.xml.gz\"\n\n", STRF(boundary), STRF(host), STRF(r->domain), (long long)r->begin, (long long)r->end);
  add_base64(a, &s->body, packed);
  buf_printf(&s->body, "\n--%.*s--\n", STRF(boundary));
}

static bool forget(struct work *w, const struct dmarc_report *r) {
  sqlite3_stmt *s = NULL;
  bool ok = sqlite3_prepare_v2(w->db, "DELETE FROM results WHERE policy_domain = ? AND received < ? AND id <= ?", -1, &s, NULL) == SQLITE_OK &&
            sqlite3_bind_text(s, 1, r->domain.p, (int)r->domain.len, SQLITE_STATIC) == SQLITE_OK && sqlite3_bind_int64(s, 2, r->until) == SQLITE_OK &&
            sqlite3_bind_int64(s, 3, r->last_row) == SQLITE_OK && sqlite3_step(s) == SQLITE_DONE;
  sqlite3_finalize(s);
  return ok;
}

/* Those of rua= that want it. [suspends] */
static void add_recipients(struct work *w, struct submit *s, const struct dmarc_report *r) {
  struct str rest = r->rua, address;
  for (int i = 0; i < DMARC_REPORT_URIS_MAX && dmarc_next_address(w->c->arena, &rest, &address); i++) {
    if (dmarc_destination_wants(w->c->arena, &w->dns, r->domain, address))
      vec_push(w->c->arena, &s->recipients, address);
    else
      fprintf(w->p->err, "martlet: dmarc-report: %.*s does not want reports about %.*s\n", STRF(log_printable(w->c->arena, address)), STRF(r->domain));
  }
}

/* One domain. False after a message. [suspends] */
static bool report(struct work *w, struct str domain) {
  struct ctx *c = w->c;
  struct str error, packed;
  struct buf xml;
  struct submit s;
  struct dmarc_report r = {.organization = main_options(c->config)->primary_hostname, .email = w->sender, .domain = domain, .until = w->o->until,
    .rua = STR_EMPTY};
  r.id = str_printf(c->arena, "%lld.%08x@%.*s", (long long)time(NULL), (unsigned)random_below(UINT32_MAX), STRF(r.organization));
  buf_init(&xml, c->arena, REPORT_MAX);
  if (!dmarc_report_write(c->arena, w->db, &r, &xml, &error)) {
    if (str_is_set(error))
      fprintf(w->p->err, "martlet: dmarc-report: %.*s: %.*s\n", STRF(domain), STRF(error));
    return !str_is_set(error);
  }
  if (w->o->dry_run) {
    fwrite(xml.p, 1, xml.len, w->p->out);
    return true;
  }
  submit_init(&s, c->arena, NULL);
  s.sender = w->sender;
  add_recipients(w, &s, &r);
  if (s.recipients.n > 0) {
    if (!gzip_text(c->arena, buf_str(&xml), &packed))
      return false;
    compose(w, &s, &r, packed);
    int rc = submit_message(c, &s);
    if (rc < 0) {
      fprintf(w->p->err, "martlet: dmarc-report: %.*s: not sent: %s\n", STRF(domain), strerror(-rc));
      return false;
    }
    w->sent++;
  }
  return forget(w, &r);
}

/* ---- all of them ---- */

static void progress(const struct work *w, size_t done, size_t all, struct str domain) {
  if (!isatty(fileno(w->p->err)))
    return;
  int full = all ? (int)(done * BAR / all) : BAR;
  fprintf(w->p->err, "\r[%.*s%*s] %zu/%zu %-40.40s", full, "##############################", BAR - full, "", done, all,
      done < all ? str_dup_c(w->c->arena, domain) : "");
  if (done == all)
    fputc('\n', w->p->err);
  fflush(w->p->err);
}

static int report_all(struct work *w) {
  VEC(struct str) domains = {0};
  sqlite3_stmt *s = NULL;
  if (sqlite3_prepare_v2(w->db, "SELECT DISTINCT policy_domain FROM results WHERE received < ? ORDER BY 1", -1, &s, NULL) != SQLITE_OK ||
      sqlite3_bind_int64(s, 1, w->o->until) != SQLITE_OK) {
    fprintf(w->p->err, "martlet: dmarc-report: %s\n", sqlite3_errmsg(w->db));
    return 1;
  }
  while (sqlite3_step(s) == SQLITE_ROW) {
    struct str domain = str_tainted(str_dup(w->c->arena, str_c((const char *)sqlite3_column_text(s, 0))));
    if (!str_is_set(w->o->domain) || str_ieq(w->o->domain, domain))
      vec_push(w->c->arena, &domains, domain);
  }
  sqlite3_finalize(s);
  for (size_t i = 0; i < domains.n; i++) {
    progress(w, i, domains.n, domains.v[i]);
    if (!report(w, domains.v[i]))
      w->failed++;
  }
  if (domains.n > 0)
    progress(w, domains.n, domains.n, STR_EMPTY);
  if (!w->o->dry_run)
    fprintf(w->p->out, "%d report%s sent, %d failed\n", w->sent, w->sent == 1 ? "" : "s", w->failed);
  return w->failed > 0;
}

static bool set_sender(struct work *w) {
  struct mail_address m;
  struct str error;
  if (dmarc_report_sender(w->c, &w->from) != 0) {
    fprintf(w->p->err, "martlet: %.*s\n", STRF(w->c->error));
    return false;
  }
  if (!str_is_set(w->from))
    w->from = submit_from(w->c);
  if (str_find_byte(w->from, '\n') >= 0 || address_parse(w->c->arena, w->from, 0, &m, &error) != 0 || m.domain.len == 0) {
    fprintf(w->p->err, "martlet: dmarc_report_sender \"%.*s\" is not an address\n", STRF(w->from));
    return false;
  }
  w->sender = m.address;
  return true;
}

int mode_dmarc_report(struct process *p) {
  struct options o;
  struct str file, error;
  struct work w = {.p = p, .c = p->ctx, .o = &o};
  if (parse(&p->cli, &o) || !process_require_admin(p))
    return 1;
  if (dmarc_store_file(p->ctx, &file) != 0) {
    fprintf(p->err, "martlet: %.*s\n", STRF(p->ctx->error));
    return 1;
  }
  if (str_is_set(o.store))
    file = o.store;
  if (!str_is_set(file))
    return usage("dmarc_report_store is not set", STR_EMPTY);
  if (!set_sender(&w) || dmarc_choose_discovery(p->ctx, &w.asker, &w.dns) == OUTCOME_ERROR)
    return 1;
  w.db = dmarc_store_open(p->arena, str_dup_c(p->arena, file), false, &error);
  if (w.db == NULL) {
    fprintf(p->err, "martlet: dmarc-report: %.*s: %.*s\n", STRF(file), STRF(error));
    return 1;
  }
  int status = report_all(&w);
  sqlite3_close(w.db);
  return status;
}
