/* mysql (manual, "More about MySQL, PostgreSQL, …", "Special MySQL features"), through MariaDB's connector. It connects in
an offload thread, as that resolves names and may speak TLS; queries run through its non-blocking calls. Rows are taken
one by one, so that the answer's length is bounded here and not by the server. */
#include <errno.h>
#include <mysql.h>
#include <poll.h>
#include <sys/socket.h>
#include "core/main_options.h"
#include "core/module.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "loop/kept.h"
#include "lookup/memo.h"
#include "lookup/servers.h"
#include "lookup/sql.h"
#include "lookup/types.h"

#define CONNECT_SECONDS 10
#define QUERY_SECONDS 60

struct request {
  struct str query;
  struct str *ret;
  bool modifies;
};

/* host::port(socket)[group]/database/user/password */
struct place {
  MYSQL *db;
  const char *host, *socket, *group, *database, *user, *password;
  unsigned port;
  bool connected;
};

/* What stands between the two brackets at the end of *s, which is left without it. */
static struct str take_bracketed(struct str *s, char open, char close) {
  ptrdiff_t at = str_rfind_byte(*s, open);
  if (at < 0 || s->p[s->len - 1] != close)
    return STR_UNSET;
  struct str inside = str_slice(*s, (size_t)at + 1, s->len - 1);
  *s = str_slice(*s, 0, (size_t)at);
  return inside;
}

static void take_place(struct ctx *c, const struct db_server *server, struct place *p) {
  struct str host = server->host, port = STR_UNSET;
  uint64_t number = 0;
  struct str group = host.len > 0 && host.p[host.len - 1] == ']' && host.p[0] != '[' ? take_bracketed(&host, '[', ']') : STR_UNSET;
  struct str socket = host.len > 0 ? take_bracketed(&host, '(', ')') : STR_UNSET;
  db_host_port(host, &host, &port);
  if (str_is_set(port))
    (void)!str_to_u64(port, &number);
  struct arena *a = c->arena;
  p->host = host.len ? str_dup_c(a, host) : "localhost";
  p->port = (unsigned)number;
  p->socket = str_is_set(socket) ? str_dup_c(a, socket) : NULL;
  p->group = str_is_set(group) ? str_dup_c(a, group) : "exim";
  p->database = server->fields[0].len ? str_dup_c(a, server->fields[0]) : NULL;
  p->user = str_dup_c(a, server->fields[1]);
  p->password = str_dup_c(a, server->fields[2]);
}

static int run_connect(void *arg) {
  struct place *p = arg;
  p->connected = mysql_real_connect(p->db, p->host, p->user, p->password, p->database, p->port, p->socket, 0) != NULL;
  return 0;
}

static int connect_to(struct ctx *c, const struct db_server *server, MYSQL **ret) {
  struct place p = {.db = mysql_init(NULL)};
  unsigned seconds = CONNECT_SECONDS;
  if (p.db == NULL)
    return ctx_fail(c, OUTCOME_DEFER, "MYSQL connection failed: out of memory");
  take_place(c, server, &p);
  mysql_options(p.db, MYSQL_READ_DEFAULT_GROUP, p.group);
  mysql_options(p.db, MYSQL_OPT_NONBLOCK, NULL);
  mysql_options(p.db, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
  mysql_options(p.db, MYSQL_OPT_READ_TIMEOUT, &seconds);
  mysql_options(p.db, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
  unsigned no_files = 0; /* a server must not ask for files of ours */
  mysql_options(p.db, MYSQL_OPT_LOCAL_INFILE, &no_files);
  fiber_offload(run_connect, &p);
  if (!p.connected) {
    ctx_fail(c, OUTCOME_DEFER, "MYSQL connection failed: %s", mysql_error(p.db));
    mysql_close(p.db);
    return OUTCOME_DEFER;
  }
  *ret = p.db;
  return OUTCOME_OK;
}

static void close_connection(void *conn) { mysql_close(conn); }
static const struct kept_kind kept_kind = {"mysql", 64, 64, 60, close_connection, NULL};

static int get_connection(struct ctx *c, const struct db_server *server, MYSQL **ret) {
  if ((*ret = kept_take(&kept_kind, server->key)) != NULL) {
    DEBUG(lookup, "MYSQL using cached connection for %.*s\n", STRF(server->shown));
    return OUTCOME_OK;
  }
  DEBUG(lookup, "MYSQL new connection: %.*s\n", STRF(server->shown));
  return connect_to(c, server, ret);
}

/* Waits for what the library's call waits for; the bits that are there now. A call that was begun must come to its end: when
time is up the socket is shut down, so that it does at once. */
static int wait_for(MYSQL *db, int status, usec_t deadline) {
  int events = (status & MYSQL_WAIT_READ ? FIBER_READ : 0) | (status & MYSQL_WAIT_WRITE ? FIBER_WRITE : 0);
  int fd = (int)mysql_get_socket(db);
  int e = events ? fiber_wait_fd(fd, events, deadline) : -ETIMEDOUT;
  if (e < 0) {
    shutdown(fd, SHUT_RDWR);
    return status & ~MYSQL_WAIT_TIMEOUT;
  }
  return (e & FIBER_READ ? MYSQL_WAIT_READ : 0) | (e & FIBER_WRITE ? MYSQL_WAIT_WRITE : 0);
}

static int run_query(MYSQL *db, struct str query, usec_t deadline) {
  int error = 0;
  int status = mysql_real_query_start(&error, db, query.p, query.len);
  while (status)
    status = mysql_real_query_cont(&error, db, wait_for(db, status, deadline));
  return error;
}

static MYSQL_ROW next_row(MYSQL *db, MYSQL_RES *result, usec_t deadline) {
  MYSQL_ROW row = NULL;
  int status = mysql_fetch_row_start(&row, result);
  while (status)
    status = mysql_fetch_row_cont(&row, result, wait_for(db, status, deadline));
  return row;
}

static void add_row(struct buf *b, MYSQL_RES *result, MYSQL_ROW row) {
  unsigned n = mysql_num_fields(result);
  const unsigned long *lengths = mysql_fetch_lengths(result);
  const MYSQL_FIELD *fields = mysql_fetch_fields(result);
  for (unsigned i = 0; i < n; i++) {
    struct str value = row[i] ? str_n(row[i], lengths[i]) : STR_EMPTY;
    if (n == 1)
      buf_add(b, value);
    else
      sql_add_field(b, fields[i].name, value);
  }
}

/* OUTCOME_OK, FAIL (no row), DEFER. *ret_broken: the connection cannot be used again. */
static int take_rows(struct ctx *c, MYSQL *db, MYSQL_RES *result, usec_t deadline, struct buf *b, bool *ret_broken) {
  MYSQL_ROW row;
  int rows = 0;
  while (!b->overflow && (row = next_row(db, result, deadline)) != NULL) {
    if (rows++ > 0)
      buf_add_byte(b, '\n');
    add_row(b, result, row);
  }
  if (b->overflow) {
    *ret_broken = true;
    /* Else the library would read the rest. */
    shutdown((int)mysql_get_socket(db), SHUT_RDWR);
    return ctx_fail(c, OUTCOME_DEFER, "MYSQL: result too long");
  }
  if (mysql_errno(db) != 0) {
    *ret_broken = true;
    return ctx_fail(c, OUTCOME_DEFER, "MYSQL: lookup result failed: %s", mysql_error(db));
  }
  return rows > 0 ? OUTCOME_OK : OUTCOME_FAIL;
}

static int converse(struct ctx *c, MYSQL *db, struct request *q, bool *ret_broken) {
  usec_t deadline = deadline_in(QUERY_SECONDS);
  struct buf b;
  buf_init(&b, c->arena, SQL_RESULT_MAX);
  if (run_query(db, q->query, deadline) != 0) {
    unsigned code = mysql_errno(db);
    *ret_broken = code >= 2000 && code < 3000; /* the client's side: the connection is lost */
    return ctx_fail(c, OUTCOME_DEFER, "MYSQL: query failed: %s", mysql_error(db));
  }
  MYSQL_RES *result = mysql_use_result(db);
  int r;
  if (result != NULL) {
    r = take_rows(c, db, result, deadline, &b, ret_broken);
    mysql_free_result(result);
  } else if (mysql_field_count(db) == 0) {
    q->modifies = true;
    buf_printf(&b, "%llu", (unsigned long long)mysql_affected_rows(db));
    r = OUTCOME_OK;
  } else {
    *ret_broken = true;
    r = ctx_fail(c, OUTCOME_DEFER, "MYSQL: lookup result failed: %s", mysql_error(db));
  }
  if (r == OUTCOME_OK)
    *q->ret = buf_str(&b);
  *ret_broken |= mysql_more_results(db);
  return r;
}

static int ask(struct ctx *c, const struct db_server *server, void *arg) {
  struct request *q = arg;
  MYSQL *db;
  bool broken = false;
  int r = get_connection(c, server, &db);
  if (r != OUTCOME_OK)
    return r;
  r = converse(c, db, q, &broken);
  if (broken)
    mysql_close(db);
  else
    kept_give(&kept_kind, server->key, db, (int)mysql_get_socket(db));
  return r;
}

static int mysql_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct db_servers servers = {"MySQL", "mysql_servers", 3, c->config ? main_options(c->config)->mysql_servers : STR_UNSET,
    ask};
  struct str only = db_servers_prefix(c, &key);
  if (!str_is_set(only))
    only = lookup_option(options, "servers");
  if (str_trim(key).len == 0)
    return OUTCOME_FAIL;
  struct request q = {.query = str_untainted(str_dup(c->arena, key)), .ret = ret};
  int r = db_servers_ask(c, &servers, only, &q);
  if (q.modifies) {
    *ret_seconds = 0;
    memo_forget(c);
  }
  return r;
}

static int mysql_quote(struct ctx *c, struct str text, struct str option, struct buf *out) {
  return sql_quote(c, "mysql", false, text, option, out);
}

static void mysql_tidy(void) { kept_close(&kept_kind); }

static const char *runtime_version(void) { return mysql_get_client_info(); }

static const struct library_def library = {"MariaDB", MARIADB_PACKAGE_VERSION, runtime_version};

const struct lookup_def lookup_mysql = {
  .name = "mysql", .flags = LOOKUP_QUERY | LOOKUP_QUOTED, .find = mysql_find, .quote = mysql_quote, .tidy = mysql_tidy, .library = &library};
