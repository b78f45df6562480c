/* exim_id_update: message ids of the form before Exim 4.97 (6-6-2) become ids of today's (6-11-4), or the other way round, for
who goes on with another program's spool. No daemon may run meanwhile. Until the old header is gone there are two messages: a crash
in between may deliver one twice, but loses none. */

#include "cli/id_update.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd_io.h"
#include "base/str.h"
#include "message/message.h"

#define OLD_LEN 16
#define NEW_LEN 23
#define OLD_TICK 500 /* microseconds of an old id's last part */
#define COPY_BYTES (64 << 10)
#define NAME_BYTES 40

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static long number(const char *p, int n) {
  long value = 0;
  for (int i = 0; i < n; i++) {
    const char *d = memchr(digits, p[i], 62);
    value = value * 62 + (d ? d - digits : 0);
  }
  return value;
}

static void put_number(char *p, int n, long value) {
  for (; n > 0; value /= 62)
    p[--n] = digits[value % 62];
}

/* `more`: added to the fraction, when that id is taken. False: there is no further one. */
static bool other_form(const char *id, bool up, int more, char ret[NEW_LEN + 1]) {
  long ticks = up ? number(id + 14, 2) * OLD_TICK + more : number(id + 19, 4) / OLD_TICK + more;
  memset(ret, 0, NEW_LEN + 1);
  memcpy(ret, id, 7);
  if (up) {
    memcpy(ret + 7, "00000", 5);
    memcpy(ret + 12, id + 7, 6);
    ret[18] = '-';
    put_number(ret + 19, 4, ticks);
    return ticks < 62L * 62 * 62 * 62;
  }
  memcpy(ret + 7, id + 12, 6); /* of a number beyond 31 bits the rest is lost */
  ret[13] = '-';
  put_number(ret + 14, 2, ticks);
  return ticks < 62 * 62;
}

/* The rest of `from` behind its first line, which has to be `line`, under another first line. */
static int copy_rest(int from, const char *line, int to, const char *new_line) {
  char text[COPY_BYTES];
  size_t n = strlen(line);
  int rc = pread(from, text, n + 1, 0) == (ssize_t)n + 1 && !memcmp(text, line, n) && text[n] == '\n' ? 0 : -EBADMSG;
  if (!rc)
    rc = fd_write_all(to, new_line, strlen(new_line));
  if (!rc)
    rc = fd_write_all(to, "\n", 1);
  off_t at = (off_t)n + 1;
  for (ssize_t got; !rc && (got = pread(from, text, sizeof text, at)); at += got)
    rc = got < 0 ? -errno : fd_write_all(to, text, (size_t)got);
  return rc;
}

/* `lock`: descriptor of -D, on which the caller has the lock, or -1. */
static int copy_file(int dir, const char *name, int fd, const char *new_name) {
  struct stat st;
  int from = fd >= 0 ? fd : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = from < 0 || fstat(from, &st) ? -errno : 0;
  int to = rc ? -1 : openat(dir, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (!rc && to < 0)
    rc = -errno;
  if (!rc)
    rc = copy_rest(from, name, to, new_name);
  if (!rc && (fchown(to, st.st_uid, st.st_gid) || fchmod(to, st.st_mode & 07777) || fsync(to)))
    rc = -errno;
  if (to >= 0)
    close(to);
  if (from >= 0 && fd < 0)
    close(from);
  if (rc && to >= 0)
    unlinkat(dir, new_name, 0);
  return rc;
}

static void name_of(char name[NAME_BYTES], const char *id, char which) { snprintf(name, NAME_BYTES, "%s-%c", id, which); }

static int convert(int dir, int log, const char *id, bool up) {
  char other[NEW_LEN + 1], from[NAME_BYTES], to[NAME_BYTES];
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
  struct stat st;
  int more = 0, rc;
  do
    if (!other_form(id, up, more++, other))
      return -EEXIST;
  while (name_of(to, other, 'D'), !fstatat(dir, to, &st, AT_SYMLINK_NOFOLLOW));
  name_of(from, id, 'D');
  int data = openat(dir, from, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (data < 0)
    return -errno;
  rc = fcntl(data, F_SETLK, &lock) ? -EBUSY : copy_file(dir, from, data, to);
  if (!rc) {
    char data_name[NAME_BYTES];
    memcpy(data_name, to, sizeof data_name);
    name_of(from, id, 'H');
    name_of(to, other, 'H');
    rc = copy_file(dir, from, -1, to);
    if (rc)
      unlinkat(dir, data_name, 0);
  }
  if (!rc) {
    name_of(from, id, 'J');
    name_of(to, other, 'J');
    (void)renameat(dir, from, dir, to);
    (void)fsync(dir);
    for (const char *which = "HD"; *which; which++) {
      name_of(from, id, *which);
      unlinkat(dir, from, 0);
    }
    if (log >= 0)
      (void)renameat(log, id, log, other);
  }
  close(data);
  return rc;
}

static bool is_header(const char *name, bool up) {
  size_t n = strlen(name), len = up ? OLD_LEN : NEW_LEN;
  return n == len + 2 && !strcmp(name + len, "-H") && message_id_valid(str_n(name, (uint32_t)len));
}

/* One directory of messages. What is made while it is read has the other form. */
static int each_message(int at, const char *input, const char *msglog, bool up) {
  int dir = openat(at, input, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), status = 0;
  DIR *d = dir < 0 ? NULL : fdopendir(dir);
  if (!d) {
    if (dir >= 0)
      close(dir);
    return 0;
  }
  int log = openat(at, msglog, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  for (struct dirent *e; (e = readdir(d));) {
    char id[NEW_LEN + 1] = {0};
    if (!is_header(e->d_name, up))
      continue;
    memcpy(id, e->d_name, up ? OLD_LEN : NEW_LEN);
    int rc = convert(dir, log, id, up);
    if (rc)
      fprintf(stderr, "exim_id_update: %s: %s\n", id, rc == -EBADMSG ? "not as it should be" : strerror(-rc));
    status |= rc != 0;
  }
  if (log >= 0)
    close(log);
  closedir(d);
  return status;
}

/* The queue in a directory: input, or input/X of a split spool. */
static int each_queue(int at, const char *name, bool up) {
  int dir = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), status = 0;
  if (dir < 0)
    return 0;
  status |= each_message(dir, "input", "msglog", up);
  for (int i = 0; i < 62; i++) {
    char input[16], msglog[16];
    snprintf(input, sizeof input, "input/%c", digits[i]);
    snprintf(msglog, sizeof msglog, "msglog/%c", digits[i]);
    status |= each_message(dir, input, msglog, up);
  }
  close(dir);
  return status;
}

int id_update_run(const char *spool, bool up) {
  int at = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = at < 0 ? NULL : fdopendir(at);
  if (!d) {
    fprintf(stderr, "exim_id_update: %s: %s\n", spool, strerror(errno));
    if (at >= 0)
      close(at);
    return 1;
  }
  int status = each_queue(at, ".", up);
  for (struct dirent *e; (e = readdir(d));) /* named queues */
    if (e->d_name[0] != '.')
      status |= each_queue(at, e->d_name, up);
  closedir(d);
  return status;
}
