/* The steps on files, in the order that docs/internals/spool.md gives. They
block: callers run them in an offload thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/fd_io.h"
#include "queue/spool_internal.h"

#define FILE_MODE 0640

void spool_name(char *to, const char *id, char which) {
  snprintf(to, SPOOL_NAME_MAX, "%.23s-%c", id, which);
}

/* The -H file before its time. The name does not look like one of a message to anybody. */
static void temporary_name(char *to, const char *id) {
  snprintf(to, SPOOL_NAME_MAX, "hdr.%.23s", id);
}

int spool_file_create_data(int dir, const char *id) {
  char name[SPOOL_NAME_MAX];
  spool_name(name, id, 'D');
  int fd = spool_io_open(dir, name, O_RDWR | O_CREAT | O_EXCL, FILE_MODE);
  if (fd < 0)
    return fd;
  size_t n = strlen(name);
  name[n] = '\n';
  int rc = spool_own(fd);
  if (rc == 0)
    rc = spool_io_lock(fd);
  if (rc == 0)
    rc = spool_io_write(fd, name, n + 1);
  if (rc == 0)
    return fd;
  name[n] = '\0';
  unlinkat(dir, name, 0);
  close(fd);
  return rc;
}

static int write_header(int dir, const char *temporary, struct str header, bool sync) {
  int fd = spool_io_open(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC, FILE_MODE);
  if (fd < 0)
    return fd;
  int rc = spool_own(fd);
  if (rc == 0)
    rc = spool_io_write(fd, header.p, header.len);
  if (rc == 0 && sync)
    rc = spool_io_datasync(fd);
  /* close() tells of delayed write errors on network file systems. */
  if (close(fd) && rc == 0)
    rc = -errno;
  return rc;
}

int spool_file_replace_header(int dir, const char *id, struct str header, bool sync) {
  char temporary[SPOOL_NAME_MAX], name[SPOOL_NAME_MAX];
  temporary_name(temporary, id);
  spool_name(name, id, 'H');
  int rc = write_header(dir, temporary, header, sync);
  if (rc == 0)
    rc = spool_io_rename(dir, temporary, dir, name);
  if (rc)
    unlinkat(dir, temporary, 0);
  return rc;
}

int spool_files_create(struct spool_files *f) {
  char name[SPOOL_NAME_MAX];
  int rc = 0;
  if (f->data_fd < 0) {
    f->data_fd = spool_file_create_data(f->dir, f->id);
    if (f->data_fd < 0)
      return f->data_fd;
  }
  if (f->body.len)
    rc = spool_io_write(f->data_fd, f->body.p, f->body.len);
  if (rc == 0 && f->sync)
    rc = spool_io_datasync(f->data_fd);
  if (rc == 0)
    rc = spool_file_replace_header(f->dir, f->id, f->header, f->sync);
  if (rc == 0 && f->sync) {
    rc = spool_io_sync_dir(f->dir);
    if (rc) {
      spool_name(name, f->id, 'H');
      unlinkat(f->dir, name, 0);
    }
  }
  if (rc) {
    spool_name(name, f->id, 'D');
    unlinkat(f->dir, name, 0);
    close(f->data_fd);
    f->data_fd = -1;
  }
  return rc;
}

int spool_file_read(int dir, const char *name, size_t max, char **ret, size_t *ret_len) {
  int fd = spool_io_open(dir, name, O_RDONLY | O_NONBLOCK, 0);
  if (fd < 0)
    return fd;
  struct stat st;
  int rc = fstat(fd, &st) ? -errno : !S_ISREG(st.st_mode) ? -EINVAL : 0;
  size_t size = rc == 0 && st.st_size > 0 ? (size_t)st.st_size : 0;
  if (size > max)
    size = max;
  char *p = rc == 0 ? xmalloc(size + 1) : NULL;
  ssize_t n = rc == 0 ? fd_read_all(fd, p, size) : rc;
  close(fd);
  if (n < 0) {
    free(p);
    return (int)n;
  }
  p[n] = '\0';
  *ret = p;
  *ret_len = (size_t)n;
  return 0;
}

/* -H first: from then on there is no message. -J last: while there is a -H, what it says must not get lost. */
int spool_files_remove(int dir, const char *id, bool journal) {
  char name[SPOOL_NAME_MAX];
  spool_name(name, id, 'H');
  int rc = spool_io_unlink(dir, name);
  if (rc && rc != -ENOENT)
    return rc;
  spool_name(name, id, 'D');
  rc = spool_io_unlink(dir, name);
  if (rc == -ENOENT)
    rc = 0;
  if (journal) {
    spool_name(name, id, 'J');
    int rc2 = spool_io_unlink(dir, name);
    if (rc == 0 && rc2 != -ENOENT)
      rc = rc2;
  }
  return rc;
}
