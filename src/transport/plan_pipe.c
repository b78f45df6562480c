/* Running a pipe's command: the message on its standard input, its output
collected up to a limit, the whole within a time limit (Exim manual, chapter
"The pipe transport"). Blocking; the command has a process group of its own. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "deliver/errors.h"
#include "transport/plan.h"

static char **c_strings(struct arena *a, const struct str *v, int64_t n) {
  char **out = arena_array(a, char *, (size_t)n + 1);
  for (int64_t i = 0; i < n; i++)
    out[i] = str_dup_c(a, v[i]);
  return out;
}

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A second child writes the message, so that the command may read and write in any order. */
static pid_t start_writer(const struct plan *p, int body_fd, int to, int report) {
  pid_t pid = fork();
  if (pid)
    return pid;
  signal(SIGPIPE, SIG_DFL);
  int64_t size;
  int e = plan_write_message(p, body_fd, to, &size);
  if (e && e != -EPIPE)
    (void)!write(report, &e, sizeof e);
  _exit(0);
}

static pid_t start_command(const struct plan *p, char **argv, char **envp, int in, int out, int report) {
  pid_t pid = fork();
  if (pid)
    return pid;
  setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask((mode_t)p->umask);
  struct rlimit core = {0, 0};
  if (!p->permit_coredump)
    setrlimit(RLIMIT_CORE, &core);
  dup2(in, 0);
  dup2(out, 1);
  dup2(out, 2);
  fcntl(report, F_SETFD, FD_CLOEXEC);
  for (int fd = 3; fd < 256; fd++)
    if (fd != report)
      close(fd);
  execve(argv[0], argv, envp);
  int e = errno;
  (void)!write(report, &e, sizeof e);
  _exit(127);
}

static bool temporary_status(const struct plan *p, int code) {
  struct str rest = p->temp_errors;
  if (str_eq_c(str_trim(rest), "*"))
    return true;
  while (str_is_set(rest) && rest.len) {
    struct str item = str_trim(str_cut(&rest, ':'));
    uint64_t n;
    if (str_to_u64(item, &n) && (int)n == code)
      return true;
  }
  return false;
}

/* What sysexits.h, the shell and the system mean by a status. */
static void explain_status(int code, char *ret, size_t size) {
  static const char *const meanings[] = {"usage or syntax error", "error in input data", "input data missing", "user nonexistent",
      "host nonexistent", "service or program unavailable", "internal software error", "internal operating system error",
      "system file missing", "can't create output file", "input/output error", "temporary error", "protocol error", "permission denied",
      "configuration error"};
  *ret = 0;
  if (code >= 64 && code <= 78)
    snprintf(ret, size, " (could mean %s)", meanings[code - 64]);
  else if (code == 127)
    snprintf(ret, size, " (could mean unable to exec or command does not exist)");
  else if (code > 128)
    snprintf(ret, size, " (could mean shell command ended by signal %d (%s))", code - 128, strsignal(code - 128));
}

static const char *signal_note(int signo) {
  static char text[64];
  snprintf(text, sizeof text, "terminated by signal %d (%s)", signo, strsignal(signo));
  return text;
}

/* The program is named to the sender, its arguments are not; the whole command line only where a signal ended it, as with Exim. */
static void judge(struct arena *a, const struct plan *p, int status, int exec_errno, const char *program, struct str command,
    struct plan_result *r) {
  char meaning[160];
  r->status = status;
  if (p->freeze_exec_fail && (exec_errno || (WIFEXITED(status) && WEXITSTATUS(status) == 127 && !p->ignore_status))) {
    r->freeze = true;
    plan_fail(a, r, OUTCOME_DEFER, 0, "pipe process failed to exec \"%.*s\"", STRF(command));
    return;
  }
  if (exec_errno) {
    plan_fail(a, r, temporary_status(p, 127) ? OUTCOME_DEFER : OUTCOME_FAIL, 0,
        "Child process of %.*s transport returned 127 (could mean unable to exec or command does not exist) from command: %s",
        STRF(p->transport), program);
    return;
  }
  if (WIFSIGNALED(status)) {
    if (p->ignore_status)
      return;
    r->freeze = p->freeze_signal;
    plan_fail(a, r, p->freeze_signal ? OUTCOME_DEFER : OUTCOME_FAIL, 0, "Child process of %.*s transport (running command \"%.*s\") was %s", STRF(p->transport),
        STRF(command), signal_note(WTERMSIG(status)));
    return;
  }
  int code = WEXITSTATUS(status);
  if (code == 0 || p->ignore_status)
    return;
  explain_status(code, meaning, sizeof meaning);
  plan_fail(a, r, temporary_status(p, code) ? OUTCOME_DEFER : OUTCOME_FAIL, 0,
      "Child process of %.*s transport returned %d%s from command: %s", STRF(p->transport), code, meaning, program);
}

/* Reads the output until its end or the time limit. False: timed out. */
static bool collect(const struct plan *p, int fd, int64_t deadline, struct buf *out, bool *ret_over) {
  char chunk[4096];
  for (;;) {
    int64_t left = p->timeout > 0 ? deadline - now_ms() : -1;
    if (p->timeout > 0 && left <= 0)
      return false;
    struct pollfd w = {.fd = fd, .events = POLLIN};
    int k = poll(&w, 1, left > 0 ? (int)(left > 60000 ? 60000 : left) : -1);
    if (k < 0 && errno != EINTR)
      return true;
    if (k <= 0)
      continue;
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n <= 0)
      return true;
    if ((int64_t)(out->len + (size_t)n) > p->max_output) {
      *ret_over = true;
      return true;
    }
    buf_add_n(out, chunk, (size_t)n);
  }
}

static void reap(pid_t pid, int *status) {
  while (waitpid(pid, status, 0) < 0 && errno == EINTR)
    ;
}

void plan_execute_pipe(struct arena *a, const struct plan *p, int body_fd, struct plan_result *r) {
  if (p->argv_n < 1) {
    plan_fail(a, r, OUTCOME_DEFER, EINVAL, "no command");
    return;
  }
  char **argv = c_strings(a, p->argv, p->argv_n), **envp = c_strings(a, p->environment, p->environment_n);
  struct str command = p->path;
  int in[2] = {-1, -1}, out[2] = {-1, -1}, report[2] = {-1, -1}, wrote[2] = {-1, -1};
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(report, O_CLOEXEC) || pipe2(wrote, O_CLOEXEC)) {
    plan_fail(a, r, OUTCOME_DEFER, errno, "pipe failed: %s", strerror(errno));
    goto done;
  }
  pid_t child = start_command(p, argv, envp, in[0], out[1], report[1]);
  close(in[0]), close(out[1]), close(report[1]);
  in[0] = out[1] = report[1] = -1;
  pid_t writer = child > 0 ? start_writer(p, body_fd, in[1], wrote[1]) : -1;
  close(in[1]), close(wrote[1]);
  in[1] = wrote[1] = -1;
  if (child < 0 || writer < 0) {
    plan_fail(a, r, OUTCOME_DEFER, errno, "fork failed: %s", strerror(errno));
    if (child > 0) {
      int ignored;
      kill(-child, SIGKILL);
      reap(child, &ignored);
    }
    goto done;
  }
  struct buf output;
  buf_init(&output, a, (size_t)(p->max_output > 0 ? p->max_output : 0) + 8192);
  bool over = false;
  int status = 0, writer_status = 0, exec_errno = 0, write_error = 0;
  bool in_time = collect(p, out[0], now_ms() + p->timeout * 1000, &output, &over);
  if (!in_time || over)
    kill(-child, SIGKILL);
  close(out[0]);
  out[0] = -1;
  reap(child, &status);
  if (!in_time || over || (WIFEXITED(status) && WEXITSTATUS(status)))
    kill(writer, SIGKILL);
  reap(writer, &writer_status);
  if (read(report[0], &exec_errno, sizeof exec_errno) != sizeof exec_errno)
    exec_errno = 0;
  struct str text = buf_str(&output);
  r->output = text.len ? str_tainted(text) : STR_UNSET;
  if (!in_time) {
    plan_fail(a, r, p->timeout_defer ? OUTCOME_DEFER : OUTCOME_FAIL, 0, "%s", PLAN_PIPE_TIMED_OUT);
  } else if (over) {
    plan_fail(a, r, OUTCOME_FAIL, 0, "Too much output from pipe - killed");
  } else {
    judge(a, p, status, exec_errno, argv[0], command, r);
    if (read(wrote[0], &write_error, sizeof write_error) == sizeof write_error && write_error == PLAN_FILTER_TIMEOUT)
      plan_fail(a, r, p->timeout_defer ? OUTCOME_DEFER : OUTCOME_FAIL, 0, "transport filter timeout while writing to pipe");
    else if (write_error <= PLAN_FILTER_FAILED(0))
      plan_write_failed(a, r, write_error, "");
    else if (write_error && r->outcome == OUTCOME_OK)
      plan_fail(a, r, OUTCOME_DEFER, EIO, "Error while writing to pipe");
  }
done:
  for (int i = 0; i < 2; i++) {
    if (in[i] >= 0)
      close(in[i]);
    if (out[i] >= 0)
      close(out[i]);
    if (report[i] >= 0)
      close(report[i]);
    if (wrote[i] >= 0)
      close(wrote[i]);
  }
}
