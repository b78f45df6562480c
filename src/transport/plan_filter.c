/* transport_filter for local deliveries: the message goes to the command from
a process of its own, what comes back is handed on as it comes (Exim manual,
"Generic options for transports"). Blocking. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "transport/plan.h"

#define BLOCK (32u << 10)

static pid_t start_writer(const struct plan *p, int body_fd, int to) {
  pid_t pid = fork();
  if (pid)
    return pid;
  /* The message as it is, without what stands around it and what is done to it afterwards. */
  struct plan raw = {.head = str_from(p->head, (size_t)p->prefix_length), .body_offset = p->body_offset, .body_length = p->body_length};
  int64_t size;
  signal(SIGPIPE, SIG_DFL);
  (void)plan_write_message(&raw, body_fd, to, &size); /* a filter need not read everything */
  _exit(0);
}

static pid_t start_filter(char **argv, int in, int out) {
  pid_t pid = fork();
  if (pid)
    return pid;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setpgid(0, 0);
  umask(077); /* what it keeps of messages is nobody else's */
  signal(SIGPIPE, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  dup2(in, 0);
  dup2(out, 1);
  dup2(out, 2);
  for (int fd = 3; fd < 256; fd++)
    close(fd);
  if (argv[0][0] == '/')
    execve(argv[0], argv, environ);
  _exit(127);
}

static int hand_on(const struct plan *p, int from, int (*put)(void *arg, const char *text, size_t n), void *arg) {
  char *block = xmalloc(BLOCK);
  int e = 0;
  while (!e) {
    struct pollfd w = {.fd = from, .events = POLLIN};
    int64_t limit = p->filter_timeout > 0 && p->filter_timeout < 86400 ? p->filter_timeout * 1000 : -1;
    int k = poll(&w, 1, (int)limit);
    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0) {
      e = k < 0 ? -errno : PLAN_FILTER_TIMEOUT;
      break;
    }
    ssize_t n = read(from, block, BLOCK);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      e = n < 0 ? -errno : 0;
      break;
    }
    e = put(arg, block, (size_t)n);
  }
  free(block);
  return e;
}

static int reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int plan_run_filter(const struct plan *p, int body_fd, int (*put)(void *arg, const char *text, size_t n), void *arg) {
  int in[2], out[2];
  struct arena *a = arena_new("filter");
  char **argv = arena_array(a, char *, (size_t)p->filter_n + 1);
  for (int64_t i = 0; i < p->filter_n; i++)
    argv[i] = str_dup_c(a, p->filter[i]);
  if (pipe2(in, O_CLOEXEC)) {
    arena_free(a);
    return -errno;
  }
  if (pipe2(out, O_CLOEXEC)) {
    int e = -errno;
    close(in[0]), close(in[1]);
    arena_free(a);
    return e;
  }
  pid_t filter = start_filter(argv, in[0], out[1]);
  if (filter > 0)
    setpgid(filter, filter); /* whoever of us is first: it must be possible to kill the whole group */
  close(in[0]), close(out[1]);
  pid_t writer = filter > 0 ? start_writer(p, body_fd, in[1]) : -1;
  int e = filter < 0 || writer < 0 ? -errno : 0;
  close(in[1]);
  if (!e)
    e = hand_on(p, out[0], put, arg);
  close(out[0]);
  if (e && filter > 0)
    kill(-filter, SIGKILL);
  int code = filter > 0 ? reap(filter) : 0;
  if (writer > 0) {
    kill(writer, SIGKILL); /* what the filter has not read until its end nobody will */
    reap(writer);
  }
  arena_free(a);
  return e ? e : code ? PLAN_FILTER_FAILED(code) : 0;
}
