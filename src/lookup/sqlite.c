/* sqlite (manual, "More about SQLite"). The library blocks, so each query runs
in an offload thread, one at a time on a connection. */
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "core/main_options.h"
#include "core/module.h"
#include "loop/fiber.h"
#include "lookup/sql.h"
#include "lookup/types.h"

#define RESULT_MAX (16u << 20)
#define DEFAULT_LOCK_SECONDS 5

struct connection {
  sqlite3 *db;
  struct fiber_sem lock;
  dev_t dev;
  ino_t ino;
  bool broken; /* what it remembers of a damaged file is not to be trusted */
};

struct request {
  struct connection *conn;
  struct arena *arena; /* used by the thread only */
  struct str text;     /* query, or file name when opening */
  struct buf result;
  const char *error;
  int code;
  int rows;
  bool modifies;
  int lock_ms;
};

static int run_open(void *arg) {
  struct request *r = arg;
  r->code = sqlite3_open_v2(r->text.p, &r->conn->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL);
  if (r->code == SQLITE_READONLY || r->code == SQLITE_CANTOPEN) {
    sqlite3_close(r->conn->db);
    r->code = sqlite3_open_v2(r->text.p, &r->conn->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX, NULL);
  }
  if (r->code != SQLITE_OK)
    r->error = arena_strdup(r->arena, r->conn->db ? sqlite3_errmsg(r->conn->db) : sqlite3_errstr(r->code));
  return 0;
}

static void connection_close(void *handle) {
  struct connection *conn = handle;
  sqlite3_close_v2(conn->db);
  free(conn);
}

static int connection_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct connection *conn = xcalloc(1, sizeof *conn);
  fiber_sem_init(&conn->lock, 1);
  struct request r = {.conn = conn, .arena = arena_new("sqlite"), .text = file};
  fiber_offload(run_open, &r);
  struct stat st;
  if (stat(file.p, &st) == 0) {
    conn->dev = st.st_dev;
    conn->ino = st.st_ino;
  }
  int outcome = OUTCOME_OK;
  if (r.code == SQLITE_OK)
    *ret = conn;
  else {
    outcome = ctx_fail(c, OUTCOME_ERROR, "%s", r.error);
    connection_close(conn);
  }
  arena_free(r.arena);
  return outcome;
}

/* Replaced by another file; changes inside are the library's affair. A new file gets its inode with the first write. */
static bool connection_stale(void *handle, struct str file) {
  struct connection *conn = handle;
  struct stat st;
  return conn->broken || stat(file.p, &st) != 0 || st.st_dev != conn->dev || st.st_ino != conn->ino;
}

static void add_row(struct request *r, sqlite3_stmt *stmt) {
  if (r->rows++ > 0)
    buf_add_byte(&r->result, '\n');
  int n = sqlite3_column_count(stmt);
  for (int i = 0; i < n; i++) {
    const char *value = (const char *)sqlite3_column_text(stmt, i);
    if (value == NULL)
      value = "<NULL>";
    if (n == 1)
      buf_add_c(&r->result, value);
    else
      sql_add_field(&r->result, sqlite3_column_name(stmt, i), str_c(value));
  }
}

static int run_query(void *arg) {
  struct request *r = arg;
  sqlite3 *db = r->conn->db;
  sqlite3_busy_timeout(db, r->lock_ms);
  const char *p = r->text.p, *end = p + r->text.len;
  while (p < end) {
    sqlite3_stmt *stmt = NULL;
    const char *tail = end;
    r->code = sqlite3_prepare_v2(db, p, (int)(end - p), &stmt, &tail);
    if (r->code == SQLITE_OK && stmt) {
      r->modifies |= !sqlite3_stmt_readonly(stmt);
      while ((r->code = sqlite3_step(stmt)) == SQLITE_ROW && !r->result.overflow)
        add_row(r, stmt);
      if (r->code == SQLITE_DONE)
        r->code = SQLITE_OK;
      else if (r->code == SQLITE_ROW)
        r->code = SQLITE_TOOBIG;
    }
    if (r->code != SQLITE_OK)
      r->error = arena_strdup(r->arena, r->result.overflow ? "result too long" : sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    if (r->code != SQLITE_OK)
      break;
    p = tail;
  }
  return 0;
}

static bool is_temporary(int code) {
  switch (code & 0xff) {
  case SQLITE_BUSY: case SQLITE_LOCKED: case SQLITE_IOERR: case SQLITE_CANTOPEN: case SQLITE_FULL: case SQLITE_NOMEM:
  case SQLITE_CORRUPT: case SQLITE_NOTADB: case SQLITE_FORMAT: case SQLITE_READONLY: case SQLITE_PROTOCOL: case SQLITE_INTERRUPT: case SQLITE_TOOBIG:
    return true;
  default:
    return false;
  }
}

static int finish(struct ctx *c, const struct request *r, struct str *ret, int *ret_seconds) {
  if (r->modifies)
    *ret_seconds = 0;
  if (r->code != SQLITE_OK)
    return ctx_fail(c, is_temporary(r->code) ? OUTCOME_DEFER : OUTCOME_FAIL, "sqlite: %s", r->error);
  if (r->rows == 0)
    return OUTCOME_FAIL;
  *ret = str_dup(c->arena, (struct str){r->result.len ? r->result.p : "", (uint32_t)r->result.len, 0});
  return OUTCOME_OK;
}

static int sqlite_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct connection *conn = handle;
  int64_t seconds = c->config ? main_options(c->config)->sqlite_lock_timeout : DEFAULT_LOCK_SECONDS;
  struct request r = {.conn = conn, .arena = arena_new("sqlite"),
    .lock_ms = (int)(seconds > 0 && seconds < 3600 ? seconds * 1000 : 0)};
  r.text = str_dup(r.arena, key);
  buf_init(&r.result, r.arena, RESULT_MAX);
  if (fiber_sem_acquire(&conn->lock, DEADLINE_NEVER) != 0) {
    arena_free(r.arena);
    return ctx_fail(c, OUTCOME_DEFER, "sqlite: cancelled");
  }
  fiber_offload(run_query, &r);
  conn->broken |= r.code == SQLITE_CORRUPT || r.code == SQLITE_NOTADB;
  fiber_sem_release(&conn->lock);
  int outcome = finish(c, &r, ret, ret_seconds);
  arena_free(r.arena);
  return outcome;
}

static int sqlite_quote(struct ctx *c, struct str text, struct str option, struct buf *out) {
  if (str_is_set(option))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" unrecognized after \"${quote_sqlite\"", STRF(option));
  for (size_t i = 0; i < text.len; i++) {
    if (text.p[i] == '\'')
      buf_add_byte(out, '\'');
    buf_add_byte(out, text.p[i]);
  }
  return OUTCOME_OK;
}

static const char *runtime_version(void) { return sqlite3_libversion(); }

static const struct library_def library = {"SQLite", SQLITE_VERSION, runtime_version};

const struct lookup_def lookup_sqlite = {
  .name = "sqlite",
  .flags = LOOKUP_QUERY | LOOKUP_ABSFILE_QUERY,
  .open = connection_open,
  .close = connection_close,
  .stale = connection_stale,
  .find = sqlite_find,
  .quote = sqlite_quote, .library = &library};
