/* Maildir: a new file under tmp/, synced, then renamed into new/ (or linked
with a tag). Names are unique by time, process and host. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#define MAILDIR_MISSING 1 /* it may not be made */

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
      return MAILDIR_MISSING;
    int e = plan_make_directories(p, str_c(failed), (mode_t)p->directory_mode);
    if (e)
      return e;
  }
  return 0;
}

static void refuse_maildir(struct arena *a, struct plan_result *r, int e, const char *path) {
  if (e == -ENOTDIR)
    plan_fail(a, r, OUTCOME_DEFER, ERROR_NOT_DIRECTORY, "%s is not a directory", path);
  else if (e == MAILDIR_MISSING)
    plan_fail(a, r, OUTCOME_DEFER, ENOENT, "stat() error for %s: %s", path, strerror(ENOENT));
  else
    plan_fail(a, r, OUTCOME_DEFER, -e, "creating directory %s: %s", path, strerror(-e));
}

/* maildirfolder_create_regex: marks the directory as a folder of a Maildir++ mailbox. 0 or -errno. */
static int mark_folder(struct arena *a, const struct plan *p, const char *base) {
  if (!p->maildirfolder_regex.len || pcre_match_text(a, p->maildirfolder_regex, p->path, NULL, 0) <= 0)
    return 0;
  char *path = str_dup_c(a, str_printf(a, "%s/maildirfolder", base));
  int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -errno;
  close(fd);
  return 0;
}

/* Where the mailbox that counts begins: quota_directory, or above a folder of it. */
static char *quota_top(struct arena *a, const struct plan *p, const char *base) {
  if (p->quota_directory.len)
    return str_dup_c(a, p->quota_directory);
  struct stat st;
  char *mark = str_dup_c(a, str_printf(a, "%s/maildirfolder", base));
  const char *slash = strrchr(base, '/');
  if (stat(mark, &st) < 0 || !slash || slash == base)
    return str_dup_c(a, str_c(base));
  return str_dup_c(a, str_n(base, (size_t)(slash - base)));
}

/* What is there, as far as somebody asks; *ret_size_file is the open maildirsize file, or -1. */
static void look(struct arena *a, const struct plan *p, const char *base, int64_t *used, int64_t *files, int *ret_size_file) {
  bool wanted = p->quota > 0 || p->quota_filecount > 0 || p->warn_threshold > 0;
  *ret_size_file = -1;
  *used = p->mailbox_size;
  *files = p->mailbox_filecount;
  if (p->maildir_size_file || (wanted && (*used < 0 || (*files < 0 && p->quota_filecount > 0)))) {
    int64_t u, f;
    char *top = quota_top(a, p, base);
    if (p->maildir_size_file)
      *ret_size_file = plan_maildirsize_open(a, p, top, &u, &f);
    else
      u = plan_directory_usage(a, p, top, STR_EMPTY, &f);
    *used = *used < 0 ? u : *used;
    *files = *files < 0 ? f : *files;
  }
  *used = *used < 0 ? 0 : *used;
  *files = *files < 0 ? 0 : *files;
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
      refuse_maildir(a, r, e, failed);
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
  int e = mark_folder(a, p, base), size_file;
  if (e) {
    plan_fail(a, r, OUTCOME_DEFER, -e, "creating maildirfolder file in %s: %s", base, strerror(-e));
    goto done;
  }
  int64_t used, files;
  struct stat st;
  look(a, p, base, &used, &files, &size_file);
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
    if (size_file >= 0)
      close(size_file);
    goto done;
  }
  struct str writing = str_printf(a, "tmp/%s", name);
  /* Read last: when the last message was moved out of new/. */
  if (!plan_quota_allows(a, p, used, files, writing.p, fstat(fresh, &st) ? 0 : st.st_mtime, r)) {
    close(fd);
    unlinkat(tmp, name, 0);
    if (size_file >= 0)
      close(size_file);
    goto done;
  }
  int64_t size = 0;
  e = fchmod(fd, (mode_t)p->mode) < 0 ? -errno : plan_write_message(p, body_fd, fd, &size);
  if (!e && fsync(fd) < 0)
    e = -errno;
  if (close(fd) < 0 && !e)
    e = -errno;
  if (!e) {
    /* A tag that makes the name too long is left out. */
    struct str with_size = str_is_set(p->maildir_tag) && p->maildir_tag.len <= NAME_MAX - strlen(name) ? p->maildir_tag : STR_EMPTY;
    snprintf(final, sizeof final, "%s%.*s", name, STRF(with_size));
    if (renameat(tmp, name, fresh, final) < 0 || fsync(fresh) < 0)
      e = -errno;
  }
  if (e) {
    plan_write_failed(a, r, e, str_printf(a, "while writing to %.*s", STRF(writing)).p);
    unlinkat(tmp, name, 0);
  } else {
    r->path = str_printf(a, "new/%s", final);
    plan_maildirsize_add(size_file, size, 1);
  }
  if (size_file >= 0)
    close(size_file);
done:
  if (fresh >= 0)
    close(fresh);
  if (tmp >= 0)
    close(tmp);
  if (dir >= 0)
    close(dir);
}
