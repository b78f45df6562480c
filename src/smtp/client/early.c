#include "smtp/client/early.h"

#include <errno.h>
#include <time.h>

#include "core/main_options.h"
#include "deliver/errors.h"
#include "hints/hints.h"
#include "log/log.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "transport/event.h"

#define DATABASE "misc"
#define SEPARATOR '\f'

/* A record: "time FF summary FF helo-name FF interface FF answer-in-clear FF answer-under-TLS". */
struct record {
  int64_t written;
  struct str summary, helo, interface, clear, crypted;
};

static struct str key_of(struct ctx *c, const struct smtp_connection *n) {
  return str_printf(c->arena, "%.*s:%d.EHLO", STRF(n->host_address), n->port);
}

static bool decode(struct str text, struct record *ret) {
  uint64_t when;
  if (!str_to_u64(str_cut(&text, SEPARATOR), &when) || when > INT64_MAX)
    return false;
  struct str *const parts[] = {&ret->summary, &ret->helo, &ret->interface, &ret->clear, &ret->crypted};
  ret->written = (int64_t)when;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (!str_is_set(text))
      return false;
    *parts[i] = str_cut(&text, SEPARATOR);
  }
  return !str_is_set(text);
}

static bool record_get(struct ctx *c, const struct smtp_connection *n, struct record *ret) {
  struct str text;
  return hints_get(c, DATABASE, key_of(c, n), c->arena, &text) == OUTCOME_OK && decode(text, ret) &&
         time(NULL) - ret->written <= main_options(c->config)->retry_data_expire && str_eq(ret->helo, n->helo_name) &&
         str_eq(ret->interface, n->early.interface);
}

/* A control character in the answer would end a part of the record: such an answer is not remembered. */
static struct str storable(struct str s) { return str_is_set(s) && str_find_byte(s, SEPARATOR) < 0 ? s : STR_EMPTY; }

/* Bits for exim_dumpdb, to be read by people. */
static unsigned bits(const struct smtp_offers *f) {
  return (f->starttls ? 0x1u : 0) | (f->prdr ? 0x4u : 0) | (f->utf8 ? 0x8u : 0) | (f->dsn ? 0x10u : 0) | (f->pipelining ? 0x20u : 0) |
         (f->size ? 0x40u : 0) | (f->chunking ? 0x80u : 0) | (f->early ? 0x100u : 0);
}

static struct str summary(struct ctx *c, const struct smtp_connection *n) {
  struct smtp_connection one = *n;
  struct smtp_offers clear = {.auth = false}, crypted = {.auth = false};
  one.tls = false;
  if (str_is_set(n->early.clear)) {
    smtp_note_offers(c, &one, n->early.clear);
    clear = one.offers;
  }
  one.tls = true;
  if (str_is_set(n->early.crypted)) {
    smtp_note_offers(c, &one, n->early.crypted);
    crypted = one.offers;
  }
  const struct smtp_offers *f = n->tls ? &crypted : &clear;
  return str_printf(c->arena, "clr %04x/%04x cry %04x/%04x lim %05d/%05d/%05d", bits(&clear), clear.auth, bits(&crypted), crypted.auth,
      (int)f->limit_mails, (int)f->limit_rcpts, (int)f->limit_domains);
}

static void record_put(struct ctx *c, const struct smtp_connection *n) {
  const struct smtp_early *e = &n->early;
  struct str clear = storable(e->clear), crypted = storable(e->crypted);
  if (!clear.len && !crypted.len) {
    (void)hints_delete(c, DATABASE, key_of(c, n));
    return;
  }
  (void)hints_put(c, DATABASE, key_of(c, n),
      str_printf(c->arena, "%lld\f%.*s\f%.*s\f%.*s\f%.*s\f%.*s", (long long)time(NULL), STRF(summary(c, n)), STRF(n->helo_name),
          STRF(e->interface), STRF(clear), STRF(crypted)));
}

void smtp_early_forget(struct ctx *c, struct smtp_connection *n) {
  if (n->early.watched)
    (void)hints_delete(c, DATABASE, key_of(c, n));
}

void smtp_early_prepare(struct ctx *c, struct smtp_connection *n, struct str interface) {
  const struct smtp_client_options *o = smtp_client_options(n->transport);
  struct smtp_early *e = &n->early;
  struct record r;
  *e = (struct smtp_early){.interface = str_is_set(interface) ? str_dup(n->arena, interface) : STR_EMPTY, .clear = STR_UNSET,
      .crypted = STR_UNSET};
  /* Our name is known before the connection only if it does not name our end of it. */
  bool known_name = e->interface.len || str_find(o->helo_data.text, STR("sending_ip_address")) < 0;
  e->watched = !o->callout && smtp_requiretls_mode(c, o) != REQUIRETLS_NEEDED && !o->lmtp && known_name && str_is_set(o->hosts_pipe_connect.text) &&
               match_host(c, &o->hosts_pipe_connect, n->host_name, n->host_address, NULL) == OUTCOME_OK &&
               !(str_is_set(o->hosts_avoid_esmtp.text) &&
                   match_host(c, &o->hosts_avoid_esmtp, n->host_name, n->host_address, NULL) == OUTCOME_OK);
  if (!e->watched || !record_get(c, n, &r))
    return;
  if (r.clear.len)
    e->clear = str_dup(n->arena, r.clear);
  if (r.crypted.len)
    e->crypted = str_dup(n->arena, r.crypted);
}

bool smtp_early_offers(struct ctx *c, struct smtp_connection *n) {
  struct str text = n->tls ? n->early.crypted : n->early.clear;
  if (!n->early.watched || !str_is_set(text))
    return false;
  smtp_note_offers(c, n, text);
  return n->offers.early && n->offers.pipelining;
}

void smtp_early_learn(struct ctx *c, struct smtp_connection *n) {
  struct smtp_early *e = &n->early;
  struct str *known = n->tls ? &e->crypted : &e->clear;
  if (!e->watched)
    return;
  struct str now = n->offers.early ? n->ehlo_reply : STR_UNSET;
  bool same = str_is_set(*known) == str_is_set(now) && str_eq(*known, now);
  *known = now;
  if (!same)
    record_put(c, n);
}

/* Has the server taken back what the commands that are on their way may rely on? */
static bool lacks(const struct smtp_offers *now, const struct smtp_offers *before) {
  return (before->size && !now->size) || (before->dsn && !now->dsn) || (before->prdr && !now->prdr) || (before->utf8 && !now->utf8) ||
         (before->chunking && !now->chunking) || (before->starttls && !now->starttls) || (before->auth && !now->auth) ||
         (before->limit_rcpts == 0 && now->limit_rcpts > 0) || (now->limit_rcpts > 0 && now->limit_rcpts < before->limit_rcpts) ||
         (before->limit_domains == 0 && now->limit_domains > 0);
}

/* The banner or the answer to EHLO is a refusal, or none at all. For now: the host is busy; else it may be that it does not want
to hear from us so early. A silent host is just that. */
static int failed(struct ctx *c, struct smtp_connection *n, enum smtp_stage_result r) {
  smtp_early_forget(c, n);
  n->unusable = true;
  n->stale = r == SMTP_REFUSED || (r == SMTP_BROKEN && n->error != ETIMEDOUT);
  return n->stale ? SMTP_BROKEN : r;
}

static int take_banner(struct ctx *c, struct smtp_connection *n, int64_t timeout) {
  n->early.owes_banner = false;
  enum smtp_stage_result r = smtp_expect(c, n, timeout, '2');
  if (r)
    return failed(c, n, r);
  n->greeting = str_dup(n->arena, n->reply.text);
  return smtp_greeted(c, n);
}

static int take_ehlo(struct ctx *c, struct smtp_connection *n, int64_t timeout) {
  struct smtp_offers before = n->offers;
  struct str unused;
  n->early.owes_ehlo = false;
  enum smtp_stage_result r = smtp_expect(c, n, timeout, '2');
  if (r)
    return failed(c, n, r);
  n->ehlo_reply = str_dup(n->arena, n->reply.text);
  smtp_note_offers(c, n, n->ehlo_reply);
  smtp_early_learn(c, n);
  (void)event_raise(c, n->transport, "smtp:ehlo", n->ehlo_reply, 0, &unused);
  if (!lacks(&n->offers, &before))
    return SMTP_OK;
  DEBUG(transport, "EHLO answer is not what was remembered: connecting again\n");
  return failed(c, n, SMTP_REFUSED);
}

int smtp_early_settle(struct ctx *c, struct smtp_connection *n) {
  struct str command = n->command;
  bool pipelined = n->command_pipelined;
  int64_t timeout = smtp_client_options(n->transport)->command_timeout;
  if (!smtp_early_owed(&n->early))
    return SMTP_OK;
  int e = stream_flush(n->stream);
  if (e) {
    smtp_note_broken(c, n, e);
    return failed(c, n, SMTP_BROKEN);
  }
  n->command_pipelined = true;
  int r = n->early.owes_banner ? take_banner(c, n, timeout) : SMTP_OK;
  if (!r && n->early.owes_ehlo)
    r = take_ehlo(c, n, timeout);
  n->command = command;
  n->command_pipelined = pipelined;
  return r;
}
