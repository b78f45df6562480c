/* The queue's modes: -q, -bp, -M… */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/queue_modes.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "deliver/follow.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/list.h"
#include "queue/spool.h"
#include "smtp/client/client.h"

static struct str queue_name(const struct process *p) {
  return p->cli.queue_runs.n ? p->cli.queue_runs.v[0].queue_name : STR_EMPTY;
}

/* --- -bp --- */

static int list_failed(struct process *p, int rc) {
  fprintf(p->err, "martlet: the queue cannot be read: %s\n", strerror(-rc));
  return 1;
}

/* With fewer messages the directory is as quick, and knows what was put there by hand. */
#define COUNT_IN_MEMORY_FROM 20000

static int count(struct process *p, struct str queue) {
  size_t n = p->served && !queue.len ? daemon_queued(p->caller) : 0;
  if (n < COUNT_IN_MEMORY_FROM)
    return queue_list_count(p->ctx, queue, p->out);
  fprintf(p->out, "%zu\n", n);
  return 0;
}

static int mode_list(struct process *p) {
  struct str letters = p->cli.mode_arg;
  struct queue_list l = {.queue_name = queue_name(p), .ids = p->cli.args.v, .n = p->cli.args.n};
  l.own_only = !p->admin && main_options(p->config)->queue_list_requires_admin;
  l.uid = p->real_uid;
  l.ids_only = str_find_byte(letters, 'i') >= 0;
  l.undelivered_only = str_find_byte(letters, 'u') >= 0;
  l.with_generated = str_find_byte(letters, 'a') >= 0;
  int rc = str_find_byte(letters, 'c') >= 0 ? count(p, l.queue_name)
                                            : queue_list(p->ctx, &l, p->out);
  return rc ? list_failed(p, rc) : 0;
}

/* --- -M: deliveries --- */

static void deliver_one(struct process *p, struct queue_mode_kept *kept, struct str id, const struct deliver_how *how) {
  struct arena *a = arena_new("delivery");
  struct ctx *c = ctx_new(a, p->config);
  struct message *m = NULL;
  struct smtp_connection *held;
  enum spool_read got = spool_read_message(c, queue_name(p), id, true, &m);
  switch (got) {
    case SPOOL_OK:
      (void)deliver_message(c, m, how);
      held = deliver_held(m);
      message_free(m);
      deliver_follow(p->config, held, how);
      break;
    case SPOOL_LOCKED: queue_log_locked(id); break;
    case SPOOL_NOT_FOUND: log_write(LOG_MAIN, NULL, "%.*s Spool file %.*s-D not found", STRF(id), STRF(id)); break;
    default: log_write(LOG_MAIN, NULL, "%.*s %.*s", STRF(id), STRF(c->error));
  }
  arena_free(a);
  (void)queue_mode_deliver_kept(kept);
}

static int deliver_all(struct process *p, struct str letters) {
  struct queue_mode_kept kept;
  struct deliver_how how = {.follows = true, .dont_deliver = p->cli.no_delivery, .give_up_by = STR_UNSET};
  how.select_recipient = STR_UNSET;
  how.give_up = str_eq_c(letters, "g");
  how.give_up_by = p->login;
  how.force = how.force_frozen = !str_eq_c(letters, "c");
  queue_mode_keep_submitted(&kept, p);
  for (size_t i = 0; i < p->cli.args.n; i++)
    deliver_one(p, &kept, p->cli.args.v[i], &how); /* what went wrong is in the log; the status says nothing of it */
  if (!p->served)
    smtp_pool_close_all();
  return 0;
}

/* --- -M: changes --- */

static const struct action {
  const char *letters;
  enum queue_action action;
  bool addresses; /* one id, then addresses */
} actions[] = {
  {"G", QUEUE_MOVE, false},    {"ar", QUEUE_ADD_RECIPIENT, true}, {"es", QUEUE_EDIT_SENDER, true},
  {"f", QUEUE_FREEZE, false},  {"mad", QUEUE_MARK_ALL, false},    {"md", QUEUE_MARK, true},
  {"rm", QUEUE_REMOVE, false}, {"t", QUEUE_THAW, false},          {"vb", QUEUE_SHOW_BODY, false},
  {"vc", QUEUE_SHOW_COPY, false}, {"vh", QUEUE_SHOW_HEADER, false}, {"vl", QUEUE_SHOW_LOG, false},
};

static bool check_ids(struct process *p, const struct str *v, size_t n, struct str letters) {
  if (n == 0)
    fprintf(p->err, "exim: no message ids given after -M%.*s option\n", STRF(letters));
  for (size_t i = 0; i < n; i++)
    if (!message_id_valid(v[i])) {
      fprintf(p->err, "exim: malformed message id %.*s after -M%.*s option\n", STRF(v[i]), STRF(letters));
      return false;
    }
  return n > 0;
}

static int run_action(struct process *p, const struct action *a, struct str letters) {
  const struct str *v = p->cli.args.v;
  size_t n = p->cli.args.n;
  struct queue_manage q = {.action = a->action, .queue_name = queue_name(p), .to_queue = STR_EMPTY};
  q.login = str_dup_c(p->arena, p->login);
  q.uid = p->real_uid;
  q.admin = p->admin;
  if (a->action == QUEUE_MOVE && n) {
    q.to_queue = *v++;
    n--;
  }
  if (a->addresses && n) {
    q.addresses = v + 1;
    q.n = n - 1;
    n = 1;
  }
  if (!check_ids(p, v, n, letters))
    return 1;
  if (a->action >= QUEUE_SHOW_BODY && n > 1) {
    fprintf(p->out, "*** Only one message can be listed at once\n");
    return 1;
  }
  if (a->action != QUEUE_REMOVE && !process_require_admin(p))
    return 1;
  int status = 0;
  for (size_t i = 0; i < n; i++)
    status |= !queue_manage(p->ctx, v[i], &q, p->out);
  if (a->action == QUEUE_MARK_ALL)
    fprintf(p->out, "\n");
  return status;
}

static int mode_message(struct process *p) {
  struct str letters = p->cli.mode_arg;
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
    if (str_eq_c(letters, actions[i].letters))
      return run_action(p, &actions[i], letters);
  if (!check_ids(p, p->cli.args.v, p->cli.args.n, letters))
    return 1;
  bool may = str_eq_c(letters, "g") || main_options(p->config)->prod_requires_admin;
  if (may && !process_require_admin(p))
    return 1;
  return deliver_all(p, letters);
}

int mode_queue(struct process *p) {
  daemon_show_messages(p->config);
  switch (p->cli.mode) {
    case MODE_QUEUE_RUN: return mode_run_queue(p);
    case MODE_QUEUE_LIST: return mode_list(p);
    default: return mode_message(p);
  }
}
