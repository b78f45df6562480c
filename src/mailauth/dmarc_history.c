/* dmarc_history_file, in the form that opendmarc-import reads. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/arc_sign.h"
#include "mailauth/dmarc_state.h"
#include "message/message.h"

static int spf_code(const struct dmarc_state *s) {
  static const int codes[] = {[SPF_NONE] = 6, [SPF_NEUTRAL] = 3, [SPF_PASS] = 0, [SPF_FAIL] = 7, [SPF_SOFTFAIL] = 2, [SPF_TEMPERROR] = 4,
    [SPF_PERMERROR] = 5};
  return s->spf_known ? codes[s->spf] : -1;
}

static int letter(enum dmarc_policy p) { return p == DMARC_P_UNSET ? 0 : dmarc_policy_name(p)[0]; }

/* A value is one word on its line. */
static struct str word(struct ctx *c, struct str s) {
  char *p = arena_bytes(c->arena, s.len + 1);
  for (size_t i = 0; i < s.len; i++)
    p[i] = (unsigned char)s.p[i] <= ' ' || s.p[i] == 127 ? '_' : s.p[i];
  return s.len ? str_n(p, s.len) : STR("-");
}

static void add_uris(struct ctx *c, struct buf *b, struct str list) {
  int n = 0;
  while (str_is_set(list) && n < DMARC_REPORT_URIS_MAX) {
    struct str item = str_trim(str_cut(&list, ','));
    if (item.len == 0)
      continue;
    struct str text = word(c, item);
    buf_printf(b, "rua %.*s\n", STRF(text));
    n++;
  }
  if (n == 0)
    buf_add_c(b, "rua -\n");
}

static void add_policy(struct ctx *c, struct buf *b, const struct dmarc_state *s) {
  static const int policies[] = {[DMARC_ACCEPT] = 15, [DMARC_REJECT] = 16, [DMARC_QUARANTINE] = 17, [DMARC_NONE] = 18, [DMARC_NORECORD] = 14,
    [DMARC_TEMPERROR] = 14};
  const struct dmarc_record *r = &s->found.record;
  struct str domain = word(c, s->found.any ? s->found.domain : s->found.organization);
  buf_printf(b, "pdomain %.*s\npolicy %d\n", STRF(domain), policies[s->status]);
  add_uris(c, b, s->found.any ? r->rua : STR_UNSET);
  if (s->found.any)
    buf_printf(b, "pct %d\nadkim %d\naspf %d\np %d\nsp %d\n", r->pct, r->strict_dkim ? 's' : 'r', r->strict_spf ? 's' : 'r', letter(r->p),
        letter(r->sp));
  else
    buf_add_c(b, "pct 0\nadkim 0\naspf 0\np 0\nsp 0\n");
  buf_printf(b, "align_dkim %d\nalign_spf %d\n", s->dkim_aligned ? 4 : 5, s->spf_aligned ? 4 : 5);
}

static void add_arc(struct ctx *c, struct buf *b) {
  const struct arc_verdict *arc = arc_verdict_of(c);
  enum arc_state state = arc ? arc->state : ARC_UNCHECKED;
  bool first = true;
  buf_printf(b, "arc %d\narc_policy %d json:[", state == ARC_PASS ? 0 : state == ARC_FAIL ? 7 : 6, state == ARC_PASS ? 0 : 1);
  for (int i = arc ? arc->sets : 0; i >= 1; i--) {
    struct str domain, selector;
    if (!arc_seal_names(c, i, &domain, &selector))
      continue;
    buf_printf(b, "%s{\"i\":%d,\"d\":\"%.*s\",\"s\":\"%.*s\"}", first ? "" : ",", i, STRF(domain), STRF(selector));
    first = false;
  }
  buf_add_c(b, "]\n");
}

void dmarc_history_write(struct ctx *c, const struct dmarc_state *s) {
  struct str file = STR_UNSET;
  struct buf b;
  if (expand_option(c, &main_options(c->config)->dmarc_history_file, &file) != 0 || !str_is_set(file) || file.len == 0)
    return;
  if (s->status == DMARC_OFF || s->status == DMARC_NOFROM || c->is_test)
    return;
  struct str mfrom = word(c, s->spf_domain), from = word(c, s->from), address = word(c, c->client->host_address);
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_printf(&b, "job %s\nreporter %.*s\nreceived %lld\nipaddr %.*s\nfrom %.*s\nmfrom %.*s\n", c->message->id,
      STRF(main_options(c->config)->primary_hostname), (long long)time(NULL), STRF(address), STRF(from), STRF(mfrom));
  for (int i = 0; i < s->signers; i++) {
    struct str domain = word(c, s->signer[i].domain), selector = word(c, s->signer[i].selector);
    int code = s->signer[i].pass ? 0 : str_eq_c(s->signer[i].result, "invalid") ? 5 : 7;
    buf_printf(&b, "dkim %.*s %.*s %d\n", STRF(domain), STRF(selector), code);
  }
  buf_printf(&b, "spf %d\n", spf_code(s));
  add_policy(c, &b, s);
  add_arc(c, &b);
  buf_printf(&b, "action %d\n", s->status == DMARC_REJECT ? 0 : s->status == DMARC_QUARANTINE ? 4 : s->status == DMARC_TEMPERROR ? 3 : 2);
  int fd = str_is_tainted(file) ? -1 : open(str_dup_c(c->arena, file), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
  struct str text = buf_str(&b);
  if (b.overflow || fd < 0 || write(fd, text.p, text.len) != (ssize_t)text.len)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failure to write DMARC history file %.*s: %s", STRF(file),
        str_is_tainted(file) ? "tainted name" : strerror(errno));
  if (fd >= 0)
    close(fd);
}
