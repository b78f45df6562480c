/* ${dlfunc…}: a function of a shared object, by the interface that the manual documents:

    int function(unsigned char **yield, int argc, unsigned char *argv[]);

It runs in a child process, so that it may crash or block without harm. The object is loaded anew each time. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"
#include "loop/child.h"
#include "loop/stream.h"

#define DLFUNC_MAX_RESULT (16u << 20)
#define DLFUNC_SECONDS 60
#define DLFUNC_STACK (8u << 20)

/* What a function returns, by number. */
enum dlfunc_code { DLFUNC_OK = 0, DLFUNC_FAIL = 2, DLFUNC_ERROR = 3, DLFUNC_FAIL_FORCED = 4 };
/* Which step the child came to: the first byte of its answer. */
enum dlfunc_step { DLFUNC_LOAD = 'l', DLFUNC_FIND = 'f', DLFUNC_CALLED = 'c' };

struct dlfunc_answer {
  char step;
  bool has_text;
  int32_t code;
};

typedef int dlfunc_function(unsigned char **yield, int argc, unsigned char *argv[]);

struct dlfunc_call {
  char *file, *function, **argv;
  int argc, out;
};

/* --- in the child --- */

static void write_all(int fd, const char *p, size_t n) {
  while (n > 0) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno != EINTR)
      _exit(1);
    n -= w < 0 ? 0 : (size_t)w;
    p += w < 0 ? 0 : w;
  }
}

static void answer(const struct dlfunc_call *call, enum dlfunc_step step, int code, const char *text) {
  struct dlfunc_answer a = {.step = (char)step, .has_text = text != NULL, .code = code};
  write_all(call->out, (const char *)&a, sizeof a);
  if (text != NULL)
    write_all(call->out, text, strlen(text));
  _exit(0);
}

static void *run_function(void *arg) {
  const struct dlfunc_call *call = arg;
  unsigned char *yield = NULL;
  void *object = dlopen(call->file, RTLD_NOW | RTLD_GLOBAL);
  if (object == NULL)
    answer(call, DLFUNC_LOAD, 0, dlerror());
  dlfunc_function *f = NULL;
  void *symbol = dlsym(object, call->function);
  if (symbol == NULL)
    answer(call, DLFUNC_FIND, 0, dlerror());
  memcpy(&f, &symbol, sizeof f);
  int code = f(&yield, call->argc, (unsigned char **)call->argv);
  answer(call, DLFUNC_CALLED, code, (const char *)yield);
  return NULL;
}

/* On a thread of its own: a fiber's stack is too small for foreign code. */
static void child_run_function(struct dlfunc_call *call) {
  struct sigaction sa = {.sa_handler = SIG_DFL};
  sigset_t none;
  for (int i = 1; i < NSIG; i++)
    sigaction(i, &sa, NULL);
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, NULL);
  setpgid(0, 0);
  if (call->out != 3 && dup2(call->out, 3) < 0)
    _exit(1);
  call->out = 3;
  syscall(SYS_close_range, 4u, ~0u, 0u); /* connections and spool files are not its business */
  fcntl(3, F_SETFL, 0);
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, DLFUNC_STACK);
  if (pthread_create(&thread, &attr, run_function, call) != 0)
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

/* 0 or -errno. */
static int call_in_child(struct dlfunc_call *call, struct buf *out) {
  int ends[2], status = 0;
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
    return -errno;
  call->out = ends[1];
  pid_t pid = fork();
  if (pid == 0)
    child_run_function(call);
  int rc = pid < 0 ? -errno : 0;
  close(ends[1]);
  if (rc < 0) {
    close(ends[0]);
    return rc;
  }
  setpgid(pid, pid);
  struct child child = {.pid = pid, .in = -1, .out = ends[0], .err = -1, .group = true,
      .pidfd = (int)syscall(SYS_pidfd_open, pid, 0u)};
  usec_t deadline = deadline_in(DLFUNC_SECONDS);
  rc = read_answer(&child, deadline, out);
  if (rc == 0)
    rc = child_wait(&child, deadline, &status);
  if (rc < 0) {
    child_kill(&child, SIGKILL);
    child_release(&child);
    return rc;
  }
  return status != 0 ? -ECHILD : 0;
}

static int fail_logged(struct ctx *c, struct str text) {
  log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(text));
  return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(text));
}

static int eval_dlfunc(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct dlfunc_call call = {.argc = args->n - 2, .argv = arena_array(c->arena, char *, args->n)};
  struct str file = args->value[0], function = args->value[1];
  if (str_is_tainted(file))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename for dlfunc: '%.*s'", STRF(file));
  call.file = str_dup_c(c->arena, file);
  call.function = str_dup_c(c->arena, function);
  for (int i = 2; i < args->n; i++)
    call.argv[i - 2] = str_dup_c(c->arena, args->value[i]);
  struct buf b;
  buf_init(&b, c->arena, DLFUNC_MAX_RESULT);
  int rc = call_in_child(&call, &b);
  struct dlfunc_answer a;
  if (rc < 0 || b.len < sizeof a)
    return fail_logged(c, str_printf(c->arena, "dlfunc{%s}{%s} failed: %s", call.file, call.function,
        rc == -ETIMEDOUT ? "timed out" : rc == -EMSGSIZE ? "its result is too long" : rc == -ECHILD || rc == 0
            ? "its process ended before it returned" : strerror(-rc)));
  memcpy(&a, b.p, sizeof a);
  struct str text = a.has_text ? str_from(buf_str(&b), sizeof a) : STR("(no message)");
  if (a.step == DLFUNC_LOAD)
    return fail_logged(c, str_printf(c->arena, "dlopen \"%s\" failed: %.*s", call.file, STRF(text)));
  if (a.step == DLFUNC_FIND)
    return fail_logged(c, str_printf(c->arena, "dlsym \"%s\" in \"%s\" failed: %.*s", call.function, call.file, STRF(text)));
  if (a.code == DLFUNC_OK) {
    if (a.has_text)
      buf_add(out, text);
    return 0;
  }
  if (a.code != DLFUNC_FAIL && a.code != DLFUNC_FAIL_FORCED)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "dlfunc{%s}{%s} failed (%d): %.*s", call.file, call.function, a.code, STRF(text));
  return ctx_fail(c, a.code == DLFUNC_FAIL_FORCED ? OUTCOME_FORCED : OUTCOME_ERROR, "%.*s", STRF(text));
}

static const struct expand_item_def items[] = {
  {"dlfunc", 2, 10, 0, NULL, eval_dlfunc},
  {0},
};

static const char *const macros[] = {"_HAVE_DLFUNC", NULL};

const struct module expand_dlfunc_module = {
  .name = "expand-dlfunc",
  .summary = "functions of shared objects in expansions",
  .support = "Expand_dlfunc",
  .items = items,
  .macros = macros,
};
