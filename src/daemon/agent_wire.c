/* Datagrams between workers, agent and its user processes. */

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "daemon/agent.h"

static int put_in_memfd(struct str text) {
  int fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0)
    return -errno;
  while (text.len) {
    ssize_t n = write(fd, text.p, text.len);
    if (n < 0 && errno != EINTR) {
      int e = -errno;
      close(fd);
      return e;
    }
    if (n > 0)
      text = str_from(text, (size_t)n);
  }
  (void)!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return fd;
}

int agent_send(int channel, uint32_t number, struct str text, int body_fd) {
  struct agent_head head = {.number = number, .has_body = body_fd >= 0};
  int fds[2], n = 0, memfd = -1;
  if (text.len > AGENT_INLINE_MAX) {
    memfd = put_in_memfd(text);
    if (memfd < 0)
      return memfd;
    head.in_memfd = 1;
    fds[n++] = memfd;
    text = STR_EMPTY;
  }
  if (body_fd >= 0)
    fds[n++] = body_fd;
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof fds)];
  } control = {0};
  struct iovec iov[2] = {{&head, sizeof head}, {(void *)text.p, text.len}};
  struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
  if (n) {
    msg.msg_control = control.space;
    msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
  }
  ssize_t sent;
  do
    sent = sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  int e = sent < 0 ? -errno : 0;
  if (memfd >= 0)
    close(memfd);
  return e;
}

static int take_memfd(int fd, struct arena *a, struct str *ret) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (!S_ISREG(st.st_mode) || st.st_size > AGENT_TEXT_MAX)
    return -EMSGSIZE;
  char *p = arena_bytes(a, (size_t)st.st_size + 1);
  size_t used = 0;
  while (used < (size_t)st.st_size) {
    ssize_t n = pread(fd, p + used, (size_t)st.st_size - used, (off_t)used);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return -EIO;
    used += (size_t)n;
  }
  *ret = str_n(p, used);
  return 0;
}

static int take_fds(struct msghdr *msg, int *fds, int max) {
  int n = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      if (n < max)
        fds[n++] = fd;
      else
        close(fd);
    }
  }
  return n;
}

int agent_receive(int channel, struct arena *a, uint32_t *ret_number, struct str *ret_text, int *ret_body) {
  struct agent_head head;
  char *text = arena_bytes(a, AGENT_INLINE_MAX);
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int) * 4)];
  } control;
  struct iovec iov[2] = {{&head, sizeof head}, {text, AGENT_INLINE_MAX}};
  struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = control.space, .msg_controllen = sizeof control.space};
  ssize_t n;
  do
    n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  if (n == 0)
    return 0;
  int fds[2], count = take_fds(&msg, fds, 2), e = 0;
  bool sound = (size_t)n >= sizeof head && head.in_memfd <= 1 && head.has_body <= 1 &&
               count == (int)(head.in_memfd + head.has_body) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
  *ret_body = -1;
  if (sound && head.in_memfd)
    e = take_memfd(fds[0], a, ret_text);
  else if (sound)
    *ret_text = str_n(text, (size_t)n - sizeof head);
  if (sound && !e && head.has_body)
    *ret_body = fds[count - 1];
  for (int i = 0; i < count; i++)
    if (fds[i] != *ret_body)
      close(fds[i]);
  if (!sound)
    return -EBADMSG;
  *ret_number = head.number;
  return e ? e : 1;
}
