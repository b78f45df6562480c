/* dsearch: does a directory have an entry of this name? (manual, "Single-key
lookup types"; key=path is newer). Results are untainted: they exist. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "lookup/file.h"
#include "lookup/types.h"

#define PURPOSE "directory search"

static int dsearch_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  if (file.len == 0 || file.p[0] != '/')
    return ctx_fail(c, OUTCOME_ERROR, "dirname '%.*s' for dsearch is not absolute", STRF(file));
  /* Search permission is enough: the directory is not read. */
  int fd = open(file.p, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return lookup_open_failed(c, file, PURPOSE, errno);
  close(fd);
  return OUTCOME_OK;
}

/* A handle would pin a directory that may be replaced: it is looked up by name each time. */
static bool dsearch_stale(void *handle, struct str file) { return true; }

static bool has_dotdot(struct str path) {
  struct str rest = path;
  while (str_is_set(rest))
    if (str_eq_c(str_cut(&rest, '/'), ".."))
      return true;
  return false;
}

static bool wanted(struct str filter, struct str key, const struct stat *st) {
  if (!str_is_set(filter))
    return true;
  if (str_eq_c(filter, "file"))
    return S_ISREG(st->st_mode);
  if (str_eq_c(filter, "dir"))
    return S_ISDIR(st->st_mode);
  if (str_eq_c(filter, "subdir"))
    return S_ISDIR(st->st_mode) && !str_eq_c(key, ".") && !str_eq_c(key, "..");
  return true;
}

static int dsearch_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  bool path = str_eq_c(lookup_option(options, "key"), "path");
  if (!path && str_find_byte(key, '/') >= 0)
    return ctx_fail(c, OUTCOME_DEFER, "key for dsearch lookup contains a slash: %.*s", STRF(key));
  if (path && has_dotdot(key))
    return ctx_fail(c, OUTCOME_DEFER, "key for dsearch lookup contains a '..' component: %.*s", STRF(key));
  if (key.len == 0 || memchr(key.p, '\0', key.len))
    return OUTCOME_FAIL;
  const char *slash = file.p[file.len - 1] == '/' ? "" : "/";
  struct str name = str_printf(c->arena, "%.*s%s%.*s", STRF(file), slash, STRF(key));
  struct stat st;
  if (lstat(name.p, &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG)
      return OUTCOME_FAIL;
    return ctx_fail(c, OUTCOME_DEFER, "%.*s: lstat: %s", STRF(name), strerror(errno));
  }
  if (!wanted(lookup_option(options, "filter"), key, &st))
    return OUTCOME_FAIL;
  *ret = str_eq_c(lookup_option(options, "ret"), "full") ? name : str_untainted(str_dup(c->arena, key));
  return OUTCOME_OK;
}

const struct lookup_def lookup_dsearch = {
  .name = "dsearch", .flags = LOOKUP_FILE, .open = dsearch_open, .stale = dsearch_stale, .find = dsearch_find};
