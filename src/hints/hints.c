/* The LMDB store. One environment for all databases; records are
  version 1, flags 1, length of a long key 2, stamp 8 (little endian), [key], value.

Administrators (and their scripts) are used to emptying a hints database by removing its file, SPOOL/db/retry and the like.
So each database has such a file, a mark: where it is missing, the database is emptied before it is used (those who only read
look for it every 20 ms). */
#include "hints/hints.h"

#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/hash.h"
#include "core/build.h"
#include "core/ctx.h"
#include "core/main_options.h"
#include "log/log.h"

#define MAP_SIZE (1ul << 30) /* sparse: what the hints can grow to */
#define DATABASES_MAX 64
#define MISSING_MAX 4
#define READERS_MAX 1024
#define KEY_MAX 500          /* of LMDB's 511 */
#define VALUE_MAX (1u << 20)
#define RECORD_VERSION 1
#define FLAG_LONG_KEY 1
#define HEADER_SIZE 12
#define LOOK_AGAIN 20        /* milliseconds: marks are files, and a delivery asks for a dozen records */

static struct {
  MDB_env *env;
  char *dir;
  uid_t uid;
  gid_t gid;
  bool failed; /* reported; not tried again by this process */
  struct {
    char *name;
    MDB_dbi dbi;
    int64_t marked; /* when its mark was seen */
  } dbs[DATABASES_MAX];
  int dbs_n;
  struct {
    char *name;
    int64_t at;
    size_t last_txn;
  } missing[MISSING_MAX]; /* databases that were not there then */
} store;

static const char *const files[] = {"/data.mdb", "/lock.mdb", "/boot"};

static int fail(struct ctx *c, const char *what, int error) {
  if (error == MDB_MAP_FULL)
    what = "hints database is full (run exim_tidydb)";
  log_write(LOG_MAIN | LOG_PANIC, NULL, "%s: %s", what, mdb_strerror(error));
  if (c)
    ctx_fail(c, OUTCOME_DEFER, "%s: %s", what, mdb_strerror(error));
  return OUTCOME_DEFER;
}

/* --- opening --- */

static int make_directory(struct str dir, uid_t uid, gid_t gid) {
  if (mkdir(dir.p, 0750) == 0) {
    if (geteuid() == 0 && chown(dir.p, uid, gid) != 0)
      return -errno;
    return 0;
  }
  return errno == EEXIST ? 0 : -errno;
}

/* What root has made belongs to the mail user, so that workers can open it. */
static void give_away(struct arena *a, struct str dir, uid_t uid, gid_t gid) {
  if (geteuid() != 0)
    return;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    struct str path = str_cat(a, dir, str_c(files[i]));
    if (lchown(path.p, uid, gid) != 0 && errno != ENOENT)
      log_write(LOG_MAIN | LOG_PANIC, NULL, "chown %s: %s", path.p, strerror(errno));
  }
}

static void remove_files(struct arena *a, struct str dir) {
  for (size_t i = 0; i < 2; i++)
    unlink(str_cat(a, dir, str_c(files[i])).p);
}

static struct str boot_id(struct arena *a) {
  char text[64];
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
  if (fd >= 0)
    close(fd);
  return n > 0 ? str_dup(a, str_trim(str_n(text, (size_t)n))) : STR("unknown");
}

/* Has the store been opened since the system was started? Then all its pages are as they were written. */
static bool opened_since_boot(struct arena *a, struct str dir, struct str id) {
  struct str path = str_cat(a, dir, STR("/boot"));
  char text[64];
  int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
  if (fd >= 0)
    close(fd);
  return n > 0 && str_eq(str_trim(str_n(text, (size_t)n)), id);
}

static void note_boot(struct arena *a, struct str dir, struct str id) {
  struct str path = str_cat(a, dir, STR("/boot"));
  int fd = open(path.p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0)
    return;
  if (write(fd, id.p, id.len) != (ssize_t)id.len)
    (void)!ftruncate(fd, 0);
  close(fd);
}

/* LMDB makes its table of readers as a file with holes, and writes to it as memory: on a full disk that ends the process
(SIGBUS). With the room taken before, there is an error instead. */
static int reserve_readers(struct str dir) {
  char path[PATH_MAX];
  if ((size_t)snprintf(path, sizeof path, "%.*s%s", STRF(dir), files[1]) >= sizeof path)
    return ENAMETOOLONG;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0)
    return errno;
  /* A cache line for each, a few for the head, whole pages. */
  int e = posix_fallocate(fd, 0, ((READERS_MAX + 8) * 64 + 4095) / 4096 * 4096);
  close(fd);
  return e == EINVAL || e == EOPNOTSUPP ? 0 : e;
}

static int env_open(struct str dir, MDB_env **ret) {
  MDB_env *env;
  int e = reserve_readers(dir);
  if (e == 0)
    e = mdb_env_create(&env);
  if (e != 0)
    return e;
  mdb_env_set_mapsize(env, MAP_SIZE);
  mdb_env_set_maxdbs(env, DATABASES_MAX);
  mdb_env_set_maxreaders(env, READERS_MAX);
  e = mdb_env_open(env, dir.p, MDB_NOSYNC | MDB_NOMEMINIT, 0640);
  if (e != 0) {
    mdb_env_close(env);
    return e;
  }
  int dead;
  mdb_reader_check(env, &dead);
  *ret = env;
  return 0;
}

/* Reads every record of every database; a damaged page can end the process, so a child does it. */
static int read_all(struct str dir) {
  MDB_env *env;
  MDB_txn *txn;
  MDB_dbi names;
  MDB_cursor *cursor;
  MDB_val key, value;
  int e = env_open(dir, &env);
  if (e || (e = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) || (e = mdb_dbi_open(txn, NULL, 0, &names)) ||
      (e = mdb_cursor_open(txn, names, &cursor)))
    return e;
  unsigned sum = 0;
  while ((e = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
    char name[128];
    MDB_dbi dbi;
    MDB_cursor *records;
    snprintf(name, sizeof name, "%.*s", (int)key.mv_size, (const char *)key.mv_data);
    if ((e = mdb_dbi_open(txn, name, 0, &dbi)) || (e = mdb_cursor_open(txn, dbi, &records)))
      return e;
    while ((e = mdb_cursor_get(records, &key, &value, MDB_NEXT)) == 0)
      for (size_t i = 0; i < value.mv_size; i++)
        sum += ((const unsigned char *)value.mv_data)[i];
    if (e != MDB_NOTFOUND)
      return e;
  }
  DEBUG(hints_lookup, "hints database read, sum %u\n", sum);
  return e == MDB_NOTFOUND ? 0 : e;
}

static bool is_sound(struct str dir) {
  pid_t pid = fork();
  if (pid < 0)
    return true;
  if (pid == 0)
    _exit(read_all(dir) == 0 ? 0 : 1);
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR)
      return true; /* somebody else reaps our children: no verdict */
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* After a fork the parent's environment must not be used or closed here. */
static void forget_parents(void) { memset(&store, 0, sizeof store); }

static void watch_forks(void) { (void)!pthread_atfork(NULL, NULL, forget_parents); }

static int open_at(struct arena *a, struct str spool, uid_t uid, gid_t gid) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  struct str dir = str_cat(a, spool, STR("/db"));
  int r = make_directory(dir, uid, gid);
  if (r < 0)
    return fail(NULL, str_printf(a, "failed to create directory %.*s", STRF(dir)).p, -r);
  struct str id = boot_id(a);
  if (!opened_since_boot(a, dir, id)) {
    if (access(str_cat(a, dir, STR("/data.mdb")).p, F_OK) == 0 && !is_sound(dir)) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "hints database %.*s is damaged: starting with an empty one", STRF(dir));
      remove_files(a, dir);
    }
    note_boot(a, dir, id);
  }
  int e = env_open(dir, &store.env);
  if (e == MDB_INVALID || e == MDB_CORRUPTED || e == MDB_VERSION_MISMATCH) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "hints database %.*s cannot be read (%s): starting with an empty one", STRF(dir),
      mdb_strerror(e));
    remove_files(a, dir);
    e = env_open(dir, &store.env);
  }
  give_away(a, dir, uid, gid);
  if (e != 0)
    return fail(NULL, str_printf(a, "failed to open hints database %.*s", STRF(dir)).p, e);
  store.dir = xstrdup(dir.p);
  store.uid = uid;
  store.gid = gid;
  return OUTCOME_OK;
}

static bool is_open(void) { return store.env != NULL; }

int hints_open_directory(struct str spool) {
  if (is_open())
    return OUTCOME_OK;
  struct arena *a = arena_new("hints");
  struct stat st = {0};
  struct str dir = str_dup(a, spool);
  if (stat(dir.p, &st) != 0)
    st.st_uid = geteuid(), st.st_gid = getegid();
  int r = open_at(a, dir, st.st_uid, st.st_gid);
  arena_free(a);
  return r;
}

int hints_open(struct config *config) {
  if (is_open())
    return OUTCOME_OK;
  if (store.failed)
    return OUTCOME_DEFER;
  struct arena *a = arena_new("hints");
  const struct main_options *o = main_options(config);
  struct str spool = o->spool_directory;
  if (!str_is_set(spool) || spool.len == 0)
    spool = str_c(build.spool_directory);
  uid_t uid = o->exim_user.set ? o->exim_user.id : geteuid();
  gid_t gid = o->exim_group.set ? o->exim_group.id : o->exim_user.gid_set ? o->exim_user.gid : getegid();
  int r = open_at(a, spool, uid, gid);
  store.failed = r != OUTCOME_OK;
  arena_free(a);
  return r == OUTCOME_OK ? OUTCOME_OK : OUTCOME_DEFER;
}

void hints_close(void) {
  if (!is_open())
    return;
  mdb_env_sync(store.env, 1);
  mdb_env_close(store.env);
  for (int i = 0; i < store.dbs_n; i++)
    free(store.dbs[i].name);
  for (int i = 0; i < MISSING_MAX; i++)
    free(store.missing[i].name);
  free(store.dir);
  memset(&store, 0, sizeof store);
}

/* --- marks --- */

static bool has_mark(const char *db) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/%s", store.dir, db);
  return n < 0 || (size_t)n >= sizeof path || strchr(db, '/') || access(path, F_OK) == 0 || errno != ENOENT;
}

static void make_mark(const char *db) {
  static const char text[] = "The records are in data.mdb. Without this file they are forgotten.\n";
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", store.dir, db);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0)
    return;
  (void)!write(fd, text, sizeof text - 1);
  if (geteuid() == 0)
    (void)!fchown(fd, store.uid, store.gid);
  close(fd);
}

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static size_t last_txn(void) {
  MDB_envinfo info;
  return mdb_env_info(store.env, &info) == 0 ? info.me_last_txnid : 0;
}

/* Has the database been looked for a moment ago, and nobody written anything since? */
static bool known_missing(const char *db) {
  for (int i = 0; i < MISSING_MAX && store.missing[i].name; i++)
    if (strcmp(store.missing[i].name, db) == 0)
      return now_ms() - store.missing[i].at < LOOK_AGAIN && store.missing[i].last_txn == last_txn();
  return false;
}

static void note_missing(const char *db, size_t at_txn) {
  for (int i = 0; i < MISSING_MAX; i++) {
    if (store.missing[i].name && strcmp(store.missing[i].name, db) != 0)
      continue;
    if (!store.missing[i].name)
      store.missing[i].name = xstrdup(db);
    store.missing[i].at = now_ms();
    store.missing[i].last_txn = at_txn;
    return;
  }
}

/* Has its mark been seen a moment ago? */
static bool marked(const char *db) {
  for (int i = 0; i < store.dbs_n; i++)
    if (strcmp(store.dbs[i].name, db) == 0) {
      int64_t now = now_ms();
      if (now - store.dbs[i].marked < LOOK_AGAIN)
        return true;
      if (!has_mark(db))
        return false;
      store.dbs[i].marked = now;
      return true;
    }
  return has_mark(db);
}

static bool exists(const char *db) {
  MDB_txn *txn;
  MDB_dbi dbi;
  if (mdb_txn_begin(store.env, NULL, MDB_RDONLY, &txn) != 0)
    return false;
  bool found = mdb_dbi_open(txn, db, 0, &dbi) == 0;
  mdb_txn_abort(txn);
  return found;
}

/* Somebody has removed the mark: its records go, too. */
static void forget_removed(const char *db, bool write) {
  MDB_txn *txn;
  MDB_dbi dbi;
  if ((write ? has_mark(db) : marked(db)) || (!write && !exists(db)) || mdb_txn_begin(store.env, NULL, 0, &txn) != 0)
    return;
  int e = 0;
  if (!has_mark(db)) { /* nobody else was faster */
    e = mdb_dbi_open(txn, db, 0, &dbi);
    if (e == 0)
      e = mdb_drop(txn, dbi, 0);
    else if (e == MDB_NOTFOUND)
      e = 0;
    if (e == 0)
      make_mark(db);
  }
  if (e != 0 || mdb_txn_commit(txn) != 0) {
    if (e != 0)
      mdb_txn_abort(txn);
    log_write(LOG_MAIN | LOG_PANIC, NULL, "failed to empty hints database %s: %s", db, mdb_strerror(e));
  }
}

/* --- transactions --- */

struct access {
  MDB_txn *txn;
  MDB_dbi dbi;
};

/* Begins; OUTCOME_FAIL: a database that is only to be read does not exist. */
static int begin(struct ctx *c, const char *db, bool write, struct access *ret) {
  if (!is_open()) {
    int r = c && c->config ? hints_open(c->config) : OUTCOME_DEFER;
    if (r != OUTCOME_OK)
      return c ? ctx_fail(c, OUTCOME_DEFER, "hints database is not available") : OUTCOME_DEFER;
  }
  if (!write && known_missing(db))
    return OUTCOME_FAIL;
  size_t at_txn = last_txn();
  forget_removed(db, write);
  int e = mdb_txn_begin(store.env, NULL, write ? 0 : MDB_RDONLY, &ret->txn);
  if (e != 0)
    return fail(c, "failed to access hints database", e);
  for (int i = 0; i < store.dbs_n; i++)
    if (strcmp(store.dbs[i].name, db) == 0) {
      ret->dbi = store.dbs[i].dbi;
      return OUTCOME_OK;
    }
  e = store.dbs_n < DATABASES_MAX ? mdb_dbi_open(ret->txn, db, write ? MDB_CREATE : 0, &ret->dbi) : MDB_DBS_FULL;
  if (e == MDB_NOTFOUND) {
    mdb_txn_abort(ret->txn);
    if (c && c->message && !has_mark(db)) /* scripts remove it where a delivery has been, whether there were records or not */
      make_mark(db);
    note_missing(db, at_txn);
    return OUTCOME_FAIL;
  }
  if (e != 0) {
    mdb_txn_abort(ret->txn);
    return fail(c, "failed to open hints database", e);
  }
  return OUTCOME_OK;
}

/* A handle of a new database is good for others only when its transaction has been committed. */
static void remember(const char *db, MDB_dbi dbi) {
  for (int i = 0; i < store.dbs_n; i++)
    if (store.dbs[i].dbi == dbi)
      return;
  store.dbs[store.dbs_n].marked = INT64_MIN / 2;
  store.dbs[store.dbs_n].name = xstrdup(db);
  store.dbs[store.dbs_n++].dbi = dbi;
}

/* A transaction that only read: its handle of the database is kept as well. */
static void end_read(const char *db, struct access *t) {
  if (mdb_txn_commit(t->txn) == 0)
    remember(db, t->dbi);
}

static int commit(struct ctx *c, const char *db, struct access *t) {
  int e = mdb_txn_commit(t->txn);
  if (e != 0)
    return fail(c, "failed to write hints database", e);
  remember(db, t->dbi);
  return OUTCOME_OK;
}

/* --- records --- */

struct record {
  struct str key, value;
  int64_t stamp;
};

static MDB_val store_key(struct arena *a, struct str key) {
  if (key.len > KEY_MAX) {
    struct buf b;
    buf_init(&b, a, 1000);
    buf_add(&b, str_slice(key, 0, 400));
    buf_add_byte(&b, '#');
    buf_add(&b, hash_hex(a, "sha256", key));
    key = buf_str(&b);
  }
  if (key.len == 0)
    key = STR("\0");
  return (MDB_val){key.len, (void *)(uintptr_t)key.p};
}

static bool decode(MDB_val key, MDB_val data, struct record *ret) {
  const unsigned char *p = data.mv_data;
  if (data.mv_size < HEADER_SIZE || p[0] != RECORD_VERSION)
    return false;
  uint64_t stamp = 0;
  for (int i = 7; i >= 0; i--)
    stamp = stamp << 8 | p[4 + i];
  size_t n = p[1] & FLAG_LONG_KEY ? (size_t)p[2] | (size_t)p[3] << 8 : 0;
  if (n > data.mv_size - HEADER_SIZE)
    return false;
  ret->stamp = (int64_t)stamp;
  ret->key = str_tainted(n ? str_n((const char *)p + HEADER_SIZE, n) : str_n(key.mv_data, key.mv_size));
  ret->value = str_tainted(str_n((const char *)p + HEADER_SIZE + n, data.mv_size - HEADER_SIZE - n));
  return true;
}

static int put(struct access *t, struct arena *a, struct str key, struct str value) {
  bool long_key = key.len > KEY_MAX;
  if (value.len > VALUE_MAX || key.len > 65535)
    return MDB_BAD_VALSIZE;
  size_t extra = long_key ? key.len : 0, n = HEADER_SIZE + extra + value.len;
  unsigned char *p = (unsigned char *)arena_bytes(a, n);
  p[0] = RECORD_VERSION;
  p[1] = long_key ? FLAG_LONG_KEY : 0;
  p[2] = (unsigned char)extra;
  p[3] = (unsigned char)(extra >> 8);
  uint64_t now = (uint64_t)time(NULL);
  for (int i = 0; i < 8; i++)
    p[4 + i] = (unsigned char)(now >> (8 * i));
  if (extra)
    memcpy(p + HEADER_SIZE, key.p, extra);
  if (value.len)
    memcpy(p + HEADER_SIZE + extra, value.p, value.len);
  MDB_val k = store_key(a, key), v = {n, p};
  return mdb_put(t->txn, t->dbi, &k, &v, 0);
}

int hints_get(struct ctx *c, const char *db, struct str key, struct arena *a, struct str *ret) {
  struct access t;
  int r = begin(c, db, false, &t);
  if (r != OUTCOME_OK)
    return r;
  struct arena *tmp = arena_new("hints");
  MDB_val k = store_key(tmp, key), v;
  struct record rec;
  int e = mdb_get(t.txn, t.dbi, &k, &v);
  bool found = e == 0 && decode(k, v, &rec);
  if (found)
    *ret = str_dup(a, rec.value);
  arena_free(tmp);
  end_read(db, &t);
  if (e != 0 && e != MDB_NOTFOUND)
    return fail(c, "failed to read hints database", e);
  DEBUG(hints_lookup, "hints %s: %.*s %s\n", db, STRF(key), found ? "found" : "not found");
  return found ? OUTCOME_OK : OUTCOME_FAIL;
}

static int set_value(struct arena *a, struct str *value, void *arg) {
  *value = *(struct str *)arg;
  return 1;
}

static int delete_value(struct arena *a, struct str *value, void *arg) { return str_is_set(*value) ? -1 : 0; }

int hints_put(struct ctx *c, const char *db, struct str key, struct str value) {
  return hints_update(c, db, key, set_value, &value);
}

int hints_delete(struct ctx *c, const char *db, struct str key) {
  struct str value = STR_UNSET;
  struct arena *a = arena_new("hints");
  int r = hints_get(c, db, key, a, &value);
  arena_free(a);
  return r == OUTCOME_OK ? hints_update(c, db, key, delete_value, NULL) : r == OUTCOME_FAIL ? OUTCOME_OK : r;
}

int hints_update(struct ctx *c, const char *db, struct str key, int (*fn)(struct arena *a, struct str *value, void *arg),
    void *arg) {
  struct access t;
  int r = begin(c, db, true, &t);
  if (r != OUTCOME_OK)
    return r;
  struct arena *a = arena_new("hints");
  MDB_val k = store_key(a, key), v;
  struct record rec;
  int e = mdb_get(t.txn, t.dbi, &k, &v);
  struct str value = e == 0 && decode(k, v, &rec) ? str_dup(a, rec.value) : STR_UNSET;
  int what = 0;
  if (e == 0 || e == MDB_NOTFOUND) {
    e = 0;
    what = fn(a, &value, arg);
    if (what > 0)
      e = put(&t, a, key, value);
    else if (what < 0 && (e = mdb_del(t.txn, t.dbi, &k, NULL)) == MDB_NOTFOUND)
      e = 0;
  }
  if (e != 0 || what == 0) {
    mdb_txn_abort(t.txn);
    r = e ? fail(c, "failed to write hints database", e) : OUTCOME_OK;
  } else {
    r = commit(c, db, &t);
  }
  arena_free(a);
  return r;
}

static int each(struct ctx *c, const char *db, struct str from,
    bool (*fn)(struct str key, struct str value, int64_t stamp, void *arg), void *arg) {
  struct access t;
  int r = begin(c, db, false, &t);
  if (r != OUTCOME_OK)
    return r == OUTCOME_FAIL ? OUTCOME_OK : r;
  MDB_cursor *cursor;
  MDB_val k, v;
  int e = mdb_cursor_open(t.txn, t.dbi, &cursor);
  if (e == 0) {
    MDB_cursor_op op = str_is_set(from) ? MDB_SET_RANGE : MDB_NEXT;
    k = (MDB_val){from.len, (void *)(uintptr_t)from.p};
    for (; (e = mdb_cursor_get(cursor, &k, &v, op)) == 0; op = MDB_NEXT) {
      struct record rec;
      if (decode(k, v, &rec) && !fn(rec.key, rec.value, rec.stamp, arg))
        break;
    }
    mdb_cursor_close(cursor);
  }
  end_read(db, &t);
  return e == 0 || e == MDB_NOTFOUND ? OUTCOME_OK : fail(c, "failed to read hints database", e);
}

int hints_each_stamped(struct ctx *c, const char *db, bool (*fn)(struct str key, struct str value, int64_t stamp, void *arg),
    void *arg) {
  return each(c, db, STR_UNSET, fn, arg);
}

struct plain {
  bool (*fn)(struct str key, struct str value, void *arg);
  void *arg;
};

static bool call_plain(struct str key, struct str value, int64_t stamp, void *arg) {
  struct plain *p = arg;
  return p->fn(key, value, p->arg);
}

int hints_each_from(struct ctx *c, const char *db, struct str from, bool (*fn)(struct str key, struct str value, void *arg),
    void *arg) {
  struct plain p = {fn, arg};
  return from.len > KEY_MAX ? OUTCOME_OK : each(c, db, from, call_plain, &p);
}

int hints_each(struct ctx *c, const char *db, bool (*fn)(struct str key, struct str value, void *arg), void *arg) {
  struct plain p = {fn, arg};
  return hints_each_stamped(c, db, call_plain, &p);
}

int hints_databases(struct ctx *c, void (*fn)(struct str name, void *arg), void *arg) {
  if (!is_open() && (c == NULL || c->config == NULL || hints_open(c->config) != OUTCOME_OK))
    return OUTCOME_DEFER;
  MDB_txn *txn;
  MDB_dbi names;
  MDB_cursor *cursor;
  MDB_val k, v;
  int e = mdb_txn_begin(store.env, NULL, MDB_RDONLY, &txn);
  if (e != 0)
    return fail(c, "failed to access hints database", e);
  if ((e = mdb_dbi_open(txn, NULL, 0, &names)) == 0 && (e = mdb_cursor_open(txn, names, &cursor)) == 0) {
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0)
      fn(str_n(k.mv_data, k.mv_size), arg);
    mdb_cursor_close(cursor);
  }
  mdb_txn_abort(txn);
  return OUTCOME_OK;
}
