/* Datagrams between master and workers, and from one-shot commands. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd_pass.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "loop/fiber.h"

int daemon_message_send(int channel, const struct daemon_message *m, int fd) {
  struct iovec part = {(void *)(uintptr_t)m, sizeof *m};
  return fd_pass_send(channel, &part, 1, &fd, fd >= 0, 0);
}

int daemon_message_receive(int channel, struct daemon_message *ret, int *ret_fd) {
  struct iovec part = {ret, sizeof *ret};
  int fd = -1;
  size_t fds_n;
  *ret_fd = -1;
  ssize_t n = fd_pass_receive(channel, &part, 1, &fd, 1, &fds_n, MSG_DONTWAIT);
  if (n <= 0)
    return (int)n;
  if (n != sizeof *ret) {
    if (fds_n)
      close(fd);
    return -EBADMSG;
  }
  if (fds_n)
    *ret_fd = fd;
  ret->id[sizeof ret->id - 1] = 0;
  ret->queue_name[sizeof ret->queue_name - 1] = 0;
  ret->run.select_recipient[sizeof ret->run.select_recipient - 1] = 0;
  ret->run.select_sender[sizeof ret->run.select_sender - 1] = 0;
  return 1;
}

struct str daemon_notifier_path(const struct config *c, struct arena *a) {
  struct str set = main_options(c)->notifier_socket.text;
  if (str_is_set(set) && !memchr(set.p, '$', set.len))
    return set;
  return str_printf(a, "%.*s/exim_daemon_notify", STRF(main_options(c)->spool_directory));
}

static bool notify(const struct config *c, enum daemon_message_type type, const char *id, struct str queue_name) {
  struct arena *a = arena_new("notify");
  struct str path = daemon_notifier_path(c, a);
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  struct daemon_message m = {.type = type};
  bool ok = false, wait = type == DAEMON_CHANGED_MESSAGE || type == DAEMON_RAMP;
  if (path.len && path.len < sizeof sa.sun_path && queue_name.len < sizeof m.queue_name) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(sa.sun_path, path.p, path.len);
    memcpy(m.queue_name, queue_name.p ? queue_name.p : "", queue_name.len);
    strncpy(m.id, id, sizeof m.id - 1);
    if (fd >= 0) {
      struct timeval patience = {.tv_usec = 200000};
      if (wait)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
      ok = sendto(fd, &m, sizeof m, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT), (struct sockaddr *)&sa, sizeof sa) == sizeof m;
      close(fd);
    }
  }
  arena_free(a);
  return ok;
}

/* --- before a command looks at the spool --- */

#define SHOW_SECONDS 10
#define SEND_SECONDS 1

struct show {
  struct sockaddr_un to;
  int pipe;
};

/* The socket's queue may be full for a moment. */
static int ask_for_files(void *arg) {
  struct show *w = arg;
  struct daemon_message m = {.type = DAEMON_FILES};
  struct timeval patience = {.tv_sec = SEND_SECONDS};
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  int rc = connect(fd, (struct sockaddr *)&w->to, sizeof w->to) < 0 ? -errno : daemon_message_send(fd, &m, w->pipe);
  close(fd);
  return rc;
}

void daemon_show_messages(const struct config *c) {
  struct arena *a = arena_new("notify");
  struct str path = daemon_notifier_path(c, a);
  struct show w = {.to.sun_family = AF_UNIX};
  int ends[2];
  if (path.len && path.len < sizeof w.to.sun_path && pipe2(ends, O_CLOEXEC) == 0) {
    memcpy(w.to.sun_path, path.p, path.len);
    w.pipe = ends[1];
    int rc = fiber_offload(ask_for_files, &w);
    close(ends[1]);
    if (rc >= 0) /* closed by all who were asked */
      (void)fiber_wait_fd(ends[0], FIBER_READ, deadline_in(SHOW_SECONDS));
    close(ends[0]);
  }
  arena_free(a);
}

bool daemon_notify(const struct config *c, const char *id, struct str queue_name) {
  return notify(c, DAEMON_NEW_MESSAGE, id, queue_name);
}

bool daemon_notify_ramp(const struct config *c, const char *id, struct str queue_name) {
  return notify(c, DAEMON_RAMP, id, queue_name);
}

bool daemon_notify_changed(const struct config *c, const char *id, struct str queue_name) {
  return notify(c, DAEMON_CHANGED_MESSAGE, id, queue_name);
}

int daemon_owner(const char *id, int n) {
  uint32_t h = 2166136261u;
  for (; *id; id++)
    h = (h ^ (unsigned char)*id) * 16777619u;
  h ^= h >> 15;
  return n > 1 ? (int)(h % (uint32_t)n) : 0;
}
