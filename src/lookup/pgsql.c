/* pgsql (manual, "More about MySQL, PostgreSQL, …", "Special PostgreSQL features"), through the library's asynchronous
calls. Rows are taken one by one, so that the answer's length is bounded here and not by the server. */
#include <errno.h>
#include <libpq-fe.h>
#include <pg_config.h>
#include "base/ascii.h"
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

/* The library's texts end with a newline. */
static int failed(struct ctx *c, const char *what, const char *why) {
  return ctx_fail(c, OUTCOME_DEFER, "PGSQL%s failed: %.*s", what, STRF(str_trim(str_c(why))));
}

static int lost(struct ctx *c, const char *what, int e) {
  return failed(c, what, e == -ETIMEDOUT ? "timeout" : strerror(-e));
}

static void say_nothing(void *arg, const char *text) {}

static int wait_connected(struct ctx *c, PGconn *conn) {
  usec_t deadline = deadline_in(CONNECT_SECONDS);
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (state != PGRES_POLLING_OK) {
    int e = fiber_wait_fd(PQsocket(conn), state == PGRES_POLLING_READING ? FIBER_READ : FIBER_WRITE, deadline);
    if (e < 0)
      return lost(c, " connection", e);
    if ((state = PQconnectPoll(conn)) == PGRES_POLLING_FAILED)
      return failed(c, " connection", PQerrorMessage(conn));
  }
  return OUTCOME_OK;
}

/* "(/dir/.s.PGSQL.port)": the library wants the directory and the port. */
static bool take_socket_apart(struct str host, struct str *ret_dir, struct str *ret_port) {
  struct str path = str_slice(host, 1, host.len - 1);
  ptrdiff_t at = str_find(path, STR("/.s.PGSQL."));
  if (host.p[host.len - 1] != ')' || at < 0 || path.p[0] != '/')
    return false;
  *ret_dir = str_slice(path, 0, at ? (size_t)at : 1);
  *ret_port = str_from(path, (size_t)at + 10);
  return true;
}

static int connect_to(struct ctx *c, const struct db_server *server, PGconn **ret) {
  struct str host, port = STR_UNSET, address = STR_UNSET;
  if (server->host.len > 0 && server->host.p[0] == '(') {
    if (!take_socket_apart(server->host, &host, &port))
      return ctx_fail(c, OUTCOME_DEFER, "PGSQL invalid filename for socket: %.*s",
        STRF(str_slice(server->host, 1, server->host.len - 1)));
  } else {
    db_host_port(server->host, &host, &port);
    int r = host.len ? sql_resolve(c, "PGSQL", host, &address) : OUTCOME_OK;
    if (r != OUTCOME_OK)
      return r;
    /* As many names as addresses. */
    struct buf b;
    buf_init(&b, c->arena, BUF_MAX_LINE);
    buf_add(&b, host);
    for (size_t i = 0; i < address.len; i++)
      if (address.p[i] == ',')
        buf_printf(&b, ",%.*s", STRF(host));
    host = buf_str(&b);
  }
  const char *names[] = {"host", "hostaddr", "port", "dbname", "user", "password", "client_encoding", NULL};
  const char *values[] = {str_dup_c(c->arena, host), str_is_set(address) ? str_dup_c(c->arena, address) : "",
    str_is_set(port) ? str_dup_c(c->arena, port) : "", str_dup_c(c->arena, server->fields[0]),
    str_dup_c(c->arena, server->fields[1]), str_dup_c(c->arena, server->fields[2]), NULL, NULL};
  PGconn *conn = PQconnectStartParams(names, values, 0);
  if (conn == NULL)
    return failed(c, " connection", "out of memory");
  PQsetNoticeProcessor(conn, say_nothing, NULL);
  int r = PQstatus(conn) == CONNECTION_BAD ? failed(c, " connection", PQerrorMessage(conn)) : wait_connected(c, conn);
  if (r != OUTCOME_OK)
    PQfinish(conn);
  else
    PQsetnonblocking(conn, 1);
  *ret = conn;
  return r;
}

static void close_connection(void *conn) { PQfinish(conn); }
static const struct kept_kind kept_kind = {"pgsql", 64, 64, 60, close_connection, NULL};

static int get_connection(struct ctx *c, const struct db_server *server, PGconn **ret) {
  if ((*ret = kept_take(&kept_kind, server->key)) != NULL) {
    DEBUG(lookup, "PGSQL using cached connection for %.*s\n", STRF(server->shown));
    return OUTCOME_OK;
  }
  DEBUG(lookup, "PGSQL new connection: %.*s\n", STRF(server->shown));
  return connect_to(c, server, ret);
}

static int send_query(struct ctx *c, PGconn *conn, const char *query, usec_t deadline) {
  int left;
  if (!PQsendQuery(conn, query) || !PQsetSingleRowMode(conn))
    return failed(c, ": query", PQerrorMessage(conn));
  while ((left = PQflush(conn)) > 0) {
    int e = fiber_wait_fd(PQsocket(conn), FIBER_READ | FIBER_WRITE, deadline);
    if (e < 0)
      return lost(c, ": query", e);
    if ((e & FIBER_READ) && !PQconsumeInput(conn))
      return failed(c, ": query", PQerrorMessage(conn));
  }
  return left < 0 ? failed(c, ": query", PQerrorMessage(conn)) : OUTCOME_OK;
}

/* *ret: the next result, NULL behind the last one. */
static int next_result(struct ctx *c, PGconn *conn, usec_t deadline, PGresult **ret) {
  while (PQisBusy(conn)) {
    int e = fiber_wait_fd(PQsocket(conn), FIBER_READ, deadline);
    if (e < 0)
      return lost(c, ": query", e);
    if (!PQconsumeInput(conn))
      return failed(c, ": query", PQerrorMessage(conn));
  }
  *ret = PQgetResult(conn);
  return OUTCOME_OK;
}

static void add_row(struct buf *b, const PGresult *row) {
  int n = PQnfields(row);
  for (int i = 0; i < n; i++) {
    struct str value = str_n(PQgetvalue(row, 0, i), (size_t)PQgetlength(row, 0, i));
    if (n == 1)
      buf_add(b, value);
    else
      sql_add_field(b, PQfname(row, i), value);
  }
}

struct answer {
  struct buf text;
  int rows;
  bool found, fresh; /* fresh: the next row is the first of a statement; only the last statement's answer counts */
};

static int take_result(struct ctx *c, struct request *q, const PGresult *r, struct answer *a) {
  switch (PQresultStatus(r)) {
  case PGRES_SINGLE_TUPLE:
    if (a->fresh) {
      buf_truncate(&a->text, 0);
      a->rows = 0;
    }
    a->fresh = false;
    if (a->rows++ > 0)
      buf_add_byte(&a->text, '\n');
    add_row(&a->text, r);
    a->found = true;
    return a->text.overflow ? ctx_fail(c, OUTCOME_DEFER, "PGSQL: result too long") : OUTCOME_OK;
  case PGRES_TUPLES_OK:
    if (a->fresh)
      a->found = false;
    a->fresh = true;
    return OUTCOME_OK;
  case PGRES_COMMAND_OK:
    buf_truncate(&a->text, 0);
    buf_add_c(&a->text, PQcmdTuples((PGresult *)r));
    a->found = a->fresh = q->modifies = true;
    return OUTCOME_OK;
  case PGRES_EMPTY_QUERY:
    return OUTCOME_OK;
  default:
    return ctx_fail(c, OUTCOME_DEFER, "PGSQL: query failed: %.*s (%s) (%.*s)", STRF(str_trim(str_c(PQresultErrorMessage(r)))),
      PQresStatus(PQresultStatus(r)), STRF(q->query));
  }
}

static int ask(struct ctx *c, const struct db_server *server, void *arg) {
  struct request *q = arg;
  PGconn *conn;
  int r = get_connection(c, server, &conn);
  if (r != OUTCOME_OK)
    return r;
  usec_t deadline = deadline_in(QUERY_SECONDS);
  struct answer a = {.fresh = true};
  bool ended = false;
  struct str error = STR_UNSET;
  buf_init(&a.text, c->arena, SQL_RESULT_MAX);
  r = send_query(c, conn, q->query.p, deadline);
  while (r == OUTCOME_OK && !ended) {
    PGresult *result = NULL;
    if ((r = next_result(c, conn, deadline, &result)) != OUTCOME_OK)
      break;
    ended = result == NULL;
    /* After an error of the server the connection is good once the rest has been read. */
    if (result && !str_is_set(error) && (r = take_result(c, q, result, &a)) != OUTCOME_OK && !a.text.overflow) {
      error = c->error;
      r = OUTCOME_OK;
    }
    PQclear(result);
  }
  if (r == OUTCOME_OK && PQstatus(conn) == CONNECTION_OK)
    kept_give(&kept_kind, server->key, conn, PQsocket(conn));
  else
    PQfinish(conn);
  if (str_is_set(error)) {
    c->error = error;
    return OUTCOME_DEFER;
  }
  if (r != OUTCOME_OK)
    return r;
  *q->ret = buf_str(&a.text);
  return a.found ? OUTCOME_OK : OUTCOME_FAIL;
}

static int pgsql_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct db_servers servers = {"PostgreSQL", "pgsql_servers", 3,
    c->config ? main_options(c->config)->pgsql_servers : STR_UNSET, ask};
  struct str only = db_servers_prefix(c, &key);
  if (!str_is_set(only))
    only = lookup_option(options, "servers");
  if (memchr(key.p, '\0', key.len))
    return ctx_fail(c, OUTCOME_DEFER, "PGSQL: NUL in the query");
  struct request q = {.query = str_untainted(str_dup(c->arena, key)), .ret = ret};
  int r = db_servers_ask(c, &servers, only, &q);
  if (q.modifies) {
    *ret_seconds = 0;
    memo_forget(c);
  }
  return r;
}

static int pgsql_quote(struct ctx *c, struct str text, struct str option, struct buf *out) {
  return sql_quote(c, "pgsql", true, text, option, out);
}

static void pgsql_tidy(void) { kept_close(&kept_kind); }

static const char *runtime_version(void) {
  static char text[24];
  int v = PQlibVersion();
  snprintf(text, sizeof text, "%d.%d", v / 10000, v % 10000);
  return text;
}

static const struct library_def library = {"PostgreSQL", PG_VERSION, runtime_version};

const struct lookup_def lookup_pgsql = {
  .name = "pgsql", .flags = LOOKUP_QUERY | LOOKUP_QUOTED, .find = pgsql_find, .quote = pgsql_quote, .tidy = pgsql_tidy, .library = &library};
