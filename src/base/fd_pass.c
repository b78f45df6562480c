#include "base/fd_pass.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
  struct cmsghdr align;
  char space[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
};

int fd_pass_send(int socket, const struct iovec *parts, size_t parts_n, const int *fds, size_t fds_n, int flags) {
  union control control = {0};
  struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = parts_n};
  if (fds_n > FD_PASS_MAX)
    return -EINVAL;
  if (fds_n) {
    msg.msg_control = control.space;
    msg.msg_controllen = CMSG_SPACE(sizeof *fds * fds_n);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof *fds * fds_n);
    memcpy(CMSG_DATA(c), fds, sizeof *fds * fds_n);
  }
  ssize_t n;
  do
    n = sendmsg(socket, &msg, MSG_NOSIGNAL | flags);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

/* How many came; those beyond max are closed. (CMSG_SPACE rounds up: the kernel may put one more there than was asked for.) */
static size_t take(struct msghdr *msg, int *fds, size_t max) {
  size_t n = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    for (size_t i = 0, count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i < count; i++, n++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (n < max)
        fds[n] = fd;
      else
        close(fd);
    }
  }
  return n;
}

ssize_t fd_pass_receive(int socket, const struct iovec *parts, size_t parts_n, int *fds, size_t max, size_t *ret_n, int flags) {
  union control control = {0};
  struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = parts_n, .msg_control = control.space};
  ssize_t n;
  *ret_n = 0;
  if (max > FD_PASS_MAX)
    return -EINVAL;
  msg.msg_controllen = CMSG_SPACE(sizeof *fds * max);
  do
    n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | flags);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  size_t came = take(&msg, fds, max);
  bool bad = came > max || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
  if (n > 0 && !bad) {
    *ret_n = came;
    return n;
  }
  for (size_t i = 0; i < came && i < max; i++)
    close(fds[i]);
  return bad ? -EBADMSG : 0;
}
