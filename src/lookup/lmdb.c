/* lmdb: a file of keys and data, read only (manual, "Single-key lookup types"). Option db=NAME takes a named database instead of
the main one; a directory is taken for an environment with its files inside. Each lookup sees what was committed last. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/fd_io.h"
#include "lookup/file.h"
#include "lookup/lmdb_file.h"
#include "lookup/types.h"

#define DATA_MAX (16u << 20)

struct lmdb {
  int fd;
  dev_t dev;
  ino_t ino;
};

static bool read_at(void *arg, void *to, size_t n, uint64_t at) {
  const struct lmdb *h = arg;
  return fd_pread_all(h->fd, to, n, (off_t)at) == (ssize_t)n;
}

static uint64_t size_of(void *arg) {
  const struct lmdb *h = arg;
  struct stat st;
  return fstat(h->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* The data file: a directory's, or the file itself. */
static int open_data(struct str file, struct stat *ret, bool *ret_inside) {
  *ret_inside = false;
  int fd = open(file.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 || fstat(fd, ret) != 0 || !S_ISDIR(ret->st_mode))
    return fd;
  *ret_inside = true;
  int data = openat(fd, "data.mdb", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  int e = data < 0 || fstat(data, ret) != 0 ? errno : 0;
  close(fd);
  errno = e;
  return data;
}

static int open_failed(struct ctx *c, struct str file, bool inside, const char *why) {
  return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s%s: %s", STRF(file), inside ? "/data.mdb" : "", why);
}

static int lmdb_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  if (file.len == 0 || file.p[0] != '/')
    return ctx_fail(c, OUTCOME_ERROR, "file name '%.*s' for lmdb lookup is not absolute", STRF(file));
  bool inside;
  struct lmdb h = {.fd = open_data(file, &st, &inside)};
  if (h.fd < 0)
    return open_failed(c, file, inside, strerror(errno));
  const char *why = S_ISREG(st.st_mode) ? lmdb_file_text(lmdb_file_check(c->arena, &(struct lmdb_source){read_at, size_of, &h}))
    : "not a regular file";
  if (why) {
    close(h.fd);
    return open_failed(c, file, inside, why);
  }
  h.dev = st.st_dev;
  h.ino = st.st_ino;
  *ret = xcalloc(1, sizeof h);
  memcpy(*ret, &h, sizeof h);
  return OUTCOME_OK;
}

static void lmdb_close(void *handle) {
  struct lmdb *h = handle;
  close(h->fd);
  free(h);
}

/* Replaced by another file; changes inside are seen anyway. */
static bool lmdb_stale(void *handle, struct str file) {
  const struct lmdb *h = handle;
  struct stat st;
  if (stat(file.p, &st) != 0)
    return true;
  if (S_ISDIR(st.st_mode)) {
    bool inside;
    int fd = open_data(file, &st, &inside);
    if (fd < 0)
      return true;
    close(fd);
  }
  return st.st_dev != h->dev || st.st_ino != h->ino;
}

static int lmdb_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct lmdb_source s = {read_at, size_of, handle};
  struct str name = lookup_option(options, "db");
  enum lmdb_result r = lmdb_file_get(c->arena, &s, name, key, DATA_MAX, ret);
  if (r == LMDB_FOUND || r == LMDB_NOT_FOUND)
    return r == LMDB_FOUND ? OUTCOME_OK : OUTCOME_FAIL;
  if (r == LMDB_NO_DATABASE)
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: no database \"%.*s\" in %.*s", STRF(name), STRF(file));
  return ctx_fail(c, OUTCOME_DEFER, "LMDB: %.*s: %s", STRF(file), lmdb_file_text(r));
}

const struct lookup_def lookup_lmdb = {
  .name = "lmdb", .flags = LOOKUP_FILE, .open = lmdb_open, .close = lmdb_close, .stale = lmdb_stale, .find = lmdb_find};
