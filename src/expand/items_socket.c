/* ${readsocket …}: asks a server on a UNIX or TCP socket. */
#include "expand/items.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/un.h>

#include "base/ascii.h"
#include "base/time.h"
#include "dns/dns.h"
#include "expand/internal.h"
#include "lookup/memo.h"
#include "loop/stream.h"
#include "tls/tls.h"

#define SOCKET_MAX_ANSWER (16u << 20)
#define SOCKET_SECONDS 5

struct socket_item {
  const struct expr *name, *request, *options, *eol, *fail; /* from options on perhaps NULL */
};

static const void *compile_readsocket(struct expand_compiler *k, const struct expand_item_def *def) {
  struct socket_item *s = arena_new_of(k->arena, struct socket_item);
  const struct expr **args[] = {&s->name, &s->request, &s->options, &s->eol, &s->fail};
  size_t n = 0;
  while (n < 5 && expand_accept(k, '{'))
    if ((*args[n++] = expand_compile_string(k)) == NULL)
      return NULL;
  if (n < 2)
    return expand_compile_error(k, "Not enough arguments for 'readsocket' (min is 2)");
  if (!expand_accept(k, '}'))
    return expand_compile_error(k, "missing '}' closing readsocket");
  return s;
}

struct socket_options {
  int64_t seconds;
  bool shutdown, tls, cache;
  struct str sni;
};

/* timeout:name=value:… */
static int parse_options(struct ctx *c, struct str text, struct socket_options *ret) {
  *ret = (struct socket_options){.seconds = SOCKET_SECONDS, .shutdown = true};
  bool first = true;
  while (str_is_set(text) && text.len > 0) {
    struct str item = str_trim(str_cut(&text, ':')), value = item, name = str_cut(&value, '=');
    if (first && (item.len == 0 || (ret->seconds = time_parse_interval(item)) < 0))
      return ctx_fail(c, OUTCOME_ERROR, "bad time value %.*s", STRF(item));
    bool yes = str_ieq_c(value, "yes");
    if (first)
      first = false;
    else if (str_eq_c(name, "shutdown"))
      ret->shutdown = yes;
    else if (str_eq_c(name, "tls"))
      ret->tls = yes;
    else if (str_eq_c(name, "sni"))
      ret->sni = value;
    else if (str_eq_c(name, "cache"))
      ret->cache = yes;
    else
      return ctx_fail(c, OUTCOME_ERROR, "readsocket option \"%.*s\" is not supported", STRF(item));
  }
  ret->tls |= ret->sni.len > 0;
  return 0;
}

static int connect_unix(struct ctx *c, struct str name, usec_t deadline, struct stream **ret) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (name.len >= sizeof to.sun_path)
    return ctx_fail(c, OUTCOME_ERROR, "failed to connect to socket %.*s: %s", STRF(name), strerror(ENAMETOOLONG));
  memcpy(to.sun_path, name.p, name.len);
  int rc = stream_connect((struct sockaddr *)&to, sizeof to, NULL, 0, deadline, ret);
  if (rc < 0)
    return ctx_fail(c, OUTCOME_ERROR, "failed to connect to socket %.*s: %s", STRF(name), strerror(-rc));
  return 0;
}

struct port_call {
  const char *name;
  int port;
};

static int port_offloaded(void *arg) {
  struct port_call *call = arg;
  struct servent found, *result = NULL;
  char space[1024];
  if (getservbyname_r(call->name, "tcp", &found, space, sizeof space, &result) == 0 && result != NULL)
    call->port = ntohs((uint16_t)found.s_port);
  return 0;
}

static int find_port(struct ctx *c, struct str text) {
  uint64_t n;
  if (str_to_u64(text, &n))
    return n > 0 && n < 65536 ? (int)n : 0;
  struct port_call call = {.name = str_dup_c(c->arena, text)};
  fiber_offload(port_offloaded, &call);
  return call.port;
}

/* host:port, the host perhaps in brackets. All its addresses are tried. */
static int connect_inet(struct ctx *c, struct str spec, usec_t deadline, struct stream **ret) {
  ptrdiff_t colon = str_rfind_byte(spec, ':');
  if (colon < 0)
    return ctx_fail(c, OUTCOME_ERROR, "missing port for readsocket %.*s", STRF(spec));
  struct str name = str_slice(spec, 0, (size_t)colon), port_text = str_from(spec, (size_t)colon + 1);
  if (name.len > 2 && name.p[0] == '[' && name.p[name.len - 1] == ']')
    name = str_slice(name, 1, name.len - 1);
  int port = find_port(c, port_text);
  if (port == 0)
    return ctx_fail(c, OUTCOME_ERROR, "unknown port \"%.*s\"", STRF(port_text));
  struct host *h = arena_new_of(c->arena, struct host);
  h->name = name;
  h->mx = -1;
  if (ip_parse(name, &h->ip)) {
    h->address = name;
  } else {
    struct str qualified;
    enum host_find found = host_find_addresses(c, c->arena, h, HOST_FIND_BY_A | HOST_FIND_BY_AAAA, NULL, &qualified);
    if (found != HOST_FOUND && found != HOST_FOUND_LOCAL)
      return ctx_fail(c, OUTCOME_ERROR, "no IP address found for host %.*s", STRF(name));
  }
  int rc = -ENETUNREACH;
  for (; h != NULL; h = h->next) {
    struct sockaddr_storage to;
    socklen_t len = ip_to_sockaddr(&h->ip, port, &to);
    if (len > 0 && (rc = stream_connect((struct sockaddr *)&to, len, NULL, 0, deadline, ret)) == 0)
      return 0;
  }
  return ctx_fail(c, OUTCOME_ERROR, "failed to connect to any address for %.*s: %s", STRF(name), strerror(-rc));
}

static int start_tls(struct ctx *c, struct stream *s, struct str sni, usec_t deadline) {
  struct tls_params p = {.sni = sni};
  struct tls_info *info;
  struct str error;
  if (tls_client_start(s, &p, deadline, c->arena, &info, &error) < 0)
    return ctx_fail(c, OUTCOME_ERROR, "TLS connect failed: %.*s", STRF(error));
  return 0;
}

/* Sends the request and reads to the end. */
static int talk(struct ctx *c, struct stream *s, struct str request, const struct socket_options *o, usec_t deadline,
    struct str *ret) {
  struct buf b;
  buf_init(&b, c->arena, SOCKET_MAX_ANSWER);
  stream_set_write_timeout(s, (int)o->seconds);
  int rc = request.len > 0 ? stream_write(s, request) : 0;
  if (rc >= 0)
    rc = stream_flush(s);
  if (rc < 0)
    return ctx_fail(c, OUTCOME_ERROR, "request write to socket failed: %s", strerror(-rc));
  if (o->shutdown && !o->tls)
    shutdown(stream_fd(s), SHUT_WR);
  while ((rc = stream_fill(s, deadline)) > 0) {
    struct str data = stream_peek(s);
    buf_add(&b, data);
    stream_consume(s, data.len);
    if (b.overflow)
      return ctx_fail(c, OUTCOME_ERROR, "socket answer is too long");
  }
  if (rc == -ETIMEDOUT)
    return ctx_fail(c, OUTCOME_ERROR, "socket read timed out");
  if (rc == -ECANCELED)
    return ctx_fail(c, OUTCOME_ERROR, "socket read failed: %s", strerror(-rc));
  /* A reset ends the answer as end of file does. */
  *ret = str_tainted(buf_str(&b));
  return 0;
}

static int ask(struct ctx *c, struct str name, struct str request, const struct socket_options *o, struct str *ret) {
  usec_t deadline = deadline_in(o->seconds);
  struct stream *s = NULL;
  int rc = str_starts(name, STR("inet:")) ? connect_inet(c, str_from(name, 5), deadline, &s)
                                          : connect_unix(c, name, deadline, &s);
  if (rc == 0 && o->tls)
    rc = start_tls(c, s, o->sni, deadline);
  if (rc == 0)
    rc = talk(c, s, request, o, deadline, ret);
  stream_free(s);
  return rc;
}

/* With cache=yes one answer does for the same question during a message. */
static int ask_once(struct ctx *c, struct str name, struct str request, const struct socket_options *o, struct str *ret) {
  struct str key = str_printf(c->arena, "readsocket %d%d %.*s %.*s\n%.*s", o->tls, o->shutdown, STRF(o->sni), STRF(name),
      STRF(request));
  const struct memo_value *known = memo_get(c, key);
  if (known != NULL) {
    *ret = str_dup(c->arena, known->value);
    ret->taint = known->value.taint;
    return 0;
  }
  int rc = ask(c, name, request, o, ret);
  if (rc == 0)
    memo_put(c, key, 0, *ret, -1);
  return rc;
}

static int eval_readsocket(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_READSOCKET, "socket insertions are not permitted"))
    return OUTCOME_ERROR;
  const struct socket_item *s = args->custom;
  struct str name, request, options = STR_EMPTY, eol, answer;
  struct socket_options o;
  int rc = expand_arg(c, s->name, &name);
  if (rc == 0)
    rc = expand_arg(c, s->request, &request);
  if (rc == 0 && s->options != NULL)
    rc = expand_arg(c, s->options, &options);
  if (rc == 0 && s->eol != NULL)
    rc = expand_arg(c, s->eol, &eol);
  if (rc == 0)
    rc = parse_options(c, options, &o);
  if (rc != 0)
    return rc;
  if (str_is_tainted(name))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename for search: '%.*s'", STRF(name));
  rc = o.cache ? ask_once(c, name, request, &o, &answer) : ask(c, name, request, &o, &answer);
  if (rc == 0)
    add_with_eol(out, answer, s->eol != NULL ? &eol : NULL);
  else if (s->fail != NULL)
    return expand_add(c, s->fail, out);
  return rc;
}

const struct expand_item_def socket_items[] = {
  {"readsocket", 0, 0, 0, compile_readsocket, eval_readsocket},
  {0},
};
