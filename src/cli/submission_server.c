/* The daemon's end: the command of a user who may not write the spool, done in a fiber of a worker by the same code as a
command of root's, with the rights the kernel's word about the caller gives. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/submission.h"
#include "core/main_options.h"
#include "daemon/local_wire.h"
#include "log/log.h"
#include "loop/stream.h"
#include "queue/spool.h"

#define REQUEST_SECONDS 30

/* --- standard output and error as files: what is printed goes into frames --- */

static ssize_t write_out(void *cookie, const char *p, size_t n) {
  struct stream *s = cookie;
  return stream_write(s, str_n(p, n)) < 0 ? 0 : (ssize_t)n;
}

static ssize_t write_err(void *cookie, const char *p, size_t n) {
  struct stream *s = cookie;
  return local_send_error(s, str_n(p, n)) < 0 ? 0 : (ssize_t)n;
}

static FILE *open_output(struct stream *s, cookie_write_function_t *write_fn) {
  FILE *f = fopencookie(s, "w", (cookie_io_functions_t){.write = write_fn});
  if (f != NULL)
    (void)setvbuf(f, NULL, _IOFBF, 8192);
  return f;
}

/* --- the command --- */

/* What works on the command line of the daemon's owner alone. NULL: nothing of that. */
static const char *refuse(const struct process *p) {
  const struct cli *o = &p->cli;
  if (!submission_possible(p))
    return "this is not possible through the daemon";
  if (o->tls_on_connect)
    return "-tls-on-connect is not possible through the daemon";
  if (o->no_delivery && o->mode != MODE_RECEIVE && o->mode != MODE_SMTP && o->mode != MODE_BATCH_SMTP)
    return "only root and the mail system's user may give -N for messages of others";
  for (size_t i = 0; i < o->queue_runs.n; i++)
    if (o->queue_runs.v[i].queue_name.len && !spool_queue_name_valid(o->queue_runs.v[i].queue_name))
      return "this is no name of a queue";
  return NULL;
}

static int run(struct process *p) {
  const char *no = refuse(p);
  if (no) {
    fprintf(p->err, "%s: %s\n", p->cli.program, no);
    return 1;
  }
  switch (p->cli.mode) {
  case MODE_QUEUE_LIST:
  case MODE_MESSAGE:
  case MODE_QUEUE_RUN: return mode_queue(p);
  default: return mode_receive(p);
  }
}

static void serve(struct process *p, const struct local_caller *who, struct stream *s, const char *error) {
  int status = 1;
  p->stream = s;
  p->out = open_output(s, write_out);
  p->err = open_output(s, write_err);
  if (!p->out || !p->err) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "local submission: no memory");
    status = DAEMON_TRY_AGAIN;
  } else if (error) {
    fprintf(p->err, "martlet: %s\n", error);
  } else {
    process_identify(p, who->groups, who->groups_n);
    process_log_call(p);
    status = process_check_sender(p) ? EXIT_FAILURE : run(p);
  }
  if (p->out)
    (void)fclose(p->out);
  if (p->err)
    (void)fclose(p->err);
  (void)local_send_status(s, status);
}

void submission_serve(const struct local_caller *who, int fd) {
  struct arena *a = arena_new("local submission");
  struct process p = {.arena = a, .config = who->config, .ctx = ctx_new(a, who->config), .real_uid = who->uid, .real_gid = who->gid,
      .served = true, .caller = who};
  struct str request;
  const char *error = NULL;
  int e = local_read_request(fd, a, deadline_in(REQUEST_SECONDS), &request);
  if (e) {
    close(fd);
  } else {
    struct stream *s = local_stream_new(fd);
    if (submission_decode(a, request, &p.cli, &error))
      error = NULL;
    serve(&p, who, s, error);
    stream_free(s);
  }
  arena_free(a);
}
