/* Hints in LMDB: one environment under SPOOL/db/, one named database a kind.
Transactions are short; they are not synced one by one, because a hint that a
power cut loses is learnt again. */

#include "hints/hints.h"

#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "core/ctx.h"
#include "core/main_options.h"
#include "log/log.h"

#define MAP_SIZE (1ull << 30) /* the file grows with its content, not to this size */
#define DATABASES_MAX 32
#define KEY_MAX 511           /* LMDB's limit */

static struct {
  MDB_env *env;
  char *directory;
  pid_t pid;                  /* an environment must not be used across fork */
  bool broken;
  struct {
    char name[32];
    MDB_dbi dbi;
  } db[DATABASES_MAX];
  int db_n;
} store;

static int complain(const char *what, int e) {
  if (!store.broken)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "hints in %s: %s: %s", store.directory ? store.directory : "(unknown)", what, mdb_strerror(e));
  store.broken = true;
  return OUTCOME_DEFER;
}

int hints_open(struct config *c) {
  char path[PATH_MAX];
  struct str spool = main_options(c)->spool_directory;
  if (store.env && store.pid == getpid())
    return 0;
  if (store.env) { /* the parent's: its locks are not ours, so it is left alone */
    store.env = NULL;
    store.db_n = 0;
  }
  store.broken = false;
  int n = snprintf(path, sizeof path, "%.*s/db", STRF(spool));
  if (n < 0 || (size_t)n >= sizeof path)
    return complain("path too long", ENAMETOOLONG);
  free(store.directory);
  store.directory = xstrdup(path);
  store.pid = getpid();
  if (mkdir(path, 0750) < 0 && errno != EEXIST)
    return complain("mkdir", errno);
  int e = mdb_env_create(&store.env);
  if (!e)
    e = mdb_env_set_mapsize(store.env, MAP_SIZE);
  if (!e)
    e = mdb_env_set_maxdbs(store.env, DATABASES_MAX);
  if (!e)
    e = mdb_env_open(store.env, path, MDB_NOSYNC | MDB_NOTLS, 0640);
  if (!e)
    return 0;
  mdb_env_close(store.env);
  store.env = NULL;
  return complain("cannot open", e);
}

void hints_close(void) {
  if (store.env && store.pid == getpid()) {
    mdb_env_sync(store.env, 1);
    mdb_env_close(store.env);
  }
  free(store.directory);
  memset(&store, 0, sizeof store);
}

/* The database's handle; opened (and for writing made) on first use. */
static int database(MDB_txn *txn, const char *name, bool create, MDB_dbi *ret) {
  for (int i = 0; i < store.db_n; i++)
    if (!strcmp(store.db[i].name, name)) {
      *ret = store.db[i].dbi;
      return 0;
    }
  return mdb_dbi_open(txn, name, create ? MDB_CREATE : 0, ret);
}

/* A handle is kept once the transaction that opened it is committed. */
static void keep_database(const char *name, MDB_dbi dbi) {
  for (int i = 0; i < store.db_n; i++)
    if (!strcmp(store.db[i].name, name))
      return;
  if (store.db_n < DATABASES_MAX && strlen(name) < sizeof store.db[0].name) {
    memcpy(store.db[store.db_n].name, name, strlen(name) + 1);
    store.db[store.db_n++].dbi = dbi;
  }
}

static bool make_key(struct str key, MDB_val *ret) {
  *ret = (MDB_val){key.len, (void *)key.p};
  return key.len > 0 && key.len <= KEY_MAX;
}

static int begin(struct ctx *c, const char *db, bool write, MDB_txn **txn, MDB_dbi *dbi) {
  if (hints_open(c->config) || !store.env)
    return OUTCOME_DEFER;
  int e = mdb_txn_begin(store.env, NULL, write ? 0 : MDB_RDONLY, txn);
  if (e)
    return complain("begin", e);
  e = database(*txn, db, write, dbi);
  if (e) {
    mdb_txn_abort(*txn);
    return e == MDB_NOTFOUND ? OUTCOME_FAIL : complain(db, e);
  }
  return OUTCOME_OK;
}

static int commit(const char *db, MDB_txn *txn, MDB_dbi dbi) {
  int e = mdb_txn_commit(txn);
  if (e)
    return complain("commit", e);
  keep_database(db, dbi);
  return OUTCOME_OK;
}

int hints_get(struct ctx *c, const char *db, struct str key, struct arena *a, struct str *ret) {
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_val k, v;
  if (!make_key(key, &k))
    return OUTCOME_FAIL;
  int e = begin(c, db, false, &txn, &dbi);
  if (e)
    return e;
  e = mdb_get(txn, dbi, &k, &v);
  if (e == 0)
    *ret = str_tainted(str_dup(a, str_n(v.mv_data, v.mv_size)));
  if (e && e != MDB_NOTFOUND) {
    mdb_txn_abort(txn);
    return complain("get", e);
  }
  int done = commit(db, txn, dbi);
  return e == MDB_NOTFOUND ? OUTCOME_FAIL : done;
}

int hints_put(struct ctx *c, const char *db, struct str key, struct str value) {
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_val k, v = {value.len, (void *)(value.p ? value.p : "")};
  if (!make_key(key, &k))
    return OUTCOME_FAIL;
  int e = begin(c, db, true, &txn, &dbi);
  if (e)
    return e;
  e = mdb_put(txn, dbi, &k, &v, 0);
  if (e) {
    mdb_txn_abort(txn);
    return complain("put", e);
  }
  return commit(db, txn, dbi);
}

int hints_delete(struct ctx *c, const char *db, struct str key) {
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_val k;
  if (!make_key(key, &k))
    return OUTCOME_FAIL;
  int e = begin(c, db, true, &txn, &dbi);
  if (e)
    return e;
  e = mdb_del(txn, dbi, &k, NULL);
  if (e && e != MDB_NOTFOUND) {
    mdb_txn_abort(txn);
    return complain("delete", e);
  }
  int done = commit(db, txn, dbi);
  return e == MDB_NOTFOUND ? OUTCOME_FAIL : done;
}

int hints_update(struct ctx *c, const char *db, struct str key, int (*fn)(struct arena *a, struct str *value, void *arg), void *arg) {
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_val k, v;
  if (!make_key(key, &k))
    return OUTCOME_FAIL;
  int e = begin(c, db, true, &txn, &dbi);
  if (e)
    return e;
  struct arena *a = arena_new("hint");
  e = mdb_get(txn, dbi, &k, &v);
  struct str value = e == 0 ? str_tainted(str_dup(a, str_n(v.mv_data, v.mv_size))) : STR_UNSET;
  int what = e && e != MDB_NOTFOUND ? 0 : fn(a, &value, arg);
  if (e == MDB_NOTFOUND)
    e = 0;
  if (!e && what > 0) {
    v = (MDB_val){value.len, (void *)value.p};
    e = mdb_put(txn, dbi, &k, &v, 0);
  } else if (!e && what < 0) {
    e = mdb_del(txn, dbi, &k, NULL);
    if (e == MDB_NOTFOUND)
      e = 0;
  }
  arena_free(a);
  if (e) {
    mdb_txn_abort(txn);
    return complain("update", e);
  }
  return commit(db, txn, dbi);
}

int hints_each(struct ctx *c, const char *db, bool (*fn)(struct str key, struct str value, void *arg), void *arg) {
  MDB_txn *txn;
  MDB_dbi dbi;
  MDB_cursor *cursor;
  MDB_val k, v;
  int e = begin(c, db, false, &txn, &dbi);
  if (e)
    return e;
  e = mdb_cursor_open(txn, dbi, &cursor);
  if (e) {
    mdb_txn_abort(txn);
    return complain("cursor", e);
  }
  while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0)
    if (!fn(str_tainted(str_n(k.mv_data, k.mv_size)), str_tainted(str_n(v.mv_data, v.mv_size)), arg))
      break;
  mdb_cursor_close(cursor);
  return commit(db, txn, dbi);
}
