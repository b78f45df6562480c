#include "expand/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/ctx.h"
#include "loop/child.h"

#define FOREIGN_STACK (8u << 20)
#define FOREIGN_AT_ONCE 32
#define FOREIGN_OUT 3
#define VERDICT_MAX 4096

struct foreign {
  void (*run)(void *arg, int out);
  void *arg;
};

/* --- in the child --- */

void foreign_write(int out, const char *p, size_t n) {
  while (n > 0) {
    ssize_t w = write(out, p, n);
    if (w < 0 && errno != EINTR)
      _exit(1);
    n -= w < 0 ? 0 : (size_t)w;
    p += w < 0 ? 0 : w;
  }
}

void foreign_say(int out, enum foreign_verdict verdict, const char *fmt, ...) {
  char text[VERDICT_MAX / 2];
  va_list ap;
  va_start(ap, fmt);
  text[0] = (char)verdict;
  int n = vsnprintf(text + 1, sizeof text - 1, fmt, ap);
  va_end(ap);
  foreign_write(out, text, n < 0 ? 1 : strlen(text));
  _exit(0);
}

static void *run_foreign(void *arg) {
  struct foreign *f = arg;
  f->run(f->arg, FOREIGN_OUT);
  _exit(0);
}

static void child_begin(struct foreign *f, int out) {
  struct sigaction sa = {.sa_handler = SIG_DFL};
  sigset_t none;
  for (int i = 1; i < NSIG; i++)
    sigaction(i, &sa, NULL);
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, NULL);
  setpgid(0, 0);
  if (out != FOREIGN_OUT && dup2(out, FOREIGN_OUT) < 0)
    _exit(1);
  syscall(SYS_close_range, FOREIGN_OUT + 1u, ~0u, 0u); /* connections and spool files are not its business */
  /* Programs that it starts must not hold the pipe open. */
  fcntl(FOREIGN_OUT, F_SETFD, FD_CLOEXEC);
  fcntl(FOREIGN_OUT, F_SETFL, 0);
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, FOREIGN_STACK);
  if (pthread_create(&thread, &attr, run_foreign, f) != 0)
    _exit(1);
  pthread_join(thread, NULL);
  _exit(1);
}

/* --- our side --- */

static int read_answer(struct child *child, usec_t deadline, struct buf *out) {
  char piece[4096];
  for (;;) {
    ssize_t n = read(child->out, piece, sizeof piece);
    if (n == 0)
      return out->overflow ? -EMSGSIZE : 0;
    if (n > 0) {
      buf_add_n(out, piece, (size_t)n);
      if (out->overflow)
        return -EMSGSIZE;
      continue;
    }
    if (errno != EAGAIN && errno != EINTR)
      return -errno;
    int rc = fiber_wait_fd(child->out, FIBER_READ, deadline);
    if (rc < 0)
      return rc;
  }
}

static int call_in_child(struct foreign *f, usec_t deadline, struct buf *answer) {
  int ends[2], status = 0;
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
    return -errno;
  pid_t pid = fork();
  if (pid == 0)
    child_begin(f, ends[1]);
  int rc = pid < 0 ? -errno : 0;
  close(ends[1]);
  if (rc < 0) {
    close(ends[0]);
    return rc;
  }
  setpgid(pid, pid);
  struct child child = {.pid = pid, .in = -1, .out = ends[0], .err = -1, .group = true,
      .pidfd = (int)syscall(SYS_pidfd_open, pid, 0u)};
  rc = read_answer(&child, deadline, answer);
  if (rc == 0)
    rc = child_wait(&child, deadline, &status);
  if (rc < 0) {
    child_kill(&child, SIGKILL);
    child_release(&child);
    return rc;
  }
  return status != 0 ? -ECHILD : 0;
}

int foreign_call(void (*run)(void *arg, int out), void *arg, int seconds, struct buf *answer) {
  static struct fiber_sem slots;
  static bool ready;
  struct foreign f = {run, arg};
  if (!ready)
    fiber_sem_init(&slots, FOREIGN_AT_ONCE);
  ready = true;
  usec_t deadline = deadline_in(seconds);
  int rc = fiber_sem_acquire(&slots, deadline);
  if (rc < 0)
    return rc;
  rc = call_in_child(&f, deadline, answer);
  fiber_sem_release(&slots);
  return rc;
}

const char *foreign_error(int error) {
  return error == -ETIMEDOUT ? "timed out" : error == -EMSGSIZE ? "its result is too long"
      : error == -ECHILD || error == 0 ? "its process ended before it returned" : strerror(-error);
}

int foreign_ask(struct ctx *c, const char *name, void (*run)(void *arg, int out), void *arg, int seconds, bool *ret) {
  struct buf b;
  buf_init(&b, c->arena, VERDICT_MAX);
  int rc = foreign_call(run, arg, seconds, &b);
  if (rc < 0 || b.len == 0)
    return ctx_fail(c, rc == -ETIMEDOUT ? OUTCOME_DEFER : OUTCOME_ERROR, "%s: %s", name, foreign_error(rc));
  *ret = b.p[0] == FOREIGN_YES;
  if (*ret || b.p[0] == FOREIGN_NO)
    return OUTCOME_OK;
  return ctx_fail(c, b.p[0] == FOREIGN_DEFER ? OUTCOME_DEFER : OUTCOME_ERROR, "%s: %.*s", name, STRF(str_from(buf_str(&b), 1)));
}
