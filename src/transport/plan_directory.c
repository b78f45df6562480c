/* Delivery into a new file of a directory, or into the two files of the
mailstore format (Exim manual, sections "Mailstore delivery" and "Non-special
new file delivery"). Written under a temporary name, synced, then renamed. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/fd_io.h"
#include "deliver/errors.h"
#include "transport/plan.h"

struct target {
  struct arena *arena;
  const struct plan *plan;
  struct plan_result *result;
  int dir;
};

static bool failed(struct target *t, int err, const char *what, struct str name) {
  plan_write_failed(t->arena, t->result, -err, str_printf(t->arena, "%s %.*s/%.*s", what, STRF(t->plan->path), STRF(name)).p);
  return false;
}

static bool open_directory(struct target *t) {
  const struct plan *p = t->plan;
  char *path = str_dup_c(t->arena, p->path);
  t->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (t->dir >= 0)
    return true;
  struct str below = str_printf(t->arena, "%s/x", path);
  if (errno != ENOENT)
    return failed(t, errno, "opening directory", STR_EMPTY);
  if (!p->create_directory || !plan_may_create(p, below)) {
    plan_fail(t->arena, t->result, OUTCOME_DEFER, p->create_directory ? ERROR_BAD_CREATE : ENOENT,
        p->create_directory ? "mailbox %s does not exist, but creation outside the home directory is not permitted"
                            : "directory %s does not exist", path);
    return false;
  }
  int e = plan_make_directories(p, p->path, (mode_t)p->directory_mode);
  t->dir = e ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return t->dir >= 0 ? true : failed(t, e ? -e : errno, "creating directory", STR_EMPTY);
}

static int create(struct target *t, const char *name) {
  int fd = openat(t->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)t->plan->mode);
  if (fd >= 0)
    (void)!fchmod(fd, (mode_t)t->plan->mode);
  return fd;
}

/* Ends a file that was written: synced and closed. 0 or -errno. */
static int finish(int fd, int e) {
  if (!e && fsync(fd) < 0)
    e = -errno;
  if (close(fd) < 0 && !e)
    e = -errno;
  return e;
}

/* The mark in the expanded name stands for the number of the file's inode. */
static char *final_name(struct target *t, const struct stat *st) {
  struct str rest = t->plan->directory_file, mark = t->plan->inode_mark;
  struct buf b;
  ptrdiff_t at;
  buf_init(&b, t->arena, BUF_MAX_LINE);
  while (mark.len && (at = str_find(rest, mark)) >= 0) {
    buf_add(&b, str_slice(rest, 0, (size_t)at));
    buf_printf(&b, "%llu", (unsigned long long)st->st_ino);
    rest = str_from(rest, (size_t)at + mark.len);
  }
  buf_add(&b, rest);
  return str_dup_c(t->arena, buf_str(&b));
}

static void deliver_one(struct target *t, int body_fd) {
  static unsigned serial;
  struct str temporary = str_printf(t->arena, "temp.%d.%u.%.*s", (int)getpid(), __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED),
      STRF(t->plan->hostname));
  struct stat st;
  int64_t size;
  int fd = create(t, temporary.p);
  if (fd < 0 || fstat(fd, &st)) {
    (void)failed(t, errno, "while creating file", temporary);
    return;
  }
  int e = finish(fd, plan_write_message(t->plan, body_fd, fd, &size));
  char *name = final_name(t, &st);
  if (!e && (strchr(name, '/') || !*name || !strcmp(name, ".") || !strcmp(name, "..")))
    e = -EINVAL;
  if (!e && renameat(t->dir, temporary.p, t->dir, name) < 0)
    e = -errno;
  if (!e && fsync(t->dir) < 0)
    e = -errno;
  t->result->path = str_c(name);
  if (!e)
    return;
  unlinkat(t->dir, temporary.p, 0);
  (void)failed(t, -e, "while writing to", temporary);
}

static void deliver_mailstore(struct target *t, int body_fd) {
  struct str base = t->plan->mailstore_base, text = t->plan->mailstore_envelope;
  struct str temporary = str_printf(t->arena, "%.*s.tmp", STRF(base)), message = str_printf(t->arena, "%.*s.msg", STRF(base));
  struct str envelope = str_printf(t->arena, "%.*s.env", STRF(base));
  int64_t size;
  int fd = create(t, temporary.p);
  if (fd < 0) {
    (void)failed(t, errno, "while creating file", temporary);
    return;
  }
  int e = finish(fd, fd_write_all(fd, text.p, text.len));
  fd = e ? -1 : create(t, message.p);
  if (!e)
    e = fd < 0 ? -errno : finish(fd, plan_write_message(t->plan, body_fd, fd, &size));
  if (!e && (renameat(t->dir, temporary.p, t->dir, envelope.p) < 0 || fsync(t->dir) < 0))
    e = -errno;
  t->result->path = message;
  if (!e)
    return;
  unlinkat(t->dir, temporary.p, 0);
  if (fd >= 0)
    unlinkat(t->dir, message.p, 0);
  (void)failed(t, -e, "while writing to", message);
}

void plan_execute_directory(struct arena *a, const struct plan *p, int body_fd, struct plan_result *r) {
  struct target t = {.arena = a, .plan = p, .result = r, .dir = -1};
  int64_t used = p->mailbox_size, files = p->mailbox_filecount, u = 0, f = 0;
  struct stat st;
  if (!open_directory(&t))
    return;
  if ((p->quota > 0 || p->quota_filecount > 0 || p->warn_threshold > 0) && (used < 0 || files < 0))
    u = plan_directory_usage(a, p, str_dup_c(a, p->quota_directory.len ? p->quota_directory : p->path), STR_EMPTY, &f);
  if (plan_quota_allows(a, p, used < 0 ? u : used, files < 0 ? f : files, str_printf(a, "%.*s/temp.%d.%.*s", STRF(p->path), (int)getpid(), STRF(p->hostname)).p, fstat(t.dir, &st) ? 0 : st.st_atime, r)) {
    if (p->mailstore_base.len)
      deliver_mailstore(&t, body_fd);
    else
      deliver_one(&t, body_fd);
  }
  close(t.dir);
}
