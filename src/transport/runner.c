/* Who carries out local delivery plans in this process. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "loop/fiber.h"
#include "transport/plan.h"

#define RESULT_MAX (16u << 20)

static const struct plan_runner *runner = &plan_runner_offload;

void plan_set_runner(const struct plan_runner *r) { runner = r; }

void plan_run(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) { runner->run(a, p, body_fd, ret); }

/* --- in an offload thread: the thread has an arena of its own, results are copied when it is done --- */

struct offload_job {
  const struct plan *plan;
  int body_fd;
  struct arena *arena;
  struct plan_result result;
};

static int offload_job_run(void *arg) {
  struct offload_job *job = arg;
  plan_execute(job->arena, job->plan, job->body_fd, &job->result);
  return 0;
}

static struct str keep(struct arena *a, struct str s) { return str_is_set(s) ? str_dup(a, s) : s; }

static void run_offload(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) {
  struct offload_job job = {.plan = p, .body_fd = body_fd, .arena = arena_new("local delivery")};
  (void)fiber_offload(offload_job_run, &job);
  *ret = job.result;
  ret->message = keep(a, ret->message);
  ret->output = keep(a, ret->output);
  ret->path = keep(a, ret->path);
  ret->switch_to = keep(a, ret->switch_to);
  if (ret->recipients_n) {
    struct str *v = arena_array(a, struct str, (size_t)ret->recipients_n);
    for (int64_t i = 0; i < ret->recipients_n; i++)
      v[i] = keep(a, ret->recipients[i]);
    ret->recipients = v;
  }
  arena_free(job.arena);
}

const struct plan_runner plan_runner_offload = {run_offload};

/* --- root: a child becomes the user, its result comes back over a pipe --- */

static void child(const struct plan *p, int body_fd, int out) {
  struct arena *a = arena_new("local delivery");
  struct plan_result result = {.outcome = OUTCOME_OK};
  const char *what = "";
  signal(SIGCHLD, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  int e = plan_become_user(p, &what);
  char *cwd = str_is_set(p->cwd) && p->cwd.len ? str_dup_c(a, p->cwd) : NULL;
  if (e)
    plan_fail(a, &result, OUTCOME_DEFER, -e, "unable to %s for local delivery: %s", what, strerror(-e));
  else if (chdir(cwd ? cwd : "/") < 0)
    plan_fail(a, &result, OUTCOME_DEFER, errno, "failed to chdir to %s", cwd ? cwd : "/");
  else
    plan_execute(a, p, body_fd, &result);
  struct buf text;
  buf_init(&text, a, RESULT_MAX);
  plan_result_encode(&result, &text);
  struct str s = buf_str(&text);
  while (s.len) {
    ssize_t n = write(out, s.p, s.len);
    if (n <= 0 && errno != EINTR)
      break;
    if (n > 0)
      s = str_from(s, (size_t)n);
  }
  _exit(0);
}

static void run_fork(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) {
  int fds[2];
  *ret = (struct plan_result){.outcome = OUTCOME_DEFER};
  if (pipe2(fds, 0) < 0) {
    plan_fail(a, ret, OUTCOME_DEFER, errno, "pipe for local delivery: %s", strerror(errno));
    return;
  }
  pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
    child(p, body_fd, fds[1]);
  }
  close(fds[1]);
  if (pid < 0) {
    plan_fail(a, ret, OUTCOME_DEFER, errno, "fork for local delivery: %s", strerror(errno));
    close(fds[0]);
    return;
  }
  struct buf text;
  char chunk[8192];
  buf_init(&text, a, RESULT_MAX);
  for (;;) {
    ssize_t n = read(fds[0], chunk, sizeof chunk);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
      if (errno == EAGAIN)
        (void)fiber_wait_fd(fds[0], FIBER_READ, DEADLINE_NEVER);
      continue;
    }
    if (n <= 0)
      break;
    buf_add_n(&text, chunk, (size_t)n);
  }
  close(fds[0]);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
    ;
  if (!plan_result_decode(a, buf_str(&text), ret))
    plan_fail(a, ret, OUTCOME_DEFER, 0, "local delivery process failed to return a result");
}

const struct plan_runner plan_runner_fork = {run_fork};
