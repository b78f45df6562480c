#include "smtp/space.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "acl/acl.h"
#include "core/main_options.h"
#include "log/log.h"

/* Kilobytes and inodes free where `dir` is; -1: cannot be told. */
static bool free_in(struct ctx *c, struct str dir, int64_t *kilobytes, int64_t *inodes) {
  struct statvfs v;
  if (statvfs(str_dup_c(c->arena, dir), &v) < 0)
    return false;
  *kilobytes = v.f_blocks == 0 ? -1 : (int64_t)((v.f_bavail * (v.f_frsize / 512)) / 2);
  *inodes = v.f_files == 0 ? -1 : (int64_t)v.f_favail;
  return true;
}

/* Limits are kept in kilobytes when written with K, M or G: the table's type is a size in bytes. */
static bool enough(struct ctx *c, const char *what, struct str dir, int64_t min_space, int64_t min_inodes, int64_t size) {
  int64_t kilobytes, inodes;
  if (min_space <= 0 && min_inodes <= 0 && size <= 0)
    return true;
  if (!free_in(c, dir, &kilobytes, &inodes))
    return true; /* writing will tell */
  int64_t need = min_space + size / 1024;
  if ((kilobytes >= 0 && kilobytes < need) || (inodes >= 0 && inodes < min_inodes)) {
    acl_log(c, LOG_MAIN, "%s directory space check failed: space=%lld inodes=%lld", what, (long long)kilobytes, (long long)inodes);
    return false;
  }
  return true;
}

/* Where the first log file of log_file_path is; unset: there is none, or it is below the spool. */
static struct str log_directory(const struct main_options *o) {
  struct str rest = o->log_file_path;
  while (str_is_set(rest)) {
    struct str item = str_trim(str_cut(&rest, ':'));
    if (str_is_empty(item) || item.p[0] != '/')
      continue;
    ptrdiff_t percent = str_find_byte(item, '%');
    item = str_slice(item, 0, percent < 0 ? item.len : (size_t)percent);
    return str_slice(item, 0, (size_t)(str_rfind_byte(item, '/') + 1));
  }
  return STR_UNSET;
}

bool spool_space_ok(struct ctx *c, int64_t size) {
  const struct main_options *o = main_options(c->config);
  struct str logs = log_directory(o);
  if (str_is_set(logs) && !enough(c, "log", logs, o->check_log_space / 1024, o->check_log_inodes, 0))
    return false;
  return enough(c, "spool", o->spool_directory, o->check_spool_space / 1024, o->check_spool_inodes, size);
}
