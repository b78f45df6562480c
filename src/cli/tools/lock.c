/* exim_lock: holds a mailbox while a command looks at it (Exim manual, section "Mailbox maintenance"). Locks as the appendfile
transport does: a lock file, fcntl, flock, and the file in /tmp that MBX readers know. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/tools/tools.h"

#define MBX_DIRECTORY "/tmp"

struct lock {
  struct tool *t;
  bool by_file, by_fcntl, by_flock, mbx, quiet, verbose, restore_times;
  int interval, retries, timeout;
  const char *path, *lock_name;
  char mbx_name[64];
  int fd, mbx_fd;
  struct stat before;
};

static int usage(void) {
  fputs("Usage: exim_lock [-v] [-q] [-lockfile] [-fcntl] [-flock] [-mbx]\n"
        "                 [-retries <n>] [-interval <n>] [-timeout <n>] [-restore-times]\n"
        "                 <file name> [command]\n", stderr);
  return 1;
}

static bool fail(const struct lock *l, const char *what) {
  fprintf(stderr, "exim_lock: %s %s: %s\n", what, l->path, strerror(errno));
  return false;
}

/* --- the lock file --- */

/* A file of another name is made and then linked: that is atomic over NFS too, where the count of links tells the truth. */
static bool try_lock_file(struct lock *l) {
  char host[256] = "";
  struct stat st;
  (void)gethostname(host, sizeof host - 1);
  const char *own = str_dup_c(l->t->arena, str_printf(l->t->arena, "%s.%s.%08x.%08x", l->lock_name, host, (unsigned)time(NULL), (unsigned)getpid()));
  int fd = open(own, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return false;
  (void)!link(own, l->lock_name);
  bool ours = fstat(fd, &st) == 0 && st.st_nlink == 2;
  close(fd);
  unlink(own);
  if (!ours)
    errno = EEXIST;
  return ours;
}

/* --- locks on the open file --- */

static void on_alarm(int sig) {}

static bool set_fcntl(const struct lock *l, int fd, short type) {
  struct flock f = {.l_type = type, .l_whence = SEEK_SET};
  if (l->timeout <= 0)
    return fcntl(fd, F_SETLK, &f) == 0;
  struct sigaction sa = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &sa, NULL);
  alarm((unsigned)l->timeout);
  bool ok = fcntl(fd, F_SETLKW, &f) == 0;
  alarm(0);
  return ok;
}

static bool lock_open(const struct lock *l, int fd, bool shared) {
  return (!l->by_fcntl || set_fcntl(l, fd, shared ? F_RDLCK : F_WRLCK)) && (!l->by_flock || flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0);
}

/* Nobody else's file or link may stand under this name in a directory that all may write. */
static bool lock_mbx(struct lock *l) {
  struct stat st, named;
  if (fstat(l->fd, &st))
    return false;
  snprintf(l->mbx_name, sizeof l->mbx_name, MBX_DIRECTORY "/.%lx.%lx", (unsigned long)st.st_dev, (unsigned long)st.st_ino);
  l->mbx_fd = open(l->mbx_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (l->mbx_fd < 0)
    return false;
  if (fstat(l->mbx_fd, &st) || lstat(l->mbx_name, &named) || !S_ISREG(named.st_mode) || named.st_nlink != 1 || named.st_ino != st.st_ino) {
    errno = EPERM;
    return false;
  }
  return lock_open(l, l->mbx_fd, false);
}

static void let_go(struct lock *l, bool keep_lock_file) {
  if (l->mbx_fd >= 0) {
    /* It is nobody's any more if the mailbox can be had alone. */
    if (lock_open(l, l->fd, false))
      unlink(l->mbx_name);
    close(l->mbx_fd);
  }
  if (l->fd >= 0)
    close(l->fd);
  if (l->by_file && !keep_lock_file)
    unlink(l->lock_name);
  l->fd = l->mbx_fd = -1;
}

static bool take(struct lock *l) {
  if (l->by_file && !try_lock_file(l))
    return false;
  l->fd = open(l->path, l->by_fcntl || l->by_flock || l->mbx ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
  bool ok = l->fd >= 0 && fstat(l->fd, &l->before) == 0 && lock_open(l, l->fd, l->mbx) && (!l->mbx || lock_mbx(l));
  if (!ok) {
    int e = errno;
    let_go(l, false);
    errno = e;
  }
  return ok;
}

static bool busy(int e) { return e == EEXIST || e == EAGAIN || e == EACCES || e == EINTR || e == EWOULDBLOCK; }

static bool take_in_time(struct lock *l) {
  for (int i = 0;; i++) {
    if (take(l))
      return true;
    if (!busy(errno) || i >= l->retries)
      return fail(l, "failed to lock");
    if (l->verbose)
      printf("exim_lock: %s is locked (%s): waiting\n", l->path, strerror(errno));
    fflush(stdout);
    sleep((unsigned)l->interval);
  }
}

/* --- the command --- */

static int run_command(const char *command) {
  const char *shell = getenv("SHELL");
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    signal(SIGPIPE, SIG_DFL);
    if (command)
      execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    else
      execl(shell && *shell ? shell : "/bin/sh", shell && *shell ? shell : "sh", (char *)NULL);
    _exit(127);
  }
  int status = 0;
  if (pid < 0)
    return 1;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int with_lock(struct lock *l, const char *command) {
  if (!take_in_time(l))
    return 1;
  if (!l->quiet)
    printf("exim_lock: %s locked%s%s%s%s\n", l->path, l->by_file ? " lockfile" : "", l->by_fcntl ? " fcntl" : "", l->by_flock ? " flock" : "",
        l->mbx ? " mbx" : "");
  int status = run_command(command);
  if (l->restore_times)
    (void)futimens(l->fd, (const struct timespec[]){l->before.st_atim, l->before.st_mtim});
  let_go(l, false);
  if (!l->quiet)
    printf("exim_lock: %s unlocked\n", l->path);
  return status;
}

/* --- options --- */

static bool number(const char *text, int *ret) {
  char *end;
  long n = text ? strtol(text, &end, 10) : -1;
  if (!text || !*text || *end || n < 0 || n > 100000)
    return false;
  *ret = (int)n;
  return true;
}

/* How many words it was; 0: it is none. */
static int take_option(struct lock *l, const char *word, const char *next) {
  const struct {
    const char *name;
    bool *flag;
    int *number;
  } known[] = {{"-lockfile", &l->by_file, NULL}, {"-fcntl", &l->by_fcntl, NULL}, {"-flock", &l->by_flock, NULL}, {"-mbx", &l->mbx, NULL},
      {"-q", &l->quiet, NULL}, {"-v", &l->verbose, NULL}, {"-restore-times", &l->restore_times, NULL}, {"-restore_times", &l->restore_times, NULL},
      {"-restore_time", &l->restore_times, NULL}, {"-interval", NULL, &l->interval}, {"-retries", NULL, &l->retries}, {"-timeout", NULL, &l->timeout}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(word, known[i].name))
      continue;
    if (known[i].flag)
      *known[i].flag = true;
    else if (!number(next, known[i].number))
      return 0;
    return known[i].flag ? 1 : 2;
  }
  return 0;
}

int tool_lock(struct tool *t) {
  struct lock l = {.t = t, .interval = 3, .retries = 10, .fd = -1, .mbx_fd = -1};
  int i = 0;
  while (i < t->argc && t->argv[i][0] == '-') {
    int n = take_option(&l, t->argv[i], i + 1 < t->argc ? t->argv[i + 1] : NULL);
    if (!n)
      return usage();
    i += n;
  }
  if (i >= t->argc || t->argc - i > 2)
    return usage();
  if (!l.by_file && !l.by_fcntl && !l.by_flock && !l.mbx)
    l.by_file = l.by_fcntl = true;
  if (l.mbx && !l.by_flock)
    l.by_fcntl = true;
  l.path = t->argv[i];
  l.lock_name = str_dup_c(t->arena, str_printf(t->arena, "%s.lock", l.path));
  return with_lock(&l, t->argv[i + 1]);
}
