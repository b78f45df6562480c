/* How full a mailbox is: by stat, by sizes in file names, or by the
maildirsize file of Maildir++ (Exim manual, sections "Maildir delivery" and
"Using a maildirsize file"; the Maildir++ specification of the Courier
project). */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/pcre.h"
#include "deliver/errors.h"
#include "transport/plan.h"

#define DEPTH_MAX 16
#define SIZE_FILE_MAX 5120   /* a longer one is written anew, as the specification says */
#define SIZE_FILE_AGE (15 * 60)

struct usage {
  struct arena *arena;
  const struct plan *plan;
  struct str directories;  /* set: subdirectories of the top that count */
  int64_t size, files;
  time_t newest;           /* of the directories */
};

/* Hard links share their blocks. */
static int64_t size_of(const struct stat *st) { return st->st_nlink > 1 ? st->st_size / (int64_t)st->st_nlink : st->st_size; }

static bool size_in_name(struct usage *u, const char *name) {
  struct str groups[2] = {STR_UNSET, STR_UNSET};
  uint64_t size;
  if (!u->plan->quota_size_regex.len || pcre_match_text(u->arena, u->plan->quota_size_regex, str_c(name), groups, 2) <= 1 ||
      !str_to_u64(groups[1], &size) || size > INT64_MAX / 4)
    return false;
  u->size += (int64_t)size;
  u->files++;
  return true;
}

static void add_directory(struct usage *u, const char *path, int depth) {
  struct stat st;
  struct dirent *e;
  DIR *d = depth < DEPTH_MAX ? opendir(path) : NULL;
  if (!d)
    return;
  if (!fstat(dirfd(d), &st) && st.st_mtime > u->newest && (depth > 0 || !u->directories.len))
    u->newest = st.st_mtime;
  while ((e = readdir(d))) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
      continue;
    bool filtered = u->directories.len && depth == 0;
    /* Folders (".Sent") have cur and new of their own; what lies in tmp is not there yet. */
    if (u->directories.len && depth > 0 && (!strcmp(e->d_name, "tmp") || !strcmp(e->d_name, "maildirfolder")))
      continue;
    if (filtered && pcre_match_text(u->arena, u->directories, str_c(e->d_name), NULL, 0) <= 0)
      continue;
    if (!filtered && size_in_name(u, e->d_name))
      continue;
    if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
      continue;
    if (S_ISDIR(st.st_mode)) {
      u->files += u->directories.len == 0; /* without a maildirsize file all that is there counts */
      add_directory(u, str_printf(u->arena, "%s/%s", path, e->d_name).p, depth + 1);
    } else if (S_ISREG(st.st_mode) && !filtered) {
      u->size += size_of(&st);
      u->files++;
    }
  }
  closedir(d);
}

int64_t plan_directory_usage(struct arena *a, const struct plan *p, const char *path, struct str directories, int64_t *ret_files) {
  struct usage u = {.arena = a, .plan = p, .directories = directories};
  add_directory(&u, path, 0);
  *ret_files = u.files;
  return u.size;
}

bool plan_quota_allows(struct arena *a, const struct plan *p, int64_t used, int64_t files, const char *writing, int64_t read,
    struct plan_result *r) {
  int64_t more = p->quota_is_inclusive ? p->message_size : 0;
  bool size = p->quota > 0 && !p->quota_no_check && used + more > p->quota;
  bool count = p->quota_filecount > 0 && !p->filecount_no_check && files + (p->quota_is_inclusive ? 1 : 0) > p->quota_filecount;
  r->warn = p->warn_threshold > 0 && used <= p->warn_threshold && used + p->message_size > p->warn_threshold;
  if (!size && !count)
    return true;
  plan_fail(a, r, OUTCOME_DEFER, ERROR_QUOTA, "mailbox is full (MTA-imposed %squota exceeded while writing to %s)",
      count ? "filecount " : "", writing);
  r->quota_exceeded = true;
  /* How long ago was the mailbox read? The retry rules ask (quota_<time>). */
  r->more_errno = read ? time(NULL) - read : 0;
  return false;
}

void plan_execute_room(struct arena *a, const struct plan *p, struct plan_result *r) {
  const char *path = str_dup_c(a, str_is_set(p->quota_directory) && p->quota_directory.len ? p->quota_directory : p->path);
  struct stat st;
  int64_t used = 0, files = 0;
  *r = (struct plan_result){.outcome = OUTCOME_OK};
  if (stat(path, &st) < 0) {
    if (errno != ENOENT && errno != ENOTDIR) {
      plan_fail(a, r, OUTCOME_DEFER, errno, "stat mailbox %s", path);
      return;
    }
  } else if (S_ISDIR(st.st_mode)) {
    used = plan_directory_usage(a, p, path, p->maildir_directory_regex, &files);
  } else {
    used = st.st_size;
  }
  if (p->mailbox_size >= 0)
    used = p->mailbox_size;
  if (p->mailbox_filecount >= 0)
    files = p->mailbox_filecount;
  (void)plan_quota_allows(a, p, used, files, path, 0, r);
}

/* --- maildirsize --- */

static struct str quota_line(struct arena *a, const struct plan *p) {
  return str_printf(a, "%lldS,%lldC", (long long)p->quota, (long long)p->quota_filecount);
}

/* Sums the entries. False: malformed, or made for another quota. */
static bool read_entries(struct arena *a, const struct plan *p, struct str text, int64_t *used, int64_t *files, int *ret_entries) {
  struct str line = str_cut(&text, '\n');
  *used = *files = *ret_entries = 0;
  if (!str_eq(line, quota_line(a, p)))
    return false;
  while (str_is_set(text) && text.len) {
    line = str_trim(str_cut(&text, '\n'));
    ptrdiff_t blank = str_find_byte(line, ' ');
    int64_t size, count;
    if (blank <= 0 || !str_to_i64(str_slice(line, 0, (size_t)blank), &size) ||
        !str_to_i64(str_ltrim(str_from(line, (size_t)blank)), &count) || size > INT64_MAX / 4 || size < -(INT64_MAX / 4))
      return false;
    if (__builtin_add_overflow(*used, size, used) || __builtin_add_overflow(*files, count, files))
      return false;
    (*ret_entries)++;
  }
  return *ret_entries > 0;
}

static bool is_over(const struct plan *p, int64_t used, int64_t files) {
  return (p->quota > 0 && used + p->message_size > p->quota) || (p->quota_filecount > 0 && files + 1 > p->quota_filecount);
}

/* Makes the file anew: under another name first, so that nobody sees half of it. Without one if the mailbox has changed
while it was counted: the next delivery counts again. */
static int recalculate(struct arena *a, const struct plan *p, const char *top, const char *path, int64_t *used, int64_t *files) {
  static unsigned serial;
  struct usage u = {.arena = a, .plan = p, .directories = p->maildir_directory_regex}, again = u;
  char *temporary = str_dup_c(a, str_printf(a, "%s/tmp/%lld.P%dQ%u.maildirsize", top, (long long)time(NULL), (int)getpid(),
      __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED)));
  int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  add_directory(&u, top, 0);
  *used = u.size;
  *files = u.files;
  if (fd < 0)
    return -1;
  struct str text = str_printf(a, "%.*s\n%lld %lld\n", STRF(quota_line(a, p)), (long long)u.size, (long long)u.files);
  add_directory(&again, top, 0);
  if (again.newest > u.newest || write(fd, text.p, text.len) != (ssize_t)text.len || rename(temporary, path) < 0) {
    unlink(temporary);
    close(fd);
    return -1;
  }
  return fd;
}

int plan_maildirsize_open(struct arena *a, const struct plan *p, const char *top, int64_t *ret_used, int64_t *ret_files) {
  char *path = str_dup_c(a, str_printf(a, "%s/maildirsize", top));
  char text[SIZE_FILE_MAX + 1];
  struct stat st;
  int entries = 0, fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  ssize_t n = fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) ? -1 : read(fd, text, sizeof text);
  bool good = n > 0 && n <= SIZE_FILE_MAX && read_entries(a, p, str_n(text, (size_t)n), ret_used, ret_files, &entries) && *ret_used >= 0 &&
              *ret_files >= 0;
  if (good && is_over(p, *ret_used, *ret_files) && (entries > 1 || time(NULL) - st.st_mtime > SIZE_FILE_AGE))
    good = false;
  if (good)
    return fd;
  if (fd >= 0)
    close(fd);
  return recalculate(a, p, top, path, ret_used, ret_files);
}

void plan_maildirsize_add(int fd, int64_t size, int64_t files) {
  char line[64];
  int n = snprintf(line, sizeof line, "%lld %lld\n", (long long)size, (long long)files);
  if (fd >= 0)
    (void)!write(fd, line, (size_t)n); /* a cache: when it is wrong it is counted anew */
}
