/* Datagrams between workers, agent and its user processes. */

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "base/fd_pass.h"
#include "daemon/agent.h"

static int put_in_memfd(struct str text) {
  int fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0)
    return -errno;
  int e = fd_write_all(fd, text.p, text.len);
  if (e) {
    close(fd);
    return e;
  }
  (void)!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return fd;
}

int agent_send(int channel, uint32_t number, struct str text, int body_fd) {
  struct agent_head head = {.number = number, .has_body = body_fd >= 0};
  int fds[2] = {-1, -1}, memfd = -1;
  size_t n = 0;
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
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)text.p, text.len}};
  int e = fd_pass_send(channel, parts, 2, fds, n, MSG_DONTWAIT);
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
  if (fd_pread_all(fd, p, (size_t)st.st_size, 0) != (ssize_t)st.st_size)
    return -EIO;
  *ret = str_n(p, (size_t)st.st_size);
  return 0;
}

int agent_receive(int channel, struct arena *a, uint32_t *ret_number, struct str *ret_text, int *ret_body) {
  struct agent_head head;
  char *text = arena_bytes(a, AGENT_INLINE_MAX);
  struct iovec parts[2] = {{&head, sizeof head}, {text, AGENT_INLINE_MAX}};
  int fds[2], e = 0;
  size_t count;
  *ret_body = -1;
  ssize_t n = fd_pass_receive(channel, parts, 2, fds, 2, &count, 0);
  if (n <= 0)
    return (int)n;
  bool sound = (size_t)n >= sizeof head && head.in_memfd <= 1 && head.has_body <= 1 && count == (size_t)head.in_memfd + head.has_body;
  if (sound && head.in_memfd)
    e = take_memfd(fds[0], a, ret_text);
  else if (sound)
    *ret_text = str_n(text, (size_t)n - sizeof head);
  if (sound && !e && head.has_body)
    *ret_body = fds[count - 1];
  for (size_t i = 0; i < count; i++)
    if (fds[i] != *ret_body)
      close(fds[i]);
  if (!sound)
    return -EBADMSG;
  *ret_number = head.number;
  return e ? e : 1;
}
