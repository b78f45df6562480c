/* dbm, dbmnz, dbmjz: Berkeley DB files of any type (manual, "Single-key lookup types"). The key of dbm carries its final
NUL, that of dbmnz does not; dbmjz takes a list whose elements are joined by NULs. */
#include <db.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/buf.h"
#include "lookup/file.h"
#include "lookup/types.h"
#include "match/match.h"

#define PURPOSE "dbm lookup"
#define KEY_MAX (1u << 20)
#define DATA_MAX (16u << 20)

struct dbm {
  DB *db;
  struct lookup_stamp stamp;
};

/* The library would write to standard error. */
static void say_nothing(const DB_ENV *env, const char *prefix, const char *text) {}

static int dbm_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  int fd = lookup_file_open(c, file, PURPOSE, "dbm", &st);
  if (fd < 0)
    return fd;
  close(fd);
  DB *db;
  int e = db_create(&db, NULL, 0);
  if (e == 0) {
    db->set_errcall(db, say_nothing);
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

const struct lookup_def lookup_dbm = {
  .name = "dbm", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbm_find};
const struct lookup_def lookup_dbmjz = {
  .name = "dbmjz", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbmjz_find};
const struct lookup_def lookup_dbmnz = {
  .name = "dbmnz", .flags = LOOKUP_FILE, .open = dbm_open, .close = dbm_close, .stale = dbm_stale, .find = dbmnz_find};
