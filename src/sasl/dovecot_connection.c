#include "sasl/dovecot_connection.h"

#include <errno.h>
#include <sys/un.h>

#include "base/arena.h"
#include "base/ip.h"
#include "base/random.h"
#include "core/build.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/sql.h"
#include "loop/kept.h"
#include "loop/stream.h"
#include "sasl/drivers.h"
#include "tls/tls.h"

#define WAIT_SECONDS 60       /* for an answer of the service */
#define HELLO_LINES_MAX 1000
#define IDLE_MAX 16           /* of a worker */
#define IDLE_EACH 4           /* with one service */
#define IDLE_SECONDS 10
#define LIFE_SECONDS 60       /* an old process of the service, with what it was configured to, lives as long as its clients */

static void connection_free(struct dovecot_connection *k) {
  stream_free(k->stream);
  arena_free(k->arena);
}

static void close_idle(void *conn) { connection_free(conn); }
static bool spoke(void *conn) { return stream_input_pending(((struct dovecot_connection *)conn)->stream); }

static const struct kept_kind kind = {"dovecot", IDLE_MAX, IDLE_EACH, IDLE_SECONDS, close_idle, spoke};

static usec_t deadline(const struct dovecot_asker *t) {
  usec_t wait = deadline_in(WAIT_SECONDS);
  return wait < t->end ? wait : t->end;
}

static int trouble(struct dovecot_asker *t, const char *what, struct str shown, int error) {
  return ctx_fail(t->c, OUTCOME_DEFER, "%s %.*s: %s", what, STRF(shown), error == -ETIMEDOUT ? "timed out" : strerror(-error));
}

/* --- connecting --- */

static int connect_path(struct dovecot_asker *t, struct dovecot_connection *k, struct str path) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int rc = -ENAMETOOLONG;
  if (path.len < sizeof to.sun_path) {
    memcpy(to.sun_path, path.p, path.len);
    rc = stream_connect((struct sockaddr *)&to, sizeof to, NULL, 0, deadline(t), &k->stream);
  }
  return rc < 0 ? trouble(t, "failed to connect to socket", k->shown, rc) : 0;
}

static struct str certificates(struct ctx *c) {
  struct str s;
  return expand_option(c, &main_options(c->config)->tls_verify_certificates, &s) != 0 || str_is_empty(s) ? STR("system") : s;
}

static int start_tls(struct dovecot_asker *t, struct dovecot_connection *k, struct str host) {
  struct ctx *c = t->c;
  struct tls_info *info;
  struct str error;
  struct ip_addr ip;
  struct tls_params p = {.verify = TLS_VERIFY_REQUIRED, .verify_certificates = certificates(c), .verify_host = host,
      .sni = ip_parse(host, &ip) ? STR_EMPTY : host};
  if (tls_client_start(k->stream, &p, deadline(t), c->arena, &info, &error) < 0)
    return ctx_fail(c, OUTCOME_DEFER, "TLS with %.*s: %.*s", STRF(k->shown), STRF(error));
  return 0;
}

static int connect_host(struct dovecot_asker *t, struct dovecot_connection *k, const struct dovecot_place *p) {
  struct ctx *c = t->c;
  struct str list, one;
  struct ip_addr ip;
  int rc = sql_resolve(c, "dovecot", p->host, &list);
  if (rc != 0)
    return rc;
  rc = -ENETUNREACH;
  while (k->stream == NULL && str_is_set(list)) {
    struct sockaddr_storage to;
    one = str_trim(str_cut(&list, ','));
    socklen_t len = ip_parse(one, &ip) ? ip_to_sockaddr(&ip, p->port, &to) : 0;
    if (len > 0)
      rc = stream_connect((struct sockaddr *)&to, len, NULL, 0, deadline(t), &k->stream);
  }
  if (k->stream == NULL)
    return trouble(t, "failed to connect to", k->shown, rc);
  return t->tls ? start_tls(t, k, p->host) : 0;
}

/* --- lines --- */

int dovecot_read_line(struct dovecot_asker *t, struct dovecot_connection *k, struct str *ret) {
  int eol = 0, rc = stream_read_line(k->stream, DOVECOT_LINE_MAX, deadline(t), ret, &eol);
  k->gone |= rc == 0 || rc == -ECONNRESET || rc == -EPIPE;
  k->heard |= rc > 0 || rc == -EMSGSIZE;
  if (rc == -EMSGSIZE)
    return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket protocol error (line too long) from %.*s", STRF(k->shown));
  if (rc == 0 || (rc > 0 && eol == 0))
    return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket %.*s closed early", STRF(k->shown));
  return rc < 0 ? trouble(t, "authentication socket read error from", k->shown, rc) : 0;
}

int dovecot_send(struct dovecot_asker *t, struct dovecot_connection *k, struct str text) {
  int rc = stream_write(k->stream, text);
  if (rc == 0)
    rc = stream_flush(k->stream);
  k->gone |= rc == -ECONNRESET || rc == -EPIPE;
  return rc < 0 ? trouble(t, "authentication socket write error to", k->shown, rc) : 0;
}

static int greet(struct dovecot_asker *t, struct dovecot_connection *k) {
  struct str line, error;
  int rc;
  for (int n = 0; !k->hello.done; n++) {
    if (n == HELLO_LINES_MAX)
      return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket %.*s never ends its greeting", STRF(k->shown));
    if ((rc = dovecot_read_line(t, k, &line)) != 0)
      return rc;
    DEBUG(auth, "dovecot: %.*s\n", STRF(log_printable(t->c->arena, str_starts(line, STR("COOKIE")) ? STR("COOKIE") : line)));
    if (!dovecot_hello_line(&k->hello, line, &error))
      return ctx_fail(t->c, OUTCOME_DEFER, "%.*s: %.*s", STRF(k->shown), STRF(error));
  }
  return 0;
}

/* --- one for an attempt --- */

static struct str key_of(struct dovecot_asker *t, const struct dovecot_place *p) {
  struct arena *a = t->c->arena;
  if (str_is_set(p->path))
    return str_dup(a, p->path);
  return t->tls ? str_printf(a, "%.*s %d %.*s", STRF(p->host), p->port, STRF(certificates(t->c))) : str_printf(a, "%.*s %d", STRF(p->host), p->port);
}

static int connect_place(struct dovecot_asker *t, const struct dovecot_place *p, struct str key, struct dovecot_connection **ret) {
  struct arena *a = arena_new("dovecot");
  struct dovecot_connection *k = *ret = arena_new_of(a, struct dovecot_connection);
  k->arena = a;
  k->key = str_dup(a, key);
  k->shown = str_is_set(p->path) ? str_dup(a, p->path) : str_printf(a, "%.*s port %d", STRF(p->host), p->port);
  k->number = 1 + (uint32_t)random_below(0x7fffffff);
  k->born = loop_now_fresh();
  int rc = str_is_set(p->path) ? connect_path(t, k, p->path) : connect_host(t, k, p);
  if (rc == 0) {
    stream_set_write_timeout(k->stream, WAIT_SECONDS);
    rc = greet(t, k);
  }
  return rc;
}

int dovecot_reach(struct dovecot_asker *t, const struct dovecot_place *p, bool anew, struct dovecot_connection **ret) {
  int rc = OUTCOME_DEFER;
  for (; p != NULL; p = p->next) {
    struct str key = key_of(t, p);
    if (anew)
      kept_close_server(&kind, key);
    else if ((*ret = kept_take(&kind, key)) != NULL)
      return 0;
    if ((rc = connect_place(t, p, key, ret)) == 0)
      return 0;
    DEBUG(auth, "dovecot: %.*s\n", STRF(t->c->error));
    connection_free(*ret);
    *ret = NULL;
    if (loop_now_fresh() >= t->end || fiber_cancelled())
      break;
  }
  return rc;
}

void dovecot_release(struct dovecot_connection *k) {
  if (!k->answered || build.no_connection_pool || loop_now_fresh() - k->born > LIFE_SECONDS * USEC_PER_SEC || spoke(k) ||
      stream_output_pending(k->stream) > 0)
    connection_free(k);
  else
    kept_give(&kind, k->key, k, stream_fd(k->stream));
}
