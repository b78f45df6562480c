/* Maildir: a new file under tmp/, synced, then renamed into new/ (or linked
with a tag). Names are unique by time, process and host. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/arena.h"
#include "deliver/errors.h"
#include "base/pcre.h"
#include "transport/plan.h"

static int open_directory(const struct plan *p, const char *path) {
  return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Makes tmp, new and cur. 0 or -errno, with the path that failed. */
static int make_maildir(const struct plan *p, const char *base, char *failed, size_t failed_size) {
  static const char *const parts[] = {"", "/tmp", "/new", "/cur"};
  for (size_t i = 0; i < 4; i++) {
    int n = snprintf(failed, failed_size, "%s%s", base, parts[i]);
    if (n < 0 || (size_t)n >= failed_size)
      return -ENAMETOOLONG;
    struct stat st;
    if (!stat(failed, &st)) {
      if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
      continue;
    }
    if (!p->create_directory)
      return -ENOENT;
    int e = plan_make_directories(p, str_c(failed), (mode_t)p->directory_mode);
    if (e)
      return e;
  }
  return 0;
}

/* Sizes of all files below dir: by the size in their names (quota_size_regex) or by stat. */
static int64_t directory_usage(struct arena *a, const struct plan *p, const char *path, int depth, int64_t *files) {
  int64_t total = 0;
  DIR *d = depth < 16 ? opendir(path) : NULL;
  if (!d)
    return 0;
  struct dirent *e;
  while ((e = readdir(d))) {
    char sub[PATH_MAX];
    struct stat st;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
      continue;
    int n = snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
    if (n < 0 || (size_t)n >= sizeof sub)
      continue;
    (*files)++;
    if (p->quota_size_regex.len) {
      struct str groups[2] = {STR_UNSET, STR_UNSET};
      uint64_t size;
      if (pcre_match_text(a, p->quota_size_regex, str_c(e->d_name), groups, 2) > 1 && str_to_u64(groups[1], &size)) {
        total += (int64_t)size;
        continue;
      }
    }
    if (lstat(sub, &st))
      continue;
    if (S_ISDIR(st.st_mode)) {
      (*files)--;
      total += directory_usage(a, p, sub, depth + 1, files);
    } else if (S_ISREG(st.st_mode)) {
      total += st.st_size;
    }
  }
  closedir(d);
  return total;
}

static bool over_quota(struct arena *a, const struct plan *p, const char *base, const char *writing, struct plan_result *r) {
  if (p->quota <= 0 && p->quota_filecount <= 0)
    return false;
  char dir[PATH_MAX];
  struct str root = p->quota_directory.len ? p->quota_directory : str_c(base);
  if (root.len >= sizeof dir)
    return false;
  memcpy(dir, root.p, root.len);
  dir[root.len] = 0;
  int64_t files = 0, used = directory_usage(a, p, dir, 0, &files);
  bool size = p->quota > 0 && used + (p->quota_is_inclusive ? p->message_size : 0) > p->quota;
  bool count = p->quota_filecount > 0 && files + (p->quota_is_inclusive ? 1 : 0) > p->quota_filecount;
  if (!size && !count)
    return false;
  plan_fail(a, r, OUTCOME_DEFER, ERROR_QUOTA, "mailbox is full (MTA-imposed %squota exceeded while writing to %s)",
      size ? "" : "filecount ", writing);
  r->quota_exceeded = true;
  return true;
}

void plan_execute_maildir(struct arena *a, const struct plan *p, int body_fd, struct plan_result *r) {
  char base[PATH_MAX], failed[PATH_MAX + 8], name[NAME_MAX + 8], final[NAME_MAX * 2];
  if (p->path.len >= sizeof base - 8) {
    plan_fail(a, r, OUTCOME_DEFER, ENAMETOOLONG, "directory name is too long");
    return;
  }
  memcpy(base, p->path.p, p->path.len);
  base[p->path.len] = 0;
  int dir = open_directory(p, base), tmp = dir < 0 ? -1 : openat(dir, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (tmp < 0) {
    if (dir >= 0)
      close(dir);
    struct str below = str_printf(a, "%s/tmp", base);
    if (!plan_may_create(p, below)) {
      plan_fail(a, r, OUTCOME_DEFER, ERROR_BAD_CREATE,
          "mailbox %s does not exist, but creation outside the home directory is not permitted", base);
      return;
    }
    int e = make_maildir(p, base, failed, sizeof failed);
    if (e) {
      plan_fail(a, r, OUTCOME_DEFER, -e, "creating directory %s: %s", failed, strerror(-e));
      return;
    }
    dir = open_directory(p, base);
    tmp = dir < 0 ? -1 : openat(dir, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  int fresh = dir < 0 ? -1 : openat(dir, "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fresh < 0 && errno == ENOENT && !make_maildir(p, base, failed, sizeof failed))
    fresh = openat(dir, "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0 || tmp < 0 || fresh < 0) {
    plan_fail(a, r, OUTCOME_DEFER, errno, "opening directory %s: %s", base, strerror(errno));
    goto done;
  }
  int fd = -1;
  for (int64_t i = 0; i < (p->maildir_retries > 0 ? p->maildir_retries : 1); i++) {
    struct timeval tv;
    gettimeofday(&tv, NULL);
    snprintf(name, sizeof name, "%ld.H%ldP%d.%.*s", (long)tv.tv_sec, (long)tv.tv_usec, (int)getpid(),
        (int)(p->hostname.len > 128 ? 128 : p->hostname.len), p->hostname.p);
    fd = openat(tmp, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)p->mode);
    if (fd >= 0 || errno != EEXIST)
      break;
  }
  if (fd < 0) {
    plan_fail(a, r, OUTCOME_DEFER, errno, "unable to create file in %s/tmp: %s", base, strerror(errno));
    goto done;
  }
  struct str writing = str_printf(a, "tmp/%s", name);
  if (over_quota(a, p, base, writing.p, r)) {
    close(fd);
    unlinkat(tmp, name, 0);
    goto done;
  }
  int64_t size = 0;
  int e = fchmod(fd, (mode_t)p->mode) < 0 ? -errno : plan_write_message(p, body_fd, fd, &size);
  if (!e && fsync(fd) < 0)
    e = -errno;
  if (close(fd) < 0 && !e)
    e = -errno;
  if (!e) {
    size_t room = NAME_MAX - strlen(name), tag = p->maildir_tag.len > room ? room : p->maildir_tag.len;
    struct str with_size = str_is_set(p->maildir_tag) ? str_slice(p->maildir_tag, 0, tag) : STR_EMPTY;
    snprintf(final, sizeof final, "%s%.*s", name, STRF(with_size));
    if (renameat(tmp, name, fresh, final) < 0 || fsync(fresh) < 0)
      e = -errno;
  }
  if (e) {
    bool quota = e == -EDQUOT;
    plan_fail(a, r, OUTCOME_DEFER, -e, "%s while writing to %s", quota ? "mailbox is full (system quota exceeded)" : strerror(-e),
        writing.p);
    r->quota_exceeded = quota;
    unlinkat(tmp, name, 0);
  } else {
    r->path = str_printf(a, "new/%s", final);
  }
done:
  if (fresh >= 0)
    close(fresh);
  if (tmp >= 0)
    close(tmp);
  if (dir >= 0)
    close(dir);
}
