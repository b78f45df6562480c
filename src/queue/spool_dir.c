/* Directories of the spool, each opened once: SPOOL[/QUEUE]/input[/X]. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>
#include "core/main_options.h"
#include "queue/spool_internal.h"

/* Queues times letters; descriptors are never given back while the process runs, as threads may use them. */
#define DIRS_MAX 1000
#define DIR_MODE 0750

static struct spool_root root = {.fd = -1};
static struct cached_dir {
  char name[100];
  int fd;
} dirs[DIRS_MAX];
static size_t dirs_n;
static pthread_mutex_t dirs_lock = PTHREAD_MUTEX_INITIALIZER;

const struct spool_root *spool_root(void) {
  return &root;
}

void spool_close(void) {
  for (size_t i = 0; i < dirs_n; i++)
    close(dirs[i].fd);
  dirs_n = 0;
  if (root.fd >= 0)
    close(root.fd);
  root = (struct spool_root){.fd = -1};
}

int spool_own(int fd) {
  return root.change_owner && fchown(fd, root.uid, root.gid) ? -errno : 0;
}

/* Opens a directory below another; makes it when asked. */
static int open_dir(int at, const char *name, bool create) {
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT || !create)
    return fd < 0 ? -errno : fd;
  if (mkdirat(at, name, DIR_MODE) && errno != EEXIST)
    return -errno;
  fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  /* The new name must survive a crash, or all that is synced below it would be lost. */
  int rc = spool_own(fd);
  if (rc == 0 && at >= 0)
    rc = spool_io_sync_dir(at);
  if (rc) {
    close(fd);
    return rc;
  }
  return fd;
}

int spool_open_root(struct str path, bool split, bool change_owner, unsigned uid, unsigned gid) {
  spool_close();
  if (path.len == 0 || path.len >= sizeof root.path || str_is_tainted(path))
    return -EINVAL;
  memcpy(root.path, path.p, path.len);
  root.path[path.len] = '\0';
  root.split = split;
  root.change_owner = change_owner;
  root.uid = uid;
  root.gid = gid;
  int fd = open(root.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT)
    fd = open_dir(AT_FDCWD, root.path, true);
  else if (fd < 0)
    fd = -errno;
  if (fd < 0)
    return fd;
  root.fd = fd;
  root.opened = true;
  return 0;
}

int spool_open(const struct config *config) {
  if (root.opened)
    return 0;
  const struct main_options *o = main_options(config);
  return spool_open_root(o->spool_directory, o->split_spool_directory, geteuid() == 0, o->exim_user.id,
    o->exim_group.id);
}

bool spool_queue_name_valid(struct str name) {
  if (name.len > 60 || (name.len && name.p[0] == '.'))
    return false;
  for (uint32_t i = 0; i < name.len; i++)
    if (name.p[i] == '/' || name.p[i] <= ' ' || name.p[i] == 127)
      return false;
  return true;
}

static int cached(const char *name) {
  for (size_t i = 0; i < dirs_n; i++)
    if (strcmp(dirs[i].name, name) == 0)
      return dirs[i].fd;
  return -ENOENT;
}

static int cache(const char *name, int fd) {
  if (dirs_n == DIRS_MAX) {
    close(fd);
    return -EMFILE;
  }
  struct cached_dir *d = &dirs[dirs_n++];
  snprintf(d->name, sizeof d->name, "%s", name);
  d->fd = fd;
  return fd;
}

/* Opens "a/b/c" part by part. */
static int open_path(const char *path, bool create) {
  int fd = cached(path);
  if (fd >= 0)
    return fd;
  int at = root.fd;
  char part[100];
  for (const char *p = path; *p;) {
    size_t n = strcspn(p, "/");
    snprintf(part, sizeof part, "%.*s", (int)n, p);
    fd = open_dir(at, part, create);
    if (at != root.fd)
      close(at);
    if (fd < 0)
      return fd;
    at = fd;
    p += n + (p[n] == '/');
  }
  return cache(path, fd);
}

static int open_path_locked(const char *path, bool create) {
  pthread_mutex_lock(&dirs_lock);
  int fd = open_path(path, create);
  pthread_mutex_unlock(&dirs_lock);
  return fd;
}

int spool_purpose_dir(struct str queue_name, const char *purpose, const char *subdir, bool create) {
  char path[100];
  if (!root.opened || !spool_queue_name_valid(queue_name))
    return -EINVAL;
  snprintf(path, sizeof path, "%.*s%s%s%s%.1s", STRF(queue_name), queue_name.len ? "/" : "", purpose,
    *subdir ? "/" : "", subdir);
  return open_path_locked(path, create);
}

int spool_dir(struct str queue_name, const char *subdir, bool create) {
  return spool_purpose_dir(queue_name, "input", subdir, create);
}

int spool_other_dir(const char *name, bool create) {
  return root.opened ? open_path_locked(name, create) : -EINVAL;
}
