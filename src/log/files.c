#include "log/files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_MODE 0640
#define LOG_DIRECTORY_MODE 0750

void log_paths_parse(struct arena *a, struct str list, struct str fallback, struct log_paths *ret) {
  *ret = (struct log_paths){0};
  if (!str_is_set(list))
    list = STR_EMPTY;
  int paths = 0;
  struct str rest = list;
  do {
    struct str item = str_trim(str_cut(&rest, ':'));
    if (str_eq_c(item, "syslog")) {
      ret->syslog = true;
      continue;
    }
    /* An empty item at the end of the list is none, unless it is all there is. */
    if (str_is_empty(item) && !str_is_set(rest) && (paths > 0 || ret->syslog))
      continue;
    if (paths++ == 0)
      ret->file = str_dup_c(a, str_is_empty(item) ? fallback : item);
  } while (str_is_set(rest));
  ret->too_many = paths > 1;
}

/* Takes %D or %M out of a panic log's name: with the character that set it apart. */
static void drop_stamp(char *name, size_t *n, const char **rest) {
  if (*n > 0 && name[*n - 1] == '/') {
    if (**rest != 0 && !isalnum((unsigned char)**rest))
      (*rest)++;
  } else if (*n > 0 && !isalnum((unsigned char)name[*n - 1]))
    (*n)--;
}

int log_file_name(const struct log_paths *p, enum log_kind kind, const struct tm *tm, char *name, size_t size) {
  static const char *const words[] = {"main", "reject", "panic", "debug"};
  size_t n = 0;
  for (const char *s = p->file; *s != 0;) {
    char part[16] = {*s, 0};
    const char *add = part;
    if (s[0] == '%' && s[1] == 's') {
      add = words[kind];
      s += 2;
    } else if (s[0] == '%' && (s[1] == 'D' || s[1] == 'M')) {
      bool day = s[1] == 'D';
      s += 2;
      if (kind == LOG_KIND_PANIC) {
        drop_stamp(name, &n, &s);
        continue;
      }
      strftime(part, sizeof part, day ? "%Y%m%d" : "%Y%m", tm);
    } else {
      s++;
    }
    size_t len = strlen(add);
    if (n + len + 1 > size)
      return -1;
    memcpy(name + n, add, len);
    n += len;
  }
  name[n] = 0;
  return 0;
}

/* Makes the directory of `name` when only its last component is missing. */
static void make_directory(const char *name, uid_t uid, gid_t gid) {
  char dir[1024];
  const char *slash = strrchr(name, '/');
  if (slash == NULL || slash == name || (size_t)(slash - name) >= sizeof dir)
    return;
  memcpy(dir, name, (size_t)(slash - name));
  dir[slash - name] = 0;
  if (mkdir(dir, LOG_DIRECTORY_MODE) == 0 && geteuid() == 0 && chown(dir, uid, gid) < 0)
    (void)rmdir(dir); /* a directory only root can write to would only hide the problem */
}

static int open_append(const char *name, uid_t uid, gid_t gid) {
  const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  /* Symbolic links are for the administrator to set up and to trust. */
  int fd = open(name, flags & ~O_NOFOLLOW);
  if (fd >= 0 || errno != ENOENT)
    return fd;
  fd = open(name, flags | O_CREAT | O_EXCL, LOG_MODE);
  if (fd < 0 && errno == ENOENT) {
    make_directory(name, uid, gid);
    fd = open(name, flags | O_CREAT | O_EXCL, LOG_MODE);
  }
  if (fd < 0 && errno == EEXIST) /* another process made it in between */
    return open(name, flags & ~O_NOFOLLOW);
  if (fd >= 0 && geteuid() == 0 && fchown(fd, uid, gid) == 0)
    (void)fchmod(fd, LOG_MODE); /* whatever the umask was */
  return fd;
}

int log_file_open(struct log_file *f, const char *name, uid_t uid, gid_t gid) {
  struct stat st;
  if (f->fd >= 0) {
    if (strcmp(f->name, name) == 0 && stat(name, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino)
      return 0;
    log_file_close(f);
  }
  if (strlen(name) >= sizeof f->name)
    return -ENAMETOOLONG;
  int fd = open_append(name, uid, gid);
  if (fd < 0)
    return -errno;
  if (fstat(fd, &st) < 0) {
    int rc = -errno;
    close(fd);
    return rc;
  }
  f->fd = fd;
  f->dev = st.st_dev;
  f->ino = st.st_ino;
  memcpy(f->name, name, strlen(name) + 1);
  return 0;
}

void log_file_close(struct log_file *f) {
  if (f->fd >= 0)
    close(f->fd);
  f->fd = -1;
}
