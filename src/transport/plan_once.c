/* The file of autoreply's `once`: whom it has answered, and when. Records are as in Exim's files of limited size (once_file_size):
eight bytes of time, the address, a NUL; the oldest first. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "base/vec.h"
#include "transport/plan.h"

#define LOCK_TRIES 50
#define SIZE_MAX_ANY (16 << 20) /* when no size was asked for */
#define NAME_LENGTH 32          /* of the files in a directory of ours */
#define FORGOTTEN_AFTER (31 * 86400) /* no answer out of such a directory counts longer (Sieve's :days) */
#define NAMES_MAX 1000          /* looked at in one go */

struct record {
  int64_t time;
  struct str who;
};

static size_t record_size(struct str who) { return sizeof(int64_t) + who.len + 1; }

/* Opened and locked; -errno. */
static int open_file(const struct plan *p, char *path) {
  struct stat st;
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  memcpy(path, p->path.p, p->path.len);
  path[p->path.len] = 0;
  if (p->create_directory) {
    char *slash = strrchr(path, '/');
    struct str directory = slash ? str_slice(p->path, 0, (size_t)(slash - path)) : STR_EMPTY;
    if (directory.len)
      (void)plan_make_directories(p, directory, (mode_t)p->directory_mode);
  }
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0)
    return -errno;
  int e = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
  for (int i = 0; !e && fcntl(fd, F_OFD_SETLK, &lock) < 0; i++) {
    e = i < LOCK_TRIES && (errno == EAGAIN || errno == EACCES) ? 0 : -errno;
    if (!e)
      usleep(100000);
  }
  if (!e)
    return fd;
  close(fd);
  return e;
}

static int read_all(struct arena *a, int fd, struct str *ret) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  size_t size = st.st_size > SIZE_MAX_ANY ? 0 : (size_t)st.st_size;
  char *text = arena_bytes(a, size + 1);
  ssize_t n = fd_pread_all(fd, text, size, 0);
  *ret = n < 0 ? STR_UNSET : str_n(text, (size_t)n);
  return n < 0 ? (int)n : 0;
}

/* The next record; what is none (Berkeley DB files of Exim) ends the list. */
static bool take(struct str *rest, struct record *ret) {
  if (rest->len < sizeof ret->time + 2)
    return false;
  memcpy(&ret->time, rest->p, sizeof ret->time);
  ptrdiff_t end = str_find_byte(str_from(*rest, sizeof ret->time), 0);
  if (end <= 0 || ret->time <= 0 || ret->time >> 36)
    return false;
  ret->who = str_slice(*rest, sizeof ret->time, sizeof ret->time + (size_t)end);
  *rest = str_from(*rest, sizeof ret->time + (size_t)end + 1);
  return true;
}

/* In the place of what was there. */
static int rewrite(int fd, struct str s) {
  int e = lseek(fd, 0, SEEK_SET) < 0 ? -errno : fd_write_all(fd, s.p, s.len);
  return e ? e : ftruncate(fd, (off_t)s.len) < 0 ? -errno : 0;
}

/* Notes the recipient as the newest; the oldest make room. */
static int note(struct arena *a, const struct plan *p, int fd, struct str old, int64_t now) {
  VEC(struct record) kept = {0};
  struct record r;
  size_t max = p->once_file_size > 0 && p->once_file_size < SIZE_MAX_ANY ? (size_t)p->once_file_size : SIZE_MAX_ANY;
  size_t size = record_size(p->sender), first = 0;
  while (take(&old, &r))
    if (!str_eq(r.who, p->sender)) {
      vec_push(a, &kept, r);
      size += record_size(r.who);
    }
  for (; first < kept.n && size > max; first++)
    size -= record_size(kept.v[first].who);
  struct buf b;
  buf_init(&b, a, size + 1);
  r = (struct record){now, p->sender};
  vec_push(a, &kept, r);
  for (; first < kept.n; first++) {
    buf_add_n(&b, (const char *)&kept.v[first].time, sizeof(int64_t));
    buf_add(&b, kept.v[first].who);
    buf_add_byte(&b, 0);
  }
  return b.overflow ? -EMSGSIZE : rewrite(fd, buf_str(&b));
}

/* --- a directory of ours: a file for each answer that was ever given --- */

static bool is_our_name(const char *name) {
  return strspn(name, "0123456789ABCDEF") == NAME_LENGTH && !name[NAME_LENGTH];
}

/* Files whose answers all count no more, as they were not written for so long. */
static void forget_old(const struct plan *p, int64_t now) {
  char path[PATH_MAX];
  struct stat st;
  memcpy(path, p->path.p, p->path.len);
  path[p->path.len] = 0;
  char *slash = strrchr(path, '/');
  if (!slash || slash == path)
    return;
  *slash = 0;
  DIR *d = opendir(path);
  const struct dirent *entry;
  for (int n = 0; d && n < NAMES_MAX && (entry = readdir(d)); n++)
    if (is_our_name(entry->d_name) && fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        st.st_mtime < now - FORGOTTEN_AFTER)
      (void)unlinkat(dirfd(d), entry->d_name, 0);
  if (d)
    closedir(d);
}

void plan_execute_once(struct arena *a, const struct plan *p, struct plan_result *r) {
  char path[PATH_MAX];
  struct str text;
  struct record found;
  int64_t now = time(NULL);
  if (!p->path.len)
    return; /* only the directory was asked for */
  bool named = p->path.len < sizeof path && !memchr(p->path.p, 0, p->path.len);
  int fd = named ? open_file(p, path) : -EINVAL;
  int e = fd < 0 ? fd : read_all(a, fd, &text);
  if (!e && p->once_note)
    e = note(a, p, fd, text, now);
  else
    while (!e && take(&text, &found))
      if (str_eq(found.who, p->sender))
        r->status = p->once_repeat <= 0 || now < found.time + p->once_repeat;
  if (!e && p->once_note && p->create_directory)
    forget_old(p, now);
  if (fd >= 0)
    close(fd);
  if (e)
    plan_fail(a, r, OUTCOME_DEFER, -e, "%s", strerror(-e));
}
