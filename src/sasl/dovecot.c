/* Authentication by Dovecot's service (its protocol 1.x; Exim manual, chapter "The dovecot authenticator"), over a UNIX or an
inet socket. Each attempt has a connection for itself; the next one may have the same (dovecot_connection.c). */

#include "base/buf.h"
#include "base/encode.h"
#include "expand/expand.h"
#include "log/log.h"
#include "sasl/dovecot_connection.h"
#include "sasl/drivers.h"
#include "tls/tls.h"

#define ATTEMPT_SECONDS 300   /* all together */
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
  struct dovecot_asker asker;
  struct dovecot_connection *conn;
  struct str mechanism;
};

/* --- talking --- */

static void add_word(struct attempt *t, struct buf *b, const char *name, struct str value) {
  if (str_is_set(value) && value.len > 0) {
    buf_printf(b, "\t%s=", name);
    buf_add(b, dovecot_escape(t->c->arena, value));
  }
}

/* AUTH, with what the service may want to know of the client; who we are goes in front of the first. */
static int request(struct attempt *t, struct str initial) {
  struct ctx *c = t->c;
  const struct client *cl = c->client;
  struct dovecot_connection *k = t->conn;
  struct buf b;
  buf_init(&b, c->arena, 4 * DOVECOT_LINE_MAX);
  if (k->request++ == 0)
    buf_printf(&b, "VERSION\t1\t%d\nCPID\t%u\n", k->hello.minor >= 2 ? 2 : 0, k->number);
  buf_printf(&b, "AUTH\t%u\t%.*s\tservice=smtp", k->request, STRF(t->mechanism));
  if (sasl_client_secured(c))
    buf_add_c(&b, "\tsecured");
  if (cl->tls != NULL && cl->tls->peer_cert != NULL && cl->tls->peer_verified)
    buf_add_c(&b, "\tvalid-client-cert");
  add_word(t, &b, "rip", cl->host_address);
  add_word(t, &b, "lip", cl->interface_address);
  buf_add_c(&b, "\tnologin");
  if (k->hello.minor >= 2) {
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
  return b.overflow ? ctx_fail(c, OUTCOME_DEFER, "request to %.*s is too long", STRF(k->shown)) : dovecot_send(&t->asker, k, buf_str(&b));
}

static enum sasl_result unavailable(struct attempt *t, struct str *ret_text) {
  *ret_text = t->c->error;
  return SASL_UNAVAILABLE;
}

static enum sasl_result converse(struct attempt *t, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  struct ctx *c = t->c;
  for (int ignored = 0; ignored < IGNORED_LINES_MAX;) {
    struct str line, response;
    if (dovecot_read_line(&t->asker, t->conn, &line) != 0)
      return unavailable(t, ret_text);
    struct dovecot_answer r = dovecot_answer_line(c->arena, t->conn->request, line);
    t->conn->answered = (r.kind == DOVECOT_OK && str_is_set(r.user)) || r.kind == DOVECOT_FAIL || r.kind == DOVECOT_FAIL_TEMPORARY;
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
    if (dovecot_send(&t->asker, t->conn, str_printf(c->arena, "CONT\t%u\t%.*s\n", t->conn->request, STRF(base64_encode(c->arena, response)))) != 0)
      return unavailable(t, ret_text);
  }
  *ret_text = STR("authentication socket protocol error (nothing but unknown lines)");
  return SASL_UNAVAILABLE;
}

/* One connection's part of it. true: it was a kept one that has gone, or knows less than the service may know now: nothing has
happened. */
static bool try_one(struct attempt *t, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text,
    enum sasl_result *ret) {
  struct ctx *c = t->c;
  struct dovecot_connection *k = t->conn;
  const struct dovecot_mechanism *m = dovecot_mechanism(&k->hello, t->mechanism);
  bool used = k->request > 0;
  if (m == NULL) {
    *ret_text = str_printf(c->arena, "Dovecot did not advertise mechanism \"%.*s\"", STRF(t->mechanism));
    *ret = SASL_UNAVAILABLE;
    return used;
  }
  if (m->plaintext && !sasl_client_secured(c)) {
    *ret_text = STR("538 5.7.11 Encryption required for requested authentication mechanism");
    *ret = SASL_CANCELLED;
    return false;
  }
  k->heard = k->gone = k->answered = false;
  *ret = request(t, initial) != 0 ? unavailable(t, ret_text) : converse(t, i, io, ret_text);
  return used && k->gone && !k->heard;
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
  for (bool anew = false;; anew = true) {
    if (dovecot_reach(&t->asker, places, anew, &t->conn) != 0)
      return unavailable(t, ret_text);
    bool again = try_one(t, i, initial, io, ret_text, &r);
    dovecot_release(t->conn);
    if (!again || anew)
      return r;
  }
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct dovecot_options *o = i->options;
  struct attempt t = {.c = c, .o = o, .mechanism = sasl_public_name(i),
    .asker = {.c = c, .tls = o->server_tls, .end = deadline_in(ATTEMPT_SECONDS)}};
  return run(&t, i, initial, io, ret_text);
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
