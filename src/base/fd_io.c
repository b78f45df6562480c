#include "base/fd_io.h"

#include <errno.h>
#include <unistd.h>

int fd_write_all(int fd, const void *p, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t k = write(fd, (const char *)p + done, n - done);
    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0)
      return k < 0 ? -errno : -EIO;
    done += (size_t)k;
  }
  return 0;
}

ssize_t fd_read_all(int fd, void *to, size_t n) {
  size_t done = 0;
  while (done < n) {
    ssize_t k = read(fd, (char *)to + done, n - done);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return -errno;
    if (k == 0)
      break;
    done += (size_t)k;
  }
  return (ssize_t)done;
}

ssize_t fd_pread_all(int fd, void *to, size_t n, off_t at) {
  size_t done = 0;
  while (done < n) {
    ssize_t k = pread(fd, (char *)to + done, n - done, at + (off_t)done);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return -errno;
    if (k == 0)
      break;
    done += (size_t)k;
  }
  return (ssize_t)done;
}
