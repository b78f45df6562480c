/* Modes that take a message in: -bm, -t, -bs, -bS, -bh. What they accept is
delivered by this process (-odi), by the daemon or a child (-odb), or waits
(-odq). */

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/queue_modes.h"
#include "core/build.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "deliver/deliver.h"
#include "deliver/msglog.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "loop/stream.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "smtp/local.h"
#include "smtp/server/server.h"

/* One run of the mode; in the daemon there may be many at a time. Messages accepted by a process of their own are delivered
when the input has ended, or one by one with -odi. */
struct receive_run {
  struct process *p;
  struct queue_mode_kept kept;
  bool foreground, failed;
};

static void accepted(void *arg, struct ctx *c, struct message *m, bool queue) {
  struct receive_run *run = arg;
  bool alone = main_options(c->config)->mua_wrapper; /* delivered at once, whatever anybody says */
  if (!alone && (queue || m->frozen)) {
    msglog_begin(c, m);
    message_free(m);
    return;
  }
  if (run->foreground || alone) {
    m->foreground = true;
    deliver_take_over(c, m);
    run->failed |= !queue_mode_deliver_kept(&run->kept);
    return;
  }
  if (build.deliver_without_daemon) {
    deliver_take_over(c, m);
    return;
  }
  /* Its lock goes first: the daemon may look before daemon_notify is back. */
  struct str id = str_c(str_dup_c(run->p->arena, str_c(m->id))), queue_name = str_dup(run->p->arena, m->queue_name);
  message_free(m);
  if (!daemon_notify(run->p->config, id.p, queue_name) && spool_read_message(c, queue_name, id, true, &m) == SPOOL_OK)
    deliver_take_over(c, m);
}

/* In the daemon: the worker has queue and deliveries. */
static void accepted_here(void *arg, struct ctx *c, struct message *m, bool queue) {
  struct receive_run *run = arg;
  const struct cli *o = &run->p->cli;
  struct daemon_delivery how = {.wait = run->foreground, .queue_smtp = o->delivery_given && o->delivery == DELIVER_QUEUE_SMTP,
      .no_delivery = o->no_delivery};
  daemon_take_message(c, m, queue, &how);
}

/* Without a daemon: a child delivers what is kept, so that the caller has his prompt back. The locks on the messages do not
pass to a child: it reads them again. */
static int deliver_in_background(struct receive_run *run) {
  VEC(struct str) ids = {0}, queues = {0};
  struct message *w;
  while ((w = queue_mode_take_kept(&run->kept))) {
    vec_push(run->p->arena, &ids, str_dup(run->p->arena, str_c(w->id)));
    vec_push(run->p->arena, &queues, str_dup(run->p->arena, w->queue_name));
    message_free(w);
  }
  if (!ids.n)
    return 0;
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "cannot fork for delivery; the message waits in the queue");
  if (pid != 0)
    return 0;
  setsid();
  loop_reinit();
  for (size_t i = 0; i < ids.n; i++) {
    struct message *m = NULL;
    if (spool_read_message(run->p->ctx, queues.v[i], ids.v[i], true, &m) == SPOOL_OK)
      deliver_take_over(run->p->ctx, m);
  }
  (void)queue_mode_deliver_kept(&run->kept);
  smtp_pool_close_all();
  log_done();
  _exit(0);
}

static bool must_queue(void *arg, struct ctx *c, int messages, struct str *ret_why) {
  struct receive_run *run = arg;
  const struct main_options *o = main_options(c->config);
  *ret_why = STR_EMPTY;
  struct cli *cli = &run->p->cli;
  bool asked = cli->delivery_given && cli->delivery == DELIVER_QUEUE;
  bool overridden = o->queue_only_override && cli->delivery_given;
  /* queue_only_file holds even against -odi, whatever the manual says: so does Exim's. */
  if (asked || (o->queue_only && !overridden) || daemon_queue_only_file(o, c->arena))
    return true;
  if (run->p->served && !overridden && daemon_must_queue(c, messages, ret_why))
    return true;
  if (o->smtp_accept_queue_per_connection > 0 && messages > o->smtp_accept_queue_per_connection) {
    *ret_why = str_printf(c->arena, "more than %lld messages received in one connection",
        (long long)o->smtp_accept_queue_per_connection);
    return true;
  }
  return false;
}

static bool peer_address(struct process *p, struct str text, struct ip_addr *ip, int *port) {
  if (!str_is_set(text) || !text.len)
    return true;
  if (ip_parse_port(text, ip, port))
    return true;
  fprintf(p->err, "martlet: \"%.*s\" is not an IP address\n", STRF(text));
  return false;
}

/* What the mode reads and writes: the descriptors, which stay open, or the connection of a caller of the daemon. */
static struct stream *open_stream(struct process *p) {
  if (p->stream)
    return p->stream;
  struct stream *s = stream_new(0, 1);
  stream_keep_fds(s);
  return s;
}

static void close_stream(struct process *p, struct stream *s) {
  if (!p->stream)
    stream_free(s);
}

/* Only trusted users may pretend that a message came from elsewhere; what others say of that is not heard. */
static void forget_foreign(struct cli *o) {
  o->oMa = o->oMaa = o->oMai = o->oMas = o->oMi = o->oMm = o->oMr = o->oMs = o->oMt = STR_UNSET;
}

static int smtp_session(struct process *p, enum session_kind kind, const struct smtp_hooks *hooks) {
  struct cli *o = &p->cli;
  struct submitter who = {.login = p->login, .name = p->real_name, .uid = p->real_uid, .gid = p->real_gid, .trusted = p->trusted,
      .admin = p->admin, .no_delivery = p->cli.no_delivery};
  struct stream *s = open_stream(p);
  struct smtp_params sp = {.config = p->config, .kind = kind, .stream = s, .ident = str_is_set(o->oMt) || kind == SESSION_TEST ? o->oMt : p->login, .host_name = o->oMs,
      .authenticated_id = o->oMai, .authenticated_sender = o->oMas, .host_authenticated = o->oMaa, .protocol = o->oMr,
      .bounced_id = str_is_set(o->oMm) ? o->oMm : o->bounce_id, .submitter = kind == SESSION_TEST ? NULL : &who,
      .tls_on_connect = o->tls_on_connect, .queue_only = o->delivery_given && o->delivery == DELIVER_QUEUE, .no_qualify = o->no_qualify,
      .suppress_fixups = o->mua_submission, .timeout = o->smtp_timeout, .sender = o->sender_given ? o->sender : STR_UNSET, .hooks = hooks, .out = p->out, .err = p->err};
  int status = 1;
  struct ip_addr asked; /* -oMa gives a host test the port; the address is the test's own */
  if (peer_address(p, kind == SESSION_TEST ? o->mode_arg : o->oMa, &sp.peer, &sp.peer_port) &&
      (kind != SESSION_TEST || peer_address(p, o->oMa, &asked, &sp.peer_port)) && peer_address(p, o->oMi, &sp.local, &sp.local_port))
    status = smtp_server_run(&sp);
  close_stream(p, s);
  return status;
}

static int message(struct process *p, const struct smtp_hooks *hooks) {
  struct cli *o = &p->cli;
  if (o->args.n == 0 && !o->from_header_recipients) {
    fprintf(p->err, "Martlet is a Mail Transfer Agent. It is normally called by Mail User Agents,\n"
                    "not directly from a shell command line. Options and/or arguments control\n"
                    "what it does when called. For a list of options, see --help.\n");
    return 1;
  }
  struct submitter who = {.login = p->login, .name = p->real_name, .uid = p->real_uid, .gid = p->real_gid, .trusted = p->trusted,
      .admin = p->admin, .no_delivery = p->cli.no_delivery};
  struct stream *s = open_stream(p);
  struct local_params lp = {.config = p->config, .in = s, .program = p->cli.program, .submitter = &who, .recipients = o->args.v,
      .recipients_n = o->args.n, .extract_recipients = o->from_header_recipients, .dot_is_data = o->dot_is_data,
      .no_qualify = o->no_qualify, .suppress_fixups = o->mua_submission, .sender = o->sender_given ? o->sender : STR_UNSET,
      .full_name = o->full_name, .bounced_id = str_is_set(o->oMm) ? o->oMm : o->bounce_id, .host_name = o->oMs, .ident = o->oMt,
      .protocol = o->oMr, .host_authenticated = o->oMaa, .authenticated_id = o->oMai, .authenticated_sender = o->oMas,
      .timeout = o->receive_timeout, .errors_to_stderr = o->errors_given && o->errors == ERRORS_STDERR,
      .error_status = o->errors_given && o->errors == ERRORS_MAIL_OK ? 0 : 1,
      .queue_only = o->delivery_given && o->delivery == DELIVER_QUEUE, .hooks = hooks, .err = p->err};
  int status = 1;
  if (peer_address(p, o->oMa, &lp.peer, &lp.peer_port) && peer_address(p, o->oMi, &lp.local, &lp.local_port))
    status = receive_local(&lp);
  close_stream(p, s);
  return status;
}

static int run_mode(struct process *p, const struct smtp_hooks *hooks) {
  switch (p->cli.mode) {
  case MODE_SMTP: return smtp_session(p, SESSION_LOCAL_SMTP, hooks);
  case MODE_BATCH_SMTP: return smtp_session(p, SESSION_BATCH, hooks);
  case MODE_HOST_TEST:
    p->ctx->is_test = true;
    if (debug_mask == 0) {
      debug_mask = 1ull << DEBUG_acl | 1ull << DEBUG_lists | 1ull << DEBUG_host_lookup | 1ull << DEBUG_verify | 1ull << DEBUG_dnsbl |
          1ull << DEBUG_route | 1ull << DEBUG_rewrite;
      debug_set_prefix(">>> ");
    }
    return smtp_session(p, SESSION_TEST, hooks);
  default: return message(p, hooks);
  }
}

int mode_receive(struct process *p) {
  struct receive_run run = {.p = p, .foreground = p->cli.delivery_given && p->cli.delivery == DELIVER_FOREGROUND};
  struct smtp_hooks hooks = {.arg = &run, .must_queue = must_queue, .accepted = p->served ? accepted_here : accepted};
  if (!p->trusted && p->cli.mode != MODE_HOST_TEST)
    forget_foreign(&p->cli);
  if (p->served)
    return run_mode(p, &hooks);
  queue_mode_keep_submitted(&run.kept, p);
  int status = run_mode(p, &hooks);
  if (!run.foreground)
    (void)deliver_in_background(&run);
  (void)queue_mode_deliver_kept(&run.kept);
  smtp_pool_close_all();
  return run.failed ? 1 : status;
}

int process_receive_session(struct process *p, struct smtp_params *sp) {
  struct receive_run run = {.p = p};
  struct smtp_hooks hooks = {.arg = &run, .must_queue = must_queue, .accepted = accepted};
  sp->config = p->config;
  sp->hooks = &hooks;
  sp->timeout = p->cli.smtp_timeout;
  sp->queue_only = p->cli.delivery_given && p->cli.delivery == DELIVER_QUEUE;
  run.foreground = p->cli.delivery_given && p->cli.delivery == DELIVER_FOREGROUND;
  sp->ident = sp->host_name = sp->authenticated_id = sp->authenticated_sender = sp->host_authenticated = sp->protocol = sp->bounced_id =
      sp->sender = STR_UNSET;
  queue_mode_keep_submitted(&run.kept, p);
  int status = smtp_server_run(sp);
  stream_free(sp->stream); /* no child that delivers holds it open */
  if (!run.foreground)
    (void)deliver_in_background(&run);
  (void)queue_mode_deliver_kept(&run.kept);
  return run.failed ? 1 : status;
}
