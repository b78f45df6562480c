/* Appending to a file: mbox, /dev/null, FIFOs. Locks first, then checks that
nothing was exchanged behind our back, then writes; what a failed write left
is cut off again (Exim manual, "Operational details for appending"). */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "deliver/errors.h"
#include "transport/plan.h"

struct mbox {
  struct arena *arena;
  const struct plan *plan;
  struct plan_result *result;
  char path[PATH_MAX];
  char lock_path[PATH_MAX + 8];
  bool lock_file_held;
  int fd;
  int mbx_fd;                     /* the lock file of an MBX mailbox */
  char mbx_path[64];
};

static void refuse(struct mbox *m, int err, const char *text) {
  plan_fail(m->arena, m->result, OUTCOME_DEFER, err, "%s", text);
}

/* The lock file: a file under a unique name, the "hitching post", is linked to PATH.lock. That is atomic on NFS too. */
static bool take_lock_file(struct mbox *m) {
  const struct plan *p = m->plan;
  char hitch[PATH_MAX + 400];
  struct timeval tv;
  gettimeofday(&tv, NULL);
  snprintf(m->lock_path, sizeof m->lock_path, "%s.lock", m->path);
  snprintf(hitch, sizeof hitch, "%s.%.*s.%08x.%08x", m->lock_path, (int)(p->hostname.len > 255 ? 255 : p->hostname.len),
      p->hostname.p, (unsigned)tv.tv_sec, (unsigned)getpid());
  int hd = open(hitch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)p->lockfile_mode);
  if (hd < 0) {
    int e = errno;
    plan_fail(m->arena, m->result, OUTCOME_DEFER, e, "creating lock file hitching post %s (euid=%ld egid=%ld)", hitch,
        (long)geteuid(), (long)getegid());
    return false;
  }
  (void)!fchmod(hd, (mode_t)p->lockfile_mode);
  (void)!write(hd, "0", 1);
  bool held = false;
  for (int64_t i = 0; i < p->lock_retries || i == 0; i++) {
    struct stat st;
    int linked = link(hitch, m->lock_path);
    if (linked == 0 || (!fstat(hd, &st) && st.st_nlink == 2)) {
      held = true;
      break;
    }
    if (errno != EEXIST)
      break;
    if (p->lockfile_timeout > 0 && !stat(m->lock_path, &st) && st.st_ctime + p->lockfile_timeout < time(NULL)) {
      unlink(m->lock_path);
      continue;
    }
    if (i + 1 < p->lock_retries)
      sleep((unsigned)p->lock_interval);
  }
  close(hd);
  unlink(hitch);
  if (!held) {
    plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_LOCK_FAILED, "failed to lock mailbox %s (lock file)", m->path);
    return false;
  }
  m->lock_file_held = true;
  return true;
}

static bool check_lstat(struct mbox *m, struct stat *st) {
  const struct plan *p = m->plan;
  if (S_ISLNK(st->st_mode)) {
    if (!p->allow_symlink && !(p->check_owner && p->uid >= 0 && st->st_uid != (uid_t)p->uid)) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_NOT_REGULAR, "mailbox %s is a symbolic link", m->path);
      return false;
    }
    if (p->check_owner && p->uid >= 0 && st->st_uid != (uid_t)p->uid) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_BAD_UGID, "mailbox %s (symlink) has wrong uid (%ld != %ld)", m->path,
          (long)st->st_uid, (long)p->uid);
      return false;
    }
    if (stat(m->path, st) < 0) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, errno, "stat mailbox %s", m->path);
      return false;
    }
  }
  return true;
}

static bool check_file(struct mbox *m, const struct stat *st) {
  const struct plan *p = m->plan;
  struct plan_result *r = m->result;
  bool fifo = S_ISFIFO(st->st_mode) && p->allow_fifo, null = S_ISCHR(st->st_mode) && !strcmp(m->path, "/dev/null");
  if (null)
    return true;
  if (p->check_owner && p->uid >= 0 && st->st_uid != (uid_t)p->uid) {
    plan_fail(m->arena, r, OUTCOME_DEFER, ERROR_BAD_UGID, "mailbox %s has wrong uid (%ld != %ld)", m->path,
        (long)st->st_uid, (long)p->uid);
    return false;
  }
  if (p->check_group && p->gid >= 0 && st->st_gid != (gid_t)p->gid) {
    plan_fail(m->arena, r, OUTCOME_DEFER, ERROR_BAD_UGID, "mailbox %s has wrong gid (%ld != %ld)", m->path,
        (long)st->st_gid, (long)p->gid);
    return false;
  }
  if (!S_ISREG(st->st_mode) && !fifo) {
    plan_fail(m->arena, r, OUTCOME_DEFER, ERROR_NOT_REGULAR, "mailbox %s is not a regular file%s", m->path,
        p->allow_fifo ? " or named pipe" : "");
    return false;
  }
  if (!fifo && st->st_nlink > 1) {
    plan_fail(m->arena, r, OUTCOME_DEFER, ERROR_NOT_REGULAR, "mailbox %s has too many links (%ld)", m->path,
        (long)st->st_nlink);
    return false;
  }
  mode_t wanted = (mode_t)p->mode, mode = st->st_mode & 07777;
  if (!p->mode_set || mode == wanted)
    return true;
  mode_t narrower = mode & wanted;
  if (narrower == mode && p->mode_fail_narrower) { /* the file allows less than asked for */
    plan_fail(m->arena, r, OUTCOME_DEFER, ERROR_BAD_MODE, "mailbox %s has the wrong mode %.3lo (%.3lo expected)", m->path,
        (unsigned long)mode, (unsigned long)wanted);
    return false;
  }
  if (narrower != mode && chmod(m->path, narrower) < 0) {
    plan_fail(m->arena, r, OUTCOME_DEFER, errno, "attempting to chmod mailbox %s", m->path);
    return false;
  }
  return true;
}

static bool open_file(struct mbox *m, struct stat *st) {
  const struct plan *p = m->plan;
  if (lstat(m->path, st) == 0) {
    if (!check_lstat(m, st) || !check_file(m, st))
      return false;
    int flags = O_RDWR | O_APPEND | O_CLOEXEC | O_NOCTTY | (p->allow_symlink ? 0 : O_NOFOLLOW);
    if (S_ISFIFO(st->st_mode))
      flags = O_WRONLY | O_NONBLOCK | O_CLOEXEC;
    m->fd = open(m->path, flags);
    if (m->fd < 0) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, errno, S_ISFIFO(st->st_mode) ? "while opening named pipe %s (could mean no process is reading it)"
                                                                                  : "while opening mailbox %s", m->path);
      return false;
    }
    struct stat now;
    if (fstat(m->fd, &now) || now.st_ino != st->st_ino || now.st_dev != st->st_dev) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_INODE_CHANGED, "opened mailbox %s inode number changed", m->path);
      return false;
    }
    *st = now;
    return true;
  }
  if (errno != ENOENT && errno != ENOTDIR) {
    plan_fail(m->arena, m->result, OUTCOME_DEFER, errno, "stat mailbox %s", m->path);
    return false;
  }
  if (p->file_must_exist) {
    plan_fail(m->arena, m->result, OUTCOME_DEFER, ENOENT, "mailbox %s does not exist, but file_must_exist is set", m->path);
    return false;
  }
  if (!plan_may_create(p, str_c(m->path))) {
    plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_BAD_CREATE,
        "mailbox %s does not exist, but creation outside the home directory is not permitted", m->path);
    return false;
  }
  m->fd = open(m->path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, (mode_t)p->mode);
  if (m->fd < 0 || fchmod(m->fd, (mode_t)p->mode) < 0 || fstat(m->fd, st) < 0) {
    plan_fail(m->arena, m->result, OUTCOME_DEFER, errno, "while creating mailbox %s", m->path);
    return false;
  }
  return true;
}

/* A blocking lock with a time limit would need a signal; retrying each interval does without. */
static bool lock_open_file(struct mbox *m) {
  const struct plan *p = m->plan;
  int64_t limit = p->lock_fcntl_timeout > p->lock_flock_timeout ? p->lock_fcntl_timeout : p->lock_flock_timeout;
  int64_t tries = limit > 0 ? limit : p->lock_retries, pause = limit > 0 ? 1 : p->lock_interval;
  for (int64_t i = 0;; i++) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool fcntl_ok = !p->lock_fcntl || fcntl(m->fd, F_SETLK, &l) == 0;
    bool flock_ok = fcntl_ok && (!p->lock_flock || flock(m->fd, LOCK_EX | LOCK_NB) == 0);
    if (fcntl_ok && flock_ok)
      return true;
    if (fcntl_ok && p->lock_fcntl) {
      l.l_type = F_UNLCK;
      (void)!fcntl(m->fd, F_SETLK, &l);
    }
    if (i + 1 >= tries) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_LOCK_FAILED, "failed to lock mailbox %s (%s)", m->path,
          fcntl_ok ? "flock" : "fcntl");
      return false;
    }
    sleep((unsigned)pause);
  }
}

/* The size that counts: the file's, or that of the directory or the mailbox the configuration names. */
static bool has_room(struct mbox *m, const struct stat *st) {
  const struct plan *p = m->plan;
  int64_t files = p->mailbox_filecount < 0 ? 0 : p->mailbox_filecount;
  return plan_quota_allows(m->arena, p, p->mailbox_size < 0 ? st->st_size : p->mailbox_size, files, m->path, st->st_atime, m->result);
}

/* file_format: whose file is this? False: another transport's, or nobody's. */
static bool check_format(struct mbox *m, const struct stat *st) {
  const struct plan *p = m->plan;
  char start[256];
  ssize_t n = p->file_formats_n && st->st_size > 0 ? pread(m->fd, start, sizeof start, 0) : 0;
  if (n <= 0)
    return true;
  for (int64_t i = 0; i + 1 < p->file_formats_n; i += 2) {
    struct str test = p->file_formats[i];
    if (!str_starts(str_n(start, (size_t)n), test))
      continue;
    if (str_eq(p->file_formats[i + 1], p->transport))
      return true;
    m->result->switch_to = p->file_formats[i + 1];
    plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_BAD_TRANSPORT, "%.*s transport (for %.*s format) not found",
        STRF(p->file_formats[i + 1]), STRF(test));
    return false;
  }
  plan_fail(m->arena, m->result, OUTCOME_DEFER, ERROR_FORMAT_UNKNOWN, "mailbox file format unrecognized");
  return false;
}

/* MBX: a shared lock on the mailbox says that somebody has it open; the exclusive one is on a file in /tmp. */
static bool lock_mbx_file(struct mbox *m) {
  const struct plan *p = m->plan;
  if (!p->lock_mbx)
    return true;
  for (int64_t i = 0;; i++) {
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int e = p->lock_flock || fcntl(m->fd, F_SETLK, &l) == 0 ? plan_mbx_lock(m->fd, m->mbx_path, sizeof m->mbx_path) : -EAGAIN;
    if (e >= 0) {
      m->mbx_fd = e;
      return true;
    }
    if (e != -EAGAIN || i + 1 >= p->lock_retries) {
      plan_fail(m->arena, m->result, OUTCOME_DEFER, e == -EAGAIN ? ERROR_LOCK_FAILED : -e, "failed to lock mailbox %s (%s)", m->path,
          e == -EAGAIN ? "MBX lock file" : strerror(-e));
      return false;
    }
    sleep((unsigned)p->lock_interval);
  }
}

static void append(struct mbox *m, int body_fd, const struct stat *st) {
  int64_t size = 0;
  bool regular = S_ISREG(st->st_mode);
  m->result->offset = st->st_size;
  int e = m->plan->mbx ? plan_write_mbx(m->arena, m->plan, body_fd, m->fd, &size)
                       : plan_write_message(m->plan, body_fd, m->fd, &size);
  if (!e && regular && fsync(m->fd) < 0)
    e = -errno;
  if (!e)
    return;
  if (regular)
    (void)!ftruncate(m->fd, st->st_size);
  plan_write_failed(m->arena, m->result, e, str_printf(m->arena, "while writing to %s", m->path).p);
}

void plan_execute_file(struct arena *a, const struct plan *p, int body_fd, struct plan_result *r) {
  struct mbox m = {.arena = a, .plan = p, .result = r, .fd = -1, .mbx_fd = -1};
  struct stat st;
  if (p->path.len >= sizeof m.path) {
    refuse(&m, ENAMETOOLONG, "file name is too long");
    return;
  }
  memcpy(m.path, p->path.p, p->path.len);
  m.path[p->path.len] = 0;
  bool null = !strcmp(m.path, "/dev/null");
  char *slash = strrchr(m.path, '/');
  if (p->create_directory && !null && slash && slash != m.path) {
    struct str dir = str_n(m.path, (size_t)(slash - m.path));
    char text[PATH_MAX];
    memcpy(text, dir.p, dir.len);
    text[dir.len] = 0;
    int e = access(text, F_OK) < 0 && errno == ENOENT && plan_may_create(p, str_c(m.path))
                ? plan_make_directories(p, dir, (mode_t)p->directory_mode) : 0;
    if (e) {
      plan_fail(a, r, OUTCOME_DEFER, -e, "failed to create directories for %s: %s", m.path, strerror(-e));
      return;
    }
  }
  if (!null && p->lock_file && !take_lock_file(&m))
    return;
  if (open_file(&m, &st) && (null || !S_ISREG(st.st_mode) || (lock_open_file(&m) && lock_mbx_file(&m)))) {
    if (!fstat(m.fd, &st) && check_format(&m, &st) && has_room(&m, &st))
      append(&m, body_fd, &st);
  }
  plan_mbx_unlock(m.fd, m.mbx_fd, m.mbx_path);
  if (m.fd >= 0)
    close(m.fd);
  if (m.lock_file_held)
    unlink(m.lock_path);
}
