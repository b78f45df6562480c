/* dbm, dbmnz, dbmjz: Berkeley DB files of any type (manual, "Single-key lookup types"). The key of dbm carries its final
NUL, that of dbmnz does not; dbmjz takes a list whose elements are joined by NULs. */
#include <db.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/buf.h"
#include "core/module.h"
#include "expand/foreign.h"
#include "lookup/file.h"
#include "lookup/types.h"
#include "match/match.h"

#define PURPOSE "dbm lookup"
#define KEY_MAX (1u << 20)
#define DATA_MAX (16u << 20)
#define VERIFY_MAX (64 << 20)
#define VERIFY_SECONDS 60

struct dbm {
  DB *db;
  struct lookup_stamp stamp;
};

/* The library would write to standard error. */
static void say_nothing(const DB_ENV *env, const char *prefix, const char *text) {}

/* Not mapped: a mapped file that shrinks would end the process. */
static int create(DB **ret) {
  DB *db;
  int e = db_create(&db, NULL, 0);
  if (e == 0) {
    db->set_errcall(db, say_nothing);
    db->get_env(db)->set_flags(db->get_env(db), DB_NOMMAP, 1);
    *ret = db;
  }
  return e;
}

/* Also this believes too much of what it reads: in a process of its own, which may crash. */
static void run_verify(const struct str *v, int n, int out) {
  DB *db;
  dup2(open("/dev/null", O_WRONLY), STDERR_FILENO); /* the C library's last words are not for the caller */
  int e = create(&db);
  if (e == 0)
    e = db->verify(db, n == 1 ? v[0].p : "", NULL, NULL, DB_NOORDERCHK); /* the handle is gone after that */
  foreign_write(out, (const char *)&e, sizeof e);
}

const struct foreign_role dbm_verify_role = {.name = "dbm", .run = run_verify};

/* The library would follow wild offsets. A file is looked through when it is opened, unless that would take too long. */
static int verify(struct ctx *c, struct str file, const struct stat *st) {
  struct buf b;
  int e = 0;
  if (st->st_size > VERIFY_MAX)
    return 0;
  buf_init(&b, c->arena, sizeof e);
  int rc = foreign_call(dbm_verify_role.name, &file, 1, VERIFY_SECONDS, &b);
  if (rc == -ECHILD || (rc == 0 && b.len < sizeof e))
    return DB_VERIFY_BAD;
  if (rc == 0)
    memcpy(&e, b.p, sizeof e);
  return rc < 0 ? -rc : e;
}

static int dbm_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  int fd = lookup_file_open(c, file, PURPOSE, "dbm", &st);
  if (fd < 0)
    return fd;
  close(fd);
  DB *db;
  int e = verify(c, file, &st);
  if (e == 0)
    e = create(&db);
  if (e == 0) {
    e = db->open(db, NULL, file.p, NULL, DB_UNKNOWN, DB_RDONLY, 0);
    if (e != 0)
      db->close(db, 0);
  }
  if (e != 0)
    return ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s as a Berkeley DB file: %s", STRF(file), db_strerror(e));
  struct dbm *h = xcalloc(1, sizeof *h);
  h->db = db;
  lookup_stamp_set(&h->stamp, &st);
  *ret = h;
  return OUTCOME_OK;
}

static void dbm_close(void *handle) {
  struct dbm *h = handle;
  h->db->close(h->db, 0);
  free(h);
}

static bool dbm_stale(void *handle, struct str file) {
  struct dbm *h = handle;
  return lookup_stamp_changed(&h->stamp, file);
}

/* The key as the file has it; `text` has room for a final NUL behind its end. */
static int get(struct ctx *c, struct dbm *h, const char *text, size_t n, struct str *ret) {
  DBT k = {.data = (void *)text, .size = (uint32_t)n}, v = {.flags = DB_DBT_MALLOC};
  int e = h->db->get(h->db, NULL, &k, &v, 0);
  if (e == DB_NOTFOUND || e == DB_KEYEMPTY)
    return OUTCOME_FAIL;
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "dbm: %s", db_strerror(e));
  int r = OUTCOME_OK;
  /* Files made for C strings have the final NUL in the data, too. */
  if (v.size > DATA_MAX)
    r = ctx_fail(c, OUTCOME_DEFER, "dbm: data too long");
  else
    *ret = str_dup(c->arena, str_n(v.data, strnlen(v.data ? v.data : "", v.size)));
  free(v.data);
  return r;
}

static int dbm_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return get(c, handle, str_dup(c->arena, key).p, (size_t)key.len + 1, ret);
}

static int dbmnz_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return get(c, handle, key.p, key.len, ret);
}

static int dbmjz_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct buf b;
  struct list_iter i;
  struct str item;
  bool any = false;
  buf_init(&b, c->arena, KEY_MAX);
  list_iter_init(&i, c->arena, key);
  for (; list_next(&i, &item); any = true) {
    if (any)
      buf_add_byte(&b, '\0');
    buf_add(&b, item);
  }
  if (b.len == 0)
    return ctx_fail(c, OUTCOME_FAIL, "empty list key");
  return get(c, handle, b.p, b.len, ret);
}

static const char *runtime_version(void) { return db_version(NULL, NULL, NULL); }

static const struct library_def library = {"Berkeley DB", DB_VERSION_STRING, runtime_version};

const struct lookup_def lookup_dbm = {
  .name = "dbm", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbm_find, .library = &library};
const struct lookup_def lookup_dbmjz = {
  .name = "dbmjz", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbmjz_find};
const struct lookup_def lookup_dbmnz = {
  .name = "dbmnz", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbmnz_find};
