/* Datagrams between master and workers, and from one-shot commands. */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/main_options.h"
#include "daemon/daemon.h"

int daemon_message_send(int channel, const struct daemon_message *m, int fd) {
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof fd)];
  } control = {0};
  struct iovec iov = {(void *)m, sizeof *m};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  if (fd >= 0) {
    msg.msg_control = control.space;
    msg.msg_controllen = sizeof control.space;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  ssize_t n;
  do
    n = sendmsg(channel, &msg, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

int daemon_message_receive(int channel, struct daemon_message *ret, int *ret_fd) {
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec iov = {ret, sizeof *ret};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  ssize_t n;
  *ret_fd = -1;
  do
    n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n <= 0)
    return n < 0 ? -errno : 0;
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
    memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
  if (n != sizeof *ret)
    return -EBADMSG;
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
