/* Authentication by Dovecot's service (its protocol 1.x; Exim manual, chapter "The dovecot authenticator"), over a UNIX or an
inet socket. Each attempt has a connection of its own, which is closed at its end. */
#include <errno.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/encode.h"
#include "base/ip.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/sql.h"
#include "loop/stream.h"
#include "sasl/dovecot_wire.h"
#include "sasl/drivers.h"
#include "tls/tls.h"

#define WAIT_SECONDS 60       /* for an answer of the service */
#define ATTEMPT_SECONDS 300   /* all together */
#define HELLO_LINES_MAX 1000
#define IGNORED_LINES_MAX 1000

struct dovecot_options {
  struct option_expr server_socket;
  bool server_tls;
};

#define AT(field) offsetof(struct dovecot_options, field)
static const struct option_def options[] = {
  {"server_socket", OPTION_EXPR, AT(server_socket)},
  {"server_tls", OPTION_BOOL, AT(server_tls)},
  OPTIONS_END,
};

static bool is_server(const struct instance *i) {
  return str_is_set(((const struct dovecot_options *)i->options)->server_socket.text);
}
static bool is_client(const struct instance *i) { return false; }

/* One attempt. */
struct attempt {
  struct ctx *c;
  const struct dovecot_options *o;
  struct stream *stream;
  struct str mechanism;
  struct str shown;        /* where we are connected, for texts */
  usec_t end;
  struct dovecot_hello hello;
};

static usec_t deadline(const struct attempt *t) {
  usec_t wait = deadline_in(WAIT_SECONDS);
  return wait < t->end ? wait : t->end;
}

static int trouble(struct attempt *t, const char *what, int error) {
  return ctx_fail(t->c, OUTCOME_DEFER, "%s %.*s: %s", what, STRF(t->shown), error == -ETIMEDOUT ? "timed out" : strerror(-error));
}

/* --- connecting --- */

static int connect_path(struct attempt *t, struct str path) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int rc = -ENAMETOOLONG;
  if (path.len < sizeof to.sun_path) {
    memcpy(to.sun_path, path.p, path.len);
    rc = stream_connect((struct sockaddr *)&to, sizeof to, NULL, 0, deadline(t), &t->stream);
  }
  return rc < 0 ? trouble(t, "failed to connect to socket", rc) : 0;
}

static int start_tls(struct attempt *t, struct str host) {
  struct ctx *c = t->c;
  struct tls_info *info;
  struct str error, certificates;
  struct ip_addr ip;
  if (expand_option(c, &main_options(c->config)->tls_verify_certificates, &certificates) != 0 || str_is_empty(certificates))
    certificates = STR("system");
  struct tls_params p = {.verify = TLS_VERIFY_REQUIRED, .verify_certificates = certificates, .verify_host = host,
      .sni = ip_parse(host, &ip) ? STR_EMPTY : host};
  if (tls_client_start(t->stream, &p, deadline(t), c->arena, &info, &error) < 0)
    return ctx_fail(c, OUTCOME_DEFER, "TLS with %.*s: %.*s", STRF(t->shown), STRF(error));
  return 0;
}

static int connect_host(struct attempt *t, const struct dovecot_place *p) {
  struct ctx *c = t->c;
  struct str list, one;
  struct ip_addr ip;
  int rc = sql_resolve(c, "dovecot", p->host, &list);
  if (rc != 0)
    return rc;
  rc = -ENETUNREACH;
  while (t->stream == NULL && str_is_set(list)) {
    struct sockaddr_storage to;
    one = str_trim(str_cut(&list, ','));
    socklen_t len = ip_parse(one, &ip) ? ip_to_sockaddr(&ip, p->port, &to) : 0;
    if (len > 0)
      rc = stream_connect((struct sockaddr *)&to, len, NULL, 0, deadline(t), &t->stream);
  }
  if (t->stream == NULL)
    return trouble(t, "failed to connect to", rc);
  return t->o->server_tls ? start_tls(t, p->host) : 0;
}

static int connect_place(struct attempt *t, const struct dovecot_place *p) {
  bool unix_socket = str_is_set(p->path);
  t->shown = unix_socket ? p->path : str_printf(t->c->arena, "%.*s port %d", STRF(p->host), p->port);
  int rc = unix_socket ? connect_path(t, p->path) : connect_host(t, p);
  if (rc == 0)
    stream_set_write_timeout(t->stream, WAIT_SECONDS);
  return rc;
}

/* --- talking --- */

static int read_line(struct attempt *t, struct str *ret) {
  int eol, rc = stream_read_line(t->stream, DOVECOT_LINE_MAX, deadline(t), ret, &eol);
  if (rc == -EMSGSIZE)
    return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket protocol error (line too long) from %.*s", STRF(t->shown));
  if (rc == 0 || (rc > 0 && eol == 0))
    return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket %.*s closed early", STRF(t->shown));
  return rc < 0 ? trouble(t, "authentication socket read error from", rc) : 0;
}

static int send_text(struct attempt *t, struct str text) {
  int rc = stream_write(t->stream, text);
  if (rc == 0)
    rc = stream_flush(t->stream);
  return rc < 0 ? trouble(t, "authentication socket write error to", rc) : 0;
}

static int greet(struct attempt *t) {
  struct str line, error;
  int rc;
  for (int n = 0; !t->hello.done; n++) {
    if (n == HELLO_LINES_MAX)
      return ctx_fail(t->c, OUTCOME_DEFER, "authentication socket %.*s never ends its greeting", STRF(t->shown));
    if ((rc = read_line(t, &line)) != 0)
      return rc;
    DEBUG(auth, "dovecot: %.*s\n", STRF(log_printable(t->c->arena, str_starts(line, STR("COOKIE")) ? STR("COOKIE") : line)));
    if (!dovecot_hello_line(&t->hello, line, &error))
      return ctx_fail(t->c, OUTCOME_DEFER, "%.*s: %.*s", STRF(t->shown), STRF(error));
  }
  return 0;
}

/* The first place that answers. */
static int reach(struct attempt *t, const struct dovecot_place *p) {
  int rc = OUTCOME_DEFER;
  for (; p != NULL; p = p->next) {
    t->hello = (struct dovecot_hello){.mechanism = t->mechanism};
    rc = connect_place(t, p);
    if (rc == 0)
      rc = greet(t);
    if (rc == 0)
      return 0;
    DEBUG(auth, "dovecot: %.*s\n", STRF(t->c->error));
    stream_free(t->stream);
    t->stream = NULL;
    if (loop_now_fresh() >= t->end || fiber_cancelled())
      break;
  }
  return rc;
}

static void add_word(struct attempt *t, struct buf *b, const char *name, struct str value) {
  if (str_is_set(value) && value.len > 0) {
    buf_printf(b, "\t%s=", name);
    buf_add(b, dovecot_escape(t->c->arena, value));
  }
}

/* AUTH, with what the service may want to know of the client. */
static int request(struct attempt *t, struct str initial) {
  struct ctx *c = t->c;
  const struct client *cl = c->client;
  struct buf b;
  buf_init(&b, c->arena, 4 * DOVECOT_LINE_MAX);
  buf_printf(&b, "VERSION\t1\t%d\nCPID\t%d\nAUTH\t1\t%.*s\tservice=smtp", t->hello.minor >= 2 ? 2 : 0, (int)getpid(),
      STRF(t->mechanism));
  if (sasl_client_secured(c))
    buf_add_c(&b, "\tsecured");
  if (cl->tls != NULL && cl->tls->peer_cert != NULL && cl->tls->peer_verified)
    buf_add_c(&b, "\tvalid-client-cert");
  add_word(t, &b, "rip", cl->host_address);
  add_word(t, &b, "lip", cl->interface_address);
  buf_add_c(&b, "\tnologin");
  if (t->hello.minor >= 2) {
    /* Delays after failures go by the client's address, which all local clients share. */
    if (cl->ip.family == 0 || ip_is_loopback(&cl->ip))
      buf_add_c(&b, "\tno-penalty");
    if (cl->tls != NULL)
      add_word(t, &b, "local_name", cl->tls->sni);
    add_word(t, &b, "client_id", str_slice(cl->helo_name, 0, 255));
  }
  if (str_is_set(initial)) {
    buf_add_c(&b, "\tresp=");
    buf_add(&b, initial.len == 0 ? STR("=") : base64_encode(c->arena, initial));
  }
  buf_add_byte(&b, '\n');
  return b.overflow ? ctx_fail(c, OUTCOME_DEFER, "request to %.*s is too long", STRF(t->shown)) : send_text(t, buf_str(&b));
}

static enum sasl_result unavailable(struct attempt *t, struct str *ret_text) {
  *ret_text = t->c->error;
  return SASL_UNAVAILABLE;
}

static enum sasl_result converse(struct attempt *t, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  struct ctx *c = t->c;
  for (int ignored = 0; ignored < IGNORED_LINES_MAX;) {
    struct str line, response;
    if (read_line(t, &line) != 0)
      return unavailable(t, ret_text);
    struct dovecot_answer r = dovecot_answer_line(c->arena, line);
    if ((r.kind == DOVECOT_OK || r.kind == DOVECOT_FAIL) && str_is_set(r.user))
      sasl_set_auth(c, 1, r.user); /* server_set_id tells it, after a failure, too */
    switch (r.kind) {
    case DOVECOT_IGNORED:
      ignored++;
      continue;
    case DOVECOT_OK:
      if (str_is_set(r.user))
        return sasl_server_accept(c, i, ret_text);
      *ret_text = STR("authentication socket protocol error (OK without a user)");
      return SASL_UNAVAILABLE;
    case DOVECOT_FAIL:
      return SASL_FAIL;
    case DOVECOT_FAIL_TEMPORARY:
      *ret_text = STR("the authentication service has trouble of its own");
      return SASL_UNAVAILABLE;
    case DOVECOT_BROKEN:
      *ret_text = r.error;
      return SASL_UNAVAILABLE;
    case DOVECOT_CONTINUE:
      break;
    }
    int rc = io->challenge(io->arg, r.data, &response, ret_text);
    if (rc != 0)
      return rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
    if (send_text(t, str_printf(c->arena, "CONT\t1\t%.*s\n", STRF(base64_encode(c->arena, response)))) != 0)
      return unavailable(t, ret_text);
  }
  *ret_text = STR("authentication socket protocol error (nothing but unknown lines)");
  return SASL_UNAVAILABLE;
}

static enum sasl_result run(struct attempt *t, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  struct ctx *c = t->c;
  struct str text, error;
  struct dovecot_place *places;
  enum sasl_result r = sasl_server_value(c, &t->o->server_socket, &text, ret_text);
  if (r != SASL_OK)
    return r == SASL_FAIL ? r : SASL_UNAVAILABLE;
  if (str_is_tainted(text) || !dovecot_places(c->arena, text, &places, &error)) {
    *ret_text = str_is_tainted(text) ? STR("server_socket is tainted") : error;
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s authenticator: %.*s", STRF(i->name), STRF(log_printable(c->arena, *ret_text)));
    return SASL_UNAVAILABLE;
  }
  if (reach(t, places) != 0)
    return unavailable(t, ret_text);
  if (!t->hello.found) {
    *ret_text = str_printf(c->arena, "Dovecot did not advertise mechanism \"%.*s\"", STRF(t->mechanism));
    return SASL_UNAVAILABLE;
  }
  if (t->hello.plaintext && !sasl_client_secured(c)) {
    *ret_text = STR("538 5.7.11 Encryption required for requested authentication mechanism");
    return SASL_CANCELLED;
  }
  if (request(t, initial) != 0)
    return unavailable(t, ret_text);
  return converse(t, i, io, ret_text);
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  struct attempt t = {.c = c, .o = i->options, .mechanism = sasl_public_name(i), .end = deadline_in(ATTEMPT_SECONDS)};
  enum sasl_result r = run(&t, i, initial, io, ret_text);
  stream_free(t.stream);
  return r;
}

static int init(struct config_reader *r, struct instance *i) {
  const struct dovecot_options *o = i->options;
  struct dovecot_place *p;
  struct str text = o->server_socket.text, error;
  if (str_is_empty(text))
    return config_error_at(r, i->where, "authenticator %.*s: server_socket must be set", STRF(i->name));
  if (str_find_byte(text, '$') >= 0 || str_find_byte(text, '\\') >= 0)
    return 0; /* known when it is used */
  if (!dovecot_places(config_reader_arena(r), text, &p, &error))
    return config_error_at(r, i->where, "authenticator %.*s: server_socket: %.*s", STRF(i->name), STRF(error));
  for (; p != NULL; p = p->next) {
    if (str_is_set(p->path) && o->server_tls)
      config_warning(r, "authenticator %.*s: server_tls means nothing for the socket %.*s", STRF(i->name), STRF(p->path));
    else if (!dovecot_is_near(p) && !o->server_tls)
      config_warning(r, "authenticator %.*s: passwords go in clear to %.*s: server_tls is not set", STRF(i->name), STRF(p->host));
  }
  return 0;
}

const struct authenticator_def sasl_dovecot = {
  .driver = {.name = "dovecot", .class = DRIVER_AUTHENTICATOR, .options = options, .options_size = sizeof(struct dovecot_options),
    .summary = "Dovecot's authentication service", .init = init},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
};
