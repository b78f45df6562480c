/* -bd, -q<time>, -bw: from the command line to the daemon. */

#include <stdio.h>
#include <unistd.h>

#include "cli/process.h"
#include "cli/submission.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "log/log.h"

int mode_daemon(struct process *p) {
  struct cli *o = &p->cli;
  if (!process_require_admin(p))
    return 1;
  if (main_options(p->config)->mua_wrapper) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "Daemon cannot be run when mua_wrapper is set");
    fprintf(stderr, "martlet: Daemon cannot be run when mua_wrapper is set\n");
    return 1;
  }
  struct daemon_params d = {.source = &p->source, .config = p->config, .inherited_fd = -1, .pid_file = o->pid_file, .listen = o->listen,
      .serve_local = submission_serve, .listening = o->mode != MODE_QUEUE_DAEMON, .foreground = o->foreground || o->debug, .all_tls = o->tls_on_connect,
      .no_delivery = o->no_delivery, .queue_only = o->delivery_given && o->delivery == DELIVER_QUEUE,
      .queue_smtp = o->delivery_given && o->delivery == DELIVER_QUEUE_SMTP};
  struct daemon_queue_run *runs = arena_array(p->arena, struct daemon_queue_run, o->queue_runs.n + 1);
  for (size_t i = 0; i < o->queue_runs.n; i++) {
    const struct cli_queue_run *q = &o->queue_runs.v[i];
    if (q->interval <= 0)
      continue;
    runs[d.runs_n++] = (struct daemon_queue_run){.two_stage = q->two_stage, .first_only = q->first_only, .force = q->force,
        .force_frozen = q->force_frozen, .local_only = q->local_only, .queue_name = q->queue_name, .interval = q->interval};
  }
  d.runs = runs;
  if (o->mode == MODE_INETD_WAIT) {
    d.inherited_fd = 0;
    d.foreground = true;
  }
  return daemon_run(p->arena, &d);
}
