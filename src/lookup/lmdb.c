/* lmdb: a memory-mapped file of keys and data, read only (manual, "Single-key lookup types"). Option db=NAME takes a named
database instead of the main one; a directory is taken for an environment with its files inside. Each lookup is a
transaction of its own, so that it sees what was committed last and no slot of the reader table stays taken. */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/buf.h"
#include "lookup/file.h"
#include "lookup/types.h"

#define PURPOSE "lmdb lookup"
#define DATA_MAX (16u << 20)
#define NAMED_MAX 16

struct lmdb {
  MDB_env *env;
  pid_t owner; /* an environment must not be used, nor closed, in a child of the process that opened it */
  dev_t dev;
  ino_t ino;
};

/* A file that ends before its last page would be a SIGBUS later. */
static bool is_truncated(MDB_env *env, off_t size) {
  MDB_envinfo info;
  MDB_stat stat;
  if (mdb_env_info(env, &info) != 0 || mdb_env_stat(env, &stat) != 0)
    return true;
  return (uint64_t)size / stat.ms_psize < (uint64_t)info.me_last_pgno + 1;
}

static int open_env(const char *path, unsigned flags, MDB_env **ret) {
  MDB_env *env;
  int e = mdb_env_create(&env);
  if (e != 0)
    return e;
  mdb_env_set_maxdbs(env, NAMED_MAX);
  e = mdb_env_open(env, path, flags, 0640);
  if (e != 0)
    mdb_env_close(env);
  else
    *ret = env;
  return e;
}

static int lmdb_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  if (file.len == 0 || file.p[0] != '/')
    return ctx_fail(c, OUTCOME_ERROR, "file name '%.*s' for lmdb lookup is not absolute", STRF(file));
  if (stat(file.p, &st) != 0)
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s: %s", STRF(file), strerror(errno));
  unsigned flags = MDB_RDONLY | MDB_NOTLS;
  struct str data = file;
  if (S_ISDIR(st.st_mode)) {
    data = str_printf(c->arena, "%.*s/data.mdb", STRF(file));
    if (stat(data.p, &st) != 0)
      return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s: %s", STRF(data), strerror(errno));
  } else {
    flags |= MDB_NOSUBDIR;
  }
  if (!S_ISREG(st.st_mode))
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s: not a regular file", STRF(data));
  MDB_env *env = NULL;
  int e = open_env(file.p, flags, &env);
  if (e == EACCES || e == EROFS || e == ENOENT || e == EPERM) /* no lock file can be made beside it */
    e = open_env(file.p, flags | MDB_NOLOCK, &env);
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s: %s", STRF(file), mdb_strerror(e));
  if (is_truncated(env, st.st_size)) {
    mdb_env_close(env);
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: unable to open %.*s: file is truncated", STRF(file));
  }
  struct lmdb *h = xcalloc(1, sizeof *h);
  *h = (struct lmdb){env, getpid(), st.st_dev, st.st_ino};
  *ret = h;
  return OUTCOME_OK;
}

static void lmdb_close(void *handle) {
  struct lmdb *h = handle;
  if (h->owner == getpid())
    mdb_env_close(h->env);
  free(h);
}

static bool lmdb_stale(void *handle, struct str file) {
  struct lmdb *h = handle;
  struct stat st;
  if (h->owner != getpid() || stat(file.p, &st) != 0)
    return true;
  if (S_ISDIR(st.st_mode)) {
    int dir = open(file.p, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = dir < 0 ? -1 : fstatat(dir, "data.mdb", &st, 0);
    if (dir >= 0)
      close(dir);
    if (r != 0)
      return true;
  }
  return st.st_dev != h->dev || st.st_ino != h->ino;
}

static int begin(MDB_env *env, MDB_txn **ret) {
  int e = mdb_txn_begin(env, NULL, MDB_RDONLY, ret);
  if (e == MDB_MAP_RESIZED && (e = mdb_env_set_mapsize(env, 0)) == 0)
    e = mdb_txn_begin(env, NULL, MDB_RDONLY, ret);
  return e;
}

/* In the text a NUL would end what others see of it. */
static struct str copy(struct arena *a, const MDB_val *v) {
  char *p = arena_bytes(a, v->mv_size + 1);
  const char *from = v->mv_data;
  for (size_t i = 0; i < v->mv_size; i++)
    p[i] = from[i] ? from[i] : '?';
  p[v->mv_size] = '\0';
  return str_n(p, v->mv_size);
}

static int lmdb_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct lmdb *h = handle;
  if (key.len == 0 || key.len > (size_t)mdb_env_get_maxkeysize(h->env))
    return OUTCOME_FAIL;
  struct str name = lookup_option(options, "db");
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_val k = {key.len, (void *)key.p}, v;
  int e = begin(h->env, &txn);
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "LMDB: %s", mdb_strerror(e));
  int r = OUTCOME_OK;
  if ((e = mdb_dbi_open(txn, str_is_set(name) ? str_dup_c(c->arena, name) : NULL, 0, &dbi)) == 0)
    e = mdb_get(txn, dbi, &k, &v);
  else if (e == MDB_NOTFOUND)
    r = ctx_fail(c, OUTCOME_DEFER, "LMDB: no database \"%.*s\" in %.*s", STRF(name), STRF(file));
  if (r == OUTCOME_OK && e == MDB_NOTFOUND)
    r = OUTCOME_FAIL;
  else if (r == OUTCOME_OK && e != 0)
    r = ctx_fail(c, OUTCOME_DEFER, "LMDB: %s", mdb_strerror(e));
  else if (r == OUTCOME_OK && v.mv_size > DATA_MAX)
    r = ctx_fail(c, OUTCOME_DEFER, "LMDB: data too long");
  if (r == OUTCOME_OK)
    *ret = copy(c->arena, &v);
  mdb_txn_abort(txn);
  return r;
}

const struct lookup_def lookup_lmdb = {
  .name = "lmdb", .flags = LOOKUP_FILE, .open = lmdb_open, .close = lmdb_close, .stale = lmdb_stale, .find = lmdb_find};
