/* exiwhat: what the daemon's processes are doing (Exim manual, section "Finding out what Exim processes are doing"). The
daemon is asked through its notifier socket, with a pipe for the answers. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/tools/tools.h"
#include "daemon/daemon.h"
#include "loop/fiber.h"

#define ANSWER_SECONDS 15
#define PIPE_BYTES (1 << 20)

static bool socket_path(struct tool *t, const char *const *words, struct str *ret) {
  struct str spool;
  if (!tool_main_option(t, words, "notifier_socket", ret) || !tool_main_option(t, words, "spool_directory", &spool))
    return false;
  if (!ret->len || memchr(ret->p, '$', ret->len))
    *ret = str_printf(t->arena, "%.*s/exim_daemon_notify", STRF(spool));
  return true;
}

/* 0 or -errno. */
static int ask(struct str path, int answers) {
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  struct daemon_message m = {.type = DAEMON_WHAT};
  if (path.len >= sizeof sa.sun_path)
    return -ENAMETOOLONG;
  memcpy(sa.sun_path, path.p, path.len);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  int e = connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ? -errno : daemon_message_send(fd, &m, answers);
  close(fd);
  return e;
}

static int show(struct tool *t, int fd) {
  usec_t deadline = deadline_in(ANSWER_SECONDS);
  char text[8192];
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
  for (;;) {
    ssize_t n = read(fd, text, sizeof text);
    if (n == 0)
      return 0;
    if (n > 0) {
      fwrite(text, 1, (size_t)n, stdout);
    } else if (errno != EINTR && (errno != EAGAIN || fiber_wait_fd(fd, FIBER_READ, deadline) < 0)) {
      fprintf(stderr, "%s: not all processes have answered\n", t->name);
      return 1;
    }
  }
}

int tool_exiwhat(struct tool *t) {
  const char *words[64] = {NULL};
  struct tool_options o = {0};
  struct str value, path;
  int c, n = 0, ends[2];
  while ((c = tool_option(t, &o, "C:D:", &value))) {
    if (c == '?' || n > 60) {
      fprintf(stderr, "Usage: %s [-C file] [-D macro]\n", t->name);
      return 1;
    }
    words[n++] = str_dup_c(t->arena, str_printf(t->arena, "-%c%.*s", c, STRF(value)));
  }
  if (!socket_path(t, words, &path))
    return 1;
  if (pipe2(ends, O_CLOEXEC) < 0) {
    fprintf(stderr, "%s: %s\n", t->name, strerror(errno));
    return 1;
  }
  (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
  int e = ask(path, ends[1]);
  close(ends[1]);
  if (e)
    fprintf(stderr, "%s: no daemon at %.*s: %s\n", t->name, STRF(path), strerror(-e));
  int status = e ? 1 : show(t, ends[0]);
  close(ends[0]);
  return status;
}
