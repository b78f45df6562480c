/* The lmtp transport: LMTP (RFC 2033) to a command's standard input and output
or to a Unix domain socket, as the recipient's user (Exim manual, chapter "The
lmtp transport"). plan_lmtp.c speaks the protocol. */

#include <errno.h>

#include "base/buf.h"
#include "deliver/errors.h"
#include "log/log.h"
#include "transport/command.h"
#include "transport/local.h"
#include "transport/options.h"
#include "transport/transport.h"

struct lmtp {
  struct transport_batch batch;
  struct option_expr command, socket;
  bool ignore_quota;
  int64_t timeout;
};

#define OFF(f) offsetof(struct lmtp, f)
static const struct option_def lmtp_options[] = {
    {"batch_id", OPTION_EXPR, OFF(batch.id)},
    {"batch_max", OPTION_INT, OFF(batch.max), "1"},
    {"command", OPTION_EXPR, OFF(command)},
    {"ignore_quota", OPTION_BOOL, OFF(ignore_quota)},
    {"socket", OPTION_EXPR, OFF(socket)},
    {"timeout", OPTION_TIME, OFF(timeout), "5m"},
    OPTIONS_END,
};

static int lmtp_init(struct config_reader *r, struct instance *i) {
  const struct lmtp *o = i->options;
  if (str_is_set(o->command.text) == str_is_set(o->socket.text))
    return config_error_at(r, i->where, "one (and only one) of command or socket must be set for the %.*s transport", STRF(i->name));
  return 0;
}

static const struct transport_batch *lmtp_batch(const struct instance *t) { return &((const struct lmtp *)t->options)->batch; }

static bool target(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct lmtp *o = t->options;
  struct command made;
  if (str_is_set(o->socket.text)) {
    if (!local_expand(c, t, chain, &o->socket, "socket setting", &p->path)) {
      for (struct address *a = chain; a; a = a->next)
        a->panic = false;
      return false;
    }
    if (!str_is_tainted(p->path) && p->path.len && p->path.p[0] == '/' && !memchr(p->path.p, 0, p->path.len))
      return true;
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "socket \"%.*s\" of the %.*s transport is %s", STRF(p->path), STRF(t->name),
            str_is_tainted(p->path) ? "tainted" : "no absolute path"));
    return false;
  }
  int e = command_build(c, o->command.text, true, chain, STR_UNSET, str_printf(c->arena, "%.*s transport", STRF(t->name)), &made);
  if (!e && (str_is_tainted(made.argv[0]) || made.tainted)) {
    size_t n = str_is_tainted(made.argv[0]) ? 0 : made.tainted;
    e = ctx_fail(c, OUTCOME_FAIL, "Tainted arg %zu for %.*s transport command: '%.*s'", n, STRF(t->name), STRF(made.argv[n]));
  }
  if (!e && !str_starts(made.argv[0], STR("/")))
    e = ctx_fail(c, OUTCOME_DEFER, "\"%.*s\" (command for %.*s transport) is no absolute path", STRF(made.argv[0]), STRF(t->name));
  if (e) {
    transport_chain_result(chain, (enum outcome)e, ERROR_UNKNOWN, c->error);
    return false;
  }
  p->argv = made.argv;
  p->argv_n = (int64_t)made.n;
  return true;
}

/* One line a recipient: outcome, error, text. */
static void take_results(struct ctx *c, struct address *chain, const struct plan_result *r) {
  int64_t i = 0;
  struct address *a = chain;
  for (; a && i + 2 < r->recipients_n; a = a->next, i += 3) {
    int64_t outcome = OUTCOME_DEFER, error = ERROR_UNKNOWN;
    (void)str_to_i64(r->recipients[i], &outcome);
    (void)str_to_i64(r->recipients[i + 1], &error);
    struct str text = str_tainted(log_printable(c->arena, r->recipients[i + 2]));
    a->result = outcome == OUTCOME_OK || outcome == OUTCOME_FAIL ? (enum outcome)outcome : OUTCOME_DEFER;
    a->basic_errno = (int)error;
    a->panic = false;
    if (a->result == OUTCOME_OK) {
      a->confirmation = text;
      a->message = STR_UNSET;
    } else {
      a->message = text;
      a->pass_message = a->result == OUTCOME_FAIL;
    }
  }
  for (; a; a = a->next) { /* more than a plan takes: for the next run */
    a->result = OUTCOME_DEFER;
    if (r->outcome != OUTCOME_OK)
      continue;
    a->basic_errno = ERROR_UNKNOWN;
    a->message = STR("not among those that were delivered at one time");
  }
}

static void lmtp_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct lmtp *o = t->options;
  struct transport_message message;
  struct plan p;
  struct plan_result result;
  size_t n = 0;
  if (!local_plan_prepare(c, t, chain, &p, &message) || !target(c, t, chain, &p))
    return;
  for (const struct address *a = chain; a; a = a->next)
    n++;
  p.kind = PLAN_LMTP;
  p.sender = chain->return_path;
  p.recipients = arena_array(c->arena, struct str, n + 1);
  for (const struct address *a = chain; a && p.recipients_n < PLAN_ARGS_MAX; a = a->next)
    p.recipients[p.recipients_n++] = transport_options(t)->rcpt_include_affixes ? a->address : address_without_affixes(c->arena, a);
  p.timeout = o->timeout;
  p.ignore_quota = o->ignore_quota;
  p.check_string = STR(".");
  p.escape_string = STR("..");
  p.use_crlf = true;
  local_plan_run(c, t, chain, &p, &result);
  take_results(c, chain, &result);
}

const struct transport_def transport_lmtp = {
    .driver = {.name = "lmtp", .class = DRIVER_TRANSPORT, .options = lmtp_options, .options_size = sizeof(struct lmtp),
        .summary = "LMTP to a command or a socket", .init = lmtp_init},
    .local = true,
    .batch = lmtp_batch,
    .deliver = lmtp_deliver,
};
