/* MBX mailboxes, the format of the c-client library (Exim manual, option
mbx_format): a header of 2048 bytes, then messages with CRLF line ends, each
behind a line with its size. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/fd_io.h"
#include "transport/plan.h"

#define HEADER_SIZE 2048
#define KEYWORDS 30

static int write_header(struct arena *a, int fd) {
  struct buf b;
  buf_init(&b, a, HEADER_SIZE);
  buf_printf(&b, "*mbx*\r\n%08lx00000000\r\n", (unsigned long)time(NULL));
  for (int i = 0; i < KEYWORDS; i++)
    buf_add_c(&b, "\r\n");
  while (b.len < HEADER_SIZE)
    buf_add_byte(&b, 0);
  struct str text = buf_str(&b);
  return fd_write_all(fd, text.p, text.len);
}

int plan_write_mbx(struct arena *a, const struct plan *p, int body_fd, int fd, int64_t *ret_size) {
  struct stat st;
  struct tm tm;
  char date[64];
  time_t now = time(NULL);
  int64_t size;
  int e = plan_write_message(p, body_fd, -1, &size);
  if (e || fstat(fd, &st))
    return e ? e : -errno;
  if (st.st_size == 0 && (e = write_header(a, fd)))
    return e;
  localtime_r(&now, &tm);
  strftime(date, sizeof date, "%d-%b-%Y %H:%M:%S %z", &tm);
  struct str line = str_printf(a, "%s,%lld;000000000000-00000000\r\n", date, (long long)size);
  if ((e = fd_write_all(fd, line.p, line.len)))
    return e;
  return plan_write_message(p, body_fd, fd, ret_size);
}

int plan_mbx_lock(int fd, char *ret_path, size_t size) {
  struct stat st, link, opened;
  if (fstat(fd, &st))
    return -errno;
  snprintf(ret_path, size, "/tmp/.%lx.%lx", (unsigned long)st.st_dev, (unsigned long)st.st_ino);
  bool there = lstat(ret_path, &link) == 0;
  if (there && (!S_ISREG(link.st_mode) || link.st_nlink != 1)) /* somebody plays tricks in /tmp */
    return -EPERM;
  int lock = open(ret_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0)
    return -errno;
  if (flock(lock, LOCK_EX | LOCK_NB) < 0 || fstat(lock, &opened) || lstat(ret_path, &link) || link.st_ino != opened.st_ino ||
      link.st_dev != opened.st_dev) {
    close(lock);
    return -EAGAIN;
  }
  (void)!fchmod(lock, 0666); /* other users of the mailbox are other users */
  return lock;
}

void plan_mbx_unlock(int fd, int lock_fd, const char *path) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (lock_fd < 0)
    return;
  if (!fcntl(fd, F_SETLK, &l))
    unlink(path);
  close(lock_fd);
}
