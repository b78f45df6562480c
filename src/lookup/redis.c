/* redis (manual, "More about Redis"). Servers of a cluster are all in the list: one that says
which other one has the key (MOVED, ASK) is believed if that one is there, too, else it is passed over. */
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/un.h>
#include "base/ascii.h"
#include "base/ip.h"
#include "core/main_options.h"
#include "log/log.h"
#include "loop/kept.h"
#include "lookup/memo.h"
#include "lookup/redis_wire.h"
#include "lookup/servers.h"
#include "lookup/types.h"
#include "tls/tls.h"

#define CONNECT_SECONDS 5
#define COMMAND_SECONDS 5
#define DEFAULT_PORT 6379
#define TLS_PREFIX "rediss:"
#define REDIRECTIONS_MAX 5

struct request {
  struct buf command;
  const struct db_servers *servers;
  struct str only;
  struct str *ret;
};

struct resolution {
  const char *name, *port;
  struct addrinfo *found;
};

static int run_resolve(void *arg) {
  struct resolution *r = arg;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
  return getaddrinfo(r->name, r->port, &hints, &r->found);
}

static int failed(struct ctx *c, const struct db_server *server, const char *what, int error) {
  return ctx_fail(c, OUTCOME_DEFER, "REDIS %s: %.*s: %s", what, STRF(server->shown),
    error == EPROTO ? "malformed reply" : error == EMSGSIZE ? "reply too long" : strerror(error));
}

static int connect_unix(struct ctx *c, const struct db_server *server, struct stream **ret) {
  struct str path = str_slice(server->host, 1, server->host.len - 1);
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  if (path.len == 0 || path.len >= sizeof sa.sun_path || server->host.p[server->host.len - 1] != ')')
    return ctx_fail(c, OUTCOME_ERROR, "incomplete Redis server data: %.*s", STRF(server->host));
  memcpy(sa.sun_path, path.p, path.len);
  int e = stream_connect((struct sockaddr *)&sa, sizeof sa, NULL, 0, deadline_in(CONNECT_SECONDS), ret);
  return e < 0 ? failed(c, server, "connection failed", -e) : OUTCOME_OK;
}

/* The certificate must be good for the host as it is named. */
static int start_tls(struct ctx *c, const struct db_server *server, struct str host, usec_t deadline, struct stream *s) {
  struct tls_params p = {.verify = TLS_VERIFY_REQUIRED, .verify_host = host, .verify_certificates = STR("system")};
  struct tls_info *info;
  struct str error;
  struct ip_addr ip;
  if (c->config)
    p.verify_certificates = lookup_options(c->config)->redis_tls_verify_certificates;
  if (!ip_parse(host, &ip))
    p.sni = host;
  if (tls_client_start(s, &p, deadline, c->arena, &info, &error) < 0)
    return ctx_fail(c, OUTCOME_DEFER, "REDIS connection failed: %.*s: TLS session: %.*s", STRF(server->shown), STRF(error));
  return OUTCOME_OK;
}

static int connect_tcp(struct ctx *c, const struct db_server *server, struct stream **ret) {
  struct str text = server->host, host, port;
  bool tls = str_istarts(text, STR(TLS_PREFIX));
  if (tls)
    text = str_from(text, sizeof TLS_PREFIX - 1);
  db_host_port(text, &host, &port);
  if (host.len == 0)
    host = STR("127.0.0.1");
  struct resolution r = {.name = str_dup_c(c->arena, host),
    .port = str_is_set(port) ? str_dup_c(c->arena, port) : str_printf(c->arena, "%d", DEFAULT_PORT).p};
  struct ip_addr ip;
  int e = ip_parse(host, &ip) ? run_resolve(&r) : fiber_offload(run_resolve, &r);
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "REDIS connection failed: %.*s: %s", STRF(server->shown), gai_strerror(e));
  e = -EHOSTUNREACH;
  usec_t deadline = deadline_in(CONNECT_SECONDS);
  for (const struct addrinfo *i = r.found; i && e < 0 && e != -ETIMEDOUT && e != -ECANCELED; i = i->ai_next)
    e = stream_connect(i->ai_addr, i->ai_addrlen, NULL, 0, deadline, ret);
  freeaddrinfo(r.found);
  if (e < 0)
    return failed(c, server, "connection failed", -e);
  if (!tls || start_tls(c, server, host, deadline, *ret) == OUTCOME_OK)
    return OUTCOME_OK;
  stream_free(*ret);
  return OUTCOME_DEFER;
}

/* Sends what is in `command`, reads one reply: enum redis_reply, or -errno. */
static int converse(struct ctx *c, struct stream *s, struct buf *command, struct str *ret) {
  usec_t deadline = deadline_in(COMMAND_SECONDS);
  stream_set_write_timeout(s, COMMAND_SECONDS);
  int e = stream_write(s, buf_str(command));
  if (e >= 0)
    e = stream_flush(s);
  return e < 0 ? e : redis_read_reply(c->arena, s, deadline, ret);
}

/* AUTH or SELECT; what they are told is secret. */
static int introduce(struct ctx *c, const struct db_server *server, struct stream *s, const struct str *args, int n) {
  struct buf command;
  struct str reply;
  buf_init(&command, c->arena, 1u << 16);
  redis_command(&command, args, n);
  int kind = converse(c, s, &command, &reply);
  if (kind < 0)
    return failed(c, server, "query failed", -kind);
  if (kind == REDIS_REFUSED)
    return ctx_fail(c, OUTCOME_DEFER, "REDIS %.*s: %.*s: %.*s", STRF(args[0]), STRF(server->shown), STRF(reply));
  return OUTCOME_OK;
}

static int log_in(struct ctx *c, const struct db_server *server, struct stream *s) {
  struct str db = server->fields[0], password = server->fields[1];
  int r = OUTCOME_OK;
  if (password.len > 0) {
    struct str user = password, args[3] = {STR("AUTH")};
    int n = 1;
    ptrdiff_t comma = str_find_byte(password, ',');
    if (comma >= 0) {
      args[n++] = str_slice(user, 0, (size_t)comma);
      password = str_from(password, (size_t)comma + 1);
    }
    args[n++] = password;
    r = introduce(c, server, s, args, n);
  }
  if (r == OUTCOME_OK && db.len > 0) {
    struct str args[2] = {STR("SELECT"), db};
    r = introduce(c, server, s, args, 2);
  }
  return r;
}

static void close_connection(void *conn) { stream_free(conn); }
static const struct kept_kind kept_kind = {"redis", 64, 64, 60, close_connection, NULL};

static int get_connection(struct ctx *c, const struct db_server *server, struct stream **ret, bool *ret_kept) {
  *ret = kept_take(&kept_kind, server->key);
  *ret_kept = *ret != NULL;
  if (*ret_kept) {
    DEBUG(lookup, "REDIS using cached connection for %.*s\n", STRF(server->shown));
    return OUTCOME_OK;
  }
  DEBUG(lookup, "REDIS new connection: %.*s\n", STRF(server->shown));
  bool local = server->host.len > 0 && server->host.p[0] == '(';
  int r = local ? connect_unix(c, server, ret) : connect_tcp(c, server, ret);
  if (r != OUTCOME_OK)
    return r;
  if ((r = log_in(c, server, *ret)) != OUTCOME_OK)
    stream_free(*ret);
  return r;
}

/* Errors that another server of the list may not have. */
static bool is_elsewhere(struct str error) {
  static const char *const words[] = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "NOAUTH",
    "WRONGPASS", "NOPERM", "BUSY", "OOM"};
  struct str word = str_cut(&error, ' ');
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (str_eq_c(word, words[i]))
      return true;
  return false;
}

/* Is the server of the list at this address, as another one writes it? */
static bool is_at(struct str host, struct str wanted) {
  struct str name[2] = {host, wanted}, port[2];
  struct ip_addr ip[2];
  uint64_t number[2];
  if (str_istarts(host, STR(TLS_PREFIX)))
    name[0] = str_from(host, strlen(TLS_PREFIX));
  /* IPv6 addresses come with a port behind a colon and without brackets. */
  ptrdiff_t colon = str_rfind_byte(wanted, ':');
  if (colon <= 0)
    return false;
  name[1] = str_slice(wanted, 0, (size_t)colon);
  port[1] = str_from(wanted, (size_t)colon + 1);
  db_host_port(name[0], &name[0], &port[0]);
  for (int i = 0; i < 2; i++)
    if (!str_is_set(port[i]))
      number[i] = DEFAULT_PORT;
    else if (!str_to_u64(port[i], &number[i]))
      return false;
  if (ip_parse(name[0], &ip[0]) && ip_parse(name[1], &ip[1]))
    return number[0] == number[1] && ip_eq(&ip[0], &ip[1]);
  return number[0] == number[1] && str_ieq(name[0], name[1]);
}

/* "MOVED slot address" or "ASK slot address", of a server in the list. */
static bool is_redirection(struct ctx *c, const struct request *q, struct str error, struct db_server *ret, bool *ret_asking) {
  struct str word = str_cut(&error, ' ');
  *ret_asking = str_eq_c(word, "ASK");
  if (!*ret_asking && !str_eq_c(word, "MOVED"))
    return false;
  str_cut(&error, ' ');
  if (!db_servers_find(c, q->servers, q->only, is_at, error, ret))
    return false;
  DEBUG(lookup, "REDIS: %.*s: the key is at %.*s\n", STRF(word), STRF(ret->shown));
  return true;
}

static int ask_over(struct ctx *c, struct stream *s, bool asking, struct request *q, struct str *ret) {
  struct str word = STR("ASKING");
  struct buf command;
  int e = REDIS_NIL;
  if (asking) {
    buf_init(&command, c->arena, 64);
    redis_command(&command, &word, 1);
    e = converse(c, s, &command, ret);
  }
  return e < 0 ? e : converse(c, s, &q->command, ret);
}

static int ask_server(struct ctx *c, const struct db_server *server, bool asking, struct request *q, int *ret_kind, struct str *ret) {
  struct stream *s;
  bool kept;
  int r = get_connection(c, server, &s, &kept);
  if (r != OUTCOME_OK)
    return r;
  uint64_t before = stream_bytes_in(s);
  int e = ask_over(c, s, asking, q, ret);
  bool closed = (e == -ECONNRESET || e == -EPIPE || e == -EPROTO) && stream_bytes_in(s) == before;
  if (kept && closed) { /* while nobody used it */
    stream_free(s);
    kept_close_server(&kept_kind, server->key);
    if ((r = get_connection(c, server, &s, &kept)) != OUTCOME_OK)
      return r;
    e = ask_over(c, s, asking, q, ret);
  }
  if (e < 0) {
    stream_free(s);
    return failed(c, server, "query failed", -e);
  }
  *ret_kind = e;
  kept_give(&kept_kind, server->key, s, stream_fd(s));
  return OUTCOME_OK;
}

static int ask(struct ctx *c, const struct db_server *first, void *arg) {
  struct request *q = arg;
  struct db_server server = *first;
  struct str reply = STR_EMPTY;
  bool asking = false;
  int kind = REDIS_NIL;
  for (int i = 0; i <= REDIRECTIONS_MAX; i++) {
    uint64_t number;
    if (server.host.len == 0 || (server.fields[0].len > 0 && !str_to_u64(server.fields[0], &number)))
      return ctx_fail(c, OUTCOME_ERROR, "incomplete Redis server data: %.*s", STRF(server.host));
    int r = ask_server(c, &server, asking, q, &kind, &reply);
    if (r != OUTCOME_OK)
      return r;
    if (kind != REDIS_REFUSED || !is_redirection(c, q, reply, &server, &asking))
      break;
  }
  if (kind == REDIS_REFUSED)
    return ctx_fail(c, is_elsewhere(reply) ? OUTCOME_DEFER : OUTCOME_ERROR, "REDIS: query failed: %.*s", STRF(reply));
  *q->ret = reply;
  return kind == REDIS_NIL ? OUTCOME_FAIL : OUTCOME_OK;
}

/* Any other command may change what was looked up before. */
static bool only_reads(struct str command) {
  static const char *const words[] = {"get", "mget", "hget", "hmget", "hgetall", "hkeys", "hvals", "hlen", "hexists", "hstrlen",
    "exists", "strlen", "getrange", "substr", "getbit", "bitcount", "bitpos", "type", "ttl", "pttl", "keys", "lrange",
    "lindex", "llen", "lpos", "smembers", "sismember", "smismember", "scard", "srandmember", "sinter", "sunion", "sdiff",
    "zrange", "zrangebyscore", "zrevrange", "zscore", "zmscore", "zrank", "zrevrank", "zcard", "zcount", "dbsize", "echo",
    "ping", "time", "pfcount"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (str_ieq_c(command, words[i]))
      return true;
  return false;
}

static int redis_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct db_servers servers = {"Redis", "redis_servers", 2, c->config ? main_options(c->config)->redis_servers : STR_UNSET,
    ask};
  struct str only = db_servers_prefix(c, &key);
  if (!str_is_set(only))
    only = lookup_option(options, "servers");
  struct request q = {.ret = ret, .servers = &servers, .only = only};
  struct str *args = arena_array(c->arena, struct str, REDIS_ARGS_MAX);
  int n = redis_split(c->arena, key, args);
  if (n <= 0)
    return ctx_fail(c, OUTCOME_DEFER, n == 0 ? "REDIS: the query is empty" : "REDIS: malformed query");
  buf_init(&q.command, c->arena, BUF_MAX_EXPANSION);
  redis_command(&q.command, args, n);
  bool reads = only_reads(args[0]);
  if (!reads) {
    *ret_seconds = 0;
    memo_forget(c);
  }
  return db_servers_ask(c, &servers, only, &q);
}

int redis_call(struct ctx *c, struct str list, const struct str *args, int n, struct str *ret) {
  struct db_servers servers = {"Redis", "redis_servers", 2, list, ask};
  struct request q = {.ret = ret, .servers = &servers, .only = STR_UNSET};
  buf_init(&q.command, c->arena, BUF_MAX_EXPANSION);
  redis_command(&q.command, args, n);
  return db_servers_ask(c, &servers, STR_UNSET, &q);
}

/* White space and backslashes; the double quote, too, which would otherwise begin an argument. */
static int redis_quote(struct ctx *c, struct str text, struct str option, struct buf *out) {
  if (str_is_set(option))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" unrecognized after \"${quote_redis\"", STRF(option));
  for (size_t i = 0; i < text.len; i++) {
    if (ascii_is_space(text.p[i]) || text.p[i] == '\\' || text.p[i] == '"')
      buf_add_byte(out, '\\');
    buf_add_byte(out, text.p[i]);
  }
  return OUTCOME_OK;
}

static void redis_tidy(void) { kept_close(&kept_kind); }

const struct lookup_def lookup_redis = {
  .name = "redis", .flags = LOOKUP_QUERY | LOOKUP_QUOTED, .find = redis_find, .quote = redis_quote, .tidy = redis_tidy};
