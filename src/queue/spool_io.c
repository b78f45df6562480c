#include "queue/spool_io.h"
#include "base/fd_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

int (*spool_fault)(const char *operation);

static atomic_int fault_countdown, fault_counted;
static int fault_code;

static int count_down(const char *operation) {
  atomic_fetch_add(&fault_counted, 1);
  return atomic_fetch_sub(&fault_countdown, 1) == 1 ? -fault_code : 0;
}

void spool_fault_at(int n, int code) {
  atomic_store(&fault_countdown, n);
  atomic_store(&fault_counted, 0);
  fault_code = code;
  spool_fault = n ? count_down : NULL;
}

int spool_fault_count(void) {
  return atomic_load(&fault_counted);
}

#define FAULT(operation)                                                                                               \
  do {                                                                                                                 \
    int fault_rc = spool_fault ? spool_fault(operation) : 0;                                                           \
    if (fault_rc)                                                                                                      \
      return fault_rc;                                                                                                 \
  } while (0)

int spool_io_open(int dir, const char *name, int flags, mode_t mode) {
  if (flags & (O_CREAT | O_TRUNC))
    FAULT("open");
  int fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
  return fd < 0 ? -errno : fd;
}

int spool_io_write(int fd, const char *p, size_t n) {
  FAULT("write");
  return fd_write_all(fd, p, n);
}

int spool_io_pwrite(int fd, const char *p, size_t n, off_t offset) {
  FAULT("pwrite");
  while (n) {
    ssize_t done = pwrite(fd, p, n, offset);
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return done < 0 ? -errno : -EIO;
    p += done;
    offset += done;
    n -= (size_t)done;
  }
  return 0;
}

int spool_io_datasync(int fd) {
  FAULT("fdatasync");
  return fdatasync(fd) ? -errno : 0;
}

int spool_io_sync_dir(int fd) {
  FAULT("fsync");
  return fsync(fd) ? -errno : 0;
}

int spool_io_sync_fs(int fd) {
  FAULT("syncfs");
  return syncfs(fd) ? -errno : 0;
}

int spool_io_rename(int from_dir, const char *from, int to_dir, const char *to) {
  FAULT("rename");
  return renameat(from_dir, from, to_dir, to) ? -errno : 0;
}

int spool_io_unlink(int dir, const char *name) {
  FAULT("unlink");
  return unlinkat(dir, name, 0) ? -errno : 0;
}

int spool_io_lock(int fd) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  /* Bound to the open file, not to the process: closing another descriptor of the file keeps it, and it still
  excludes Exim's process-bound lock. */
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
    return 0;
  return errno == EACCES ? -EAGAIN : -errno;
}
