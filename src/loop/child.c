#include "loop/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/buf.h"
#include "loop/loop_internal.h"

/* --- the child's side, between vfork and exec: it shares our memory, so only
system calls are made, and the ids are set by raw ones (those of libc would
change the ids of our own threads too) --- */

struct plan {
  const struct child_spec *spec;
  int fds[3];
  sigset_t unblocked;
  volatile int error;
};

#ifdef SYS_setgroups32
#define SETGROUPS SYS_setgroups32
#define SETRESGID SYS_setresgid32
#define SETRESUID SYS_setresuid32
#else
#define SETGROUPS SYS_setgroups
#define SETRESGID SYS_setresgid
#define SETRESUID SYS_setresuid
#endif

static bool child_ids(const struct child_spec *s) {
  gid_t gid = s->gid;
  const gid_t *groups = s->groups ? s->groups : &gid;
  long count = s->groups ? s->groups_count : 1;
  return syscall(SETGROUPS, count, groups) == 0 && syscall(SETRESGID, s->gid, s->gid, s->gid) == 0 &&
         syscall(SETRESUID, s->uid, s->uid, s->uid) == 0;
}

static bool child_effective_ids(void) {
  gid_t gid = getegid();
  uid_t uid = geteuid();
  return syscall(SETRESGID, gid, gid, gid) == 0 && syscall(SETRESUID, uid, uid, uid) == 0;
}

static bool child_limits(void) {
  struct rlimit memory = {CHILD_MEMORY_MAX, CHILD_MEMORY_MAX}, none = {0, 0};
  return setrlimit(RLIMIT_AS, &memory) == 0 && setrlimit(RLIMIT_CORE, &none) == 0;
}

/* All are moved out of the way first: one may be the place of another. */
static bool child_fds(const struct plan *p) {
  int high[3];
  for (int i = 0; i < 3; i++)
    if ((high[i] = fcntl(p->fds[i], F_DUPFD_CLOEXEC, 3)) < 0)
      return false;
  for (int i = 0; i < 3; i++)
    if (dup2(high[i], i) < 0)
      return false;
#ifdef SYS_close_range
  syscall(SYS_close_range, 3u, ~0u, 0u); /* of libraries that do not set close-on-exec */
#endif
  return true;
}

static void child_main(struct plan *p) {
  const struct child_spec *s = p->spec;
  static char *const empty[] = {NULL};
  struct sigaction sa = {.sa_handler = SIG_DFL};
  for (int i = 1; i < NSIG; i++)
    sigaction(i, &sa, NULL);
  bool ok = true;
  if (s->new_group)
    ok = setpgid(0, 0) == 0;
  if (ok && s->restrict_memory)
    ok = child_limits();
  if (ok && s->set_ids)
    ok = child_ids(s);
  if (ok && s->effective_ids)
    ok = child_effective_ids();
  if (s->umask >= 0)
    umask((mode_t)s->umask);
  if (ok && (ok = chdir(s->cwd ? s->cwd : "/") == 0) && (ok = child_fds(p))) {
    sigprocmask(SIG_SETMASK, &p->unblocked, NULL);
    execve(s->path, s->argv, s->envp ? s->envp : empty);
  }
  p->error = errno;
  _exit(127);
}

/* --- our side --- */

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

static void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

/* Finds or makes the child's end of descriptor `number`; *ours is our end of a
pipe, *opened is to be closed here after the start. */
static int open_end(int wanted, int number, int stdout_end, int *theirs, int *ours, int *opened) {
  if (wanted >= 0) {
    *theirs = wanted;
    return 0;
  }
  if (wanted == -3) {
    *theirs = stdout_end;
    return 0;
  }
  if (wanted == -2) {
    *theirs = *opened = open("/dev/null", O_RDWR | O_CLOEXEC);
    return *opened < 0 ? -errno : 0;
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0)
    return -errno;
  *ours = number == 0 ? ends[1] : ends[0];
  *theirs = *opened = number == 0 ? ends[0] : ends[1];
  set_nonblocking(*ours);
  return 0;
}

/* Kept out of line: after vfork returns in the child, our frame must be as it was. */
static __attribute__((noinline)) pid_t spawn_child(struct plan *plan) {
  sigset_t all, old;
  sigfillset(&all);
  sigemptyset(&plan->unblocked);
  pthread_sigmask(SIG_SETMASK, &all, &old); /* no handler of ours runs in the child */
  pid_t pid = vfork();
  if (pid == 0)
    child_main(plan);
  int error = errno;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  errno = error;
  return pid;
}

int child_start(const struct child_spec *spec, struct child *ret) {
  struct plan plan = {.spec = spec};
  int ours[3] = {-1, -1, -1}, opened[3] = {-1, -1, -1};
  const int wanted[3] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd};
  int r = 0;
  for (int i = 0; i < 3 && r == 0; i++)
    r = open_end(wanted[i], i, plan.fds[1], &plan.fds[i], &ours[i], &opened[i]);
  pid_t pid = -1;
  if (r == 0) {
    pid = spawn_child(&plan);
    r = pid < 0 ? -errno : -plan.error;
    if (pid > 0 && plan.error)
      while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) /* it has ended already */
        ;
  }
  for (int i = 0; i < 3; i++) {
    close_fd(&opened[i]);
    if (r < 0)
      close_fd(&ours[i]);
  }
  if (r < 0)
    return r;
  *ret = (struct child){.pid = pid, .in = ours[0], .out = ours[1], .err = ours[2], .pidfd = -1,
      .group = spec->new_group};
  ret->pidfd = (int)syscall(SYS_pidfd_open, pid, 0u);
  return 0;
}

static void close_ends(struct child *c) {
  close_fd(&c->in);
  close_fd(&c->out);
  close_fd(&c->err);
}

/* True when it has ended. */
static bool reap(struct child *c, int *ret_status) {
  int status;
  pid_t r;
  while ((r = waitpid(c->pid, &status, WNOHANG)) < 0 && errno == EINTR)
    ;
  if (r == 0)
    return false;
  *ret_status = r < 0 ? 127 << 8 : status; /* somebody else has taken it: only its end is known */
  c->pid = 0;
  close_fd(&c->pidfd);
  close_ends(c);
  return true;
}

/* Kernels without pidfds are asked again and again. */
#define REAP_POLL (20 * 1000)

int child_wait(struct child *c, usec_t deadline, int *ret_status) {
  while (!reap(c, ret_status)) {
    int r;
    if (c->pidfd >= 0) {
      r = fiber_wait_fd(c->pidfd, FIBER_READ, deadline);
    } else {
      r = fiber_sleep(REAP_POLL);
      if (r == 0 && loop_now_fresh() >= deadline)
        r = -ETIMEDOUT;
    }
    if (r < 0)
      return r;
  }
  return 0;
}

void child_kill(struct child *c, int signo) {
  if (c->pid > 0)
    kill(c->group ? -c->pid : c->pid, signo);
  close_ends(c);
}

/* Children that nobody waits for any more. */
struct orphan {
  struct child child;
  struct event event;
  struct orphan *next;
};
static struct orphan *orphans;

static void orphan_free(struct orphan *o) {
  struct orphan **at = &orphans;
  while (*at != o)
    at = &(*at)->next;
  *at = o->next;
  event_del(&o->event);
  free(o);
}

static void on_orphan(int fd, short what, void *arg) {
  struct orphan *o = arg;
  int status, pidfd = o->child.pidfd;
  o->child.pidfd = -1; /* closed only after the event is gone */
  if (!reap(&o->child, &status) && pidfd < 0) {
    event_add(&o->event, &(struct timeval){.tv_usec = REAP_POLL});
    return;
  }
  orphan_free(o);
  close_fd(&pidfd);
}

void child_release(struct child *c) {
  int status;
  close_ends(c);
  if (c->pid <= 0 || reap(c, &status))
    return;
  if (!loop.base) {
    close_fd(&c->pidfd);
    c->pid = 0;
    return;
  }
  struct orphan *o = xcalloc(1, sizeof *o);
  o->child = *c;
  o->next = orphans;
  orphans = o;
  event_assign(&o->event, loop.base, c->pidfd, c->pidfd >= 0 ? EV_READ : 0, on_orphan, o);
  event_add(&o->event, c->pidfd >= 0 ? NULL : &(struct timeval){.tv_usec = REAP_POLL});
  *c = (struct child){.in = -1, .out = -1, .err = -1, .pidfd = -1};
}

void child_forget_all(void) {
  while (orphans) {
    struct orphan *o = orphans;
    int pidfd = o->child.pidfd;
    orphan_free(o);
    close_fd(&pidfd);
  }
}

/* --- run to the end --- */

/* One step of feeding: closes the pipe when all is written or nobody reads. */
static void feed(struct child *c, struct str *input) {
  ssize_t n = input->len ? write(c->in, input->p, input->len) : 0;
  if (n > 0)
    *input = str_from(*input, (size_t)n);
  if (input->len == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    close_fd(&c->in);
}

/* One step of collecting. 0, or -EMSGSIZE. */
static int collect(struct child *c, struct buf *output) {
  char chunk[4096];
  ssize_t n = read(c->out, chunk, sizeof chunk);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    close_fd(&c->out);
  if (n <= 0)
    return 0;
  size_t room = output->max - output->len;
  buf_add_n(output, chunk, (size_t)n < room ? (size_t)n : room);
  return (size_t)n > room ? -EMSGSIZE : 0;
}

static int exchange(struct child *c, struct str input, struct buf *output, usec_t deadline) {
  if (input.len == 0)
    close_fd(&c->in);
  while (c->out >= 0) {
    struct pollfd fds[2] = {{.fd = c->out, .events = POLLIN}, {.fd = c->in, .events = POLLOUT}};
    int r = fiber_poll(fds, 2, deadline);
    if (r < 0)
      return r;
    if (fds[1].revents)
      feed(c, &input);
    if (fds[0].revents && (r = collect(c, output)) < 0)
      return r;
  }
  return 0;
}

int child_run(const struct child_spec *spec, struct arena *a, struct str input, size_t max, usec_t deadline,
    struct str *ret_output, int *ret_status) {
  struct child_spec piped = *spec;
  struct child c;
  struct buf output;
  piped.stdout_fd = -1;
  if (piped.stderr_fd == -1)
    piped.stderr_fd = -3;
  buf_init(&output, a, max);
  *ret_output = STR_EMPTY;
  int r = child_start(&piped, &c);
  if (r < 0)
    return r;
  r = exchange(&c, input, &output, deadline);
  if (r == 0)
    r = child_wait(&c, deadline, ret_status);
  *ret_output = buf_str(&output);
  if (r < 0) {
    child_kill(&c, SIGKILL);
    child_release(&c);
  }
  return r;
}
