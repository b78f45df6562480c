/* Clients behind a proxy that names them (hosts_proxy; Exim manual, section "Inbound proxies"). */
#include "smtp/server/proxy.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "dns/dns.h"
#include "expand/expand.h"
#include "smtp/server/internal.h"

struct input {
  size_t len;
  char bytes[PROXY_V2_FIXED + PROXY_V2_MAX];
};

/* Reads the header and not a byte more: what follows may be TLS. NULL, or what was wrong. [suspends] */
static const char *read_header(struct smtp_session *s, struct input *in, struct proxy_header *ret) {
  int fd = stream_fd(s->stream);
  usec_t deadline = deadline_in(s->o->proxy_protocol_timeout);
  const char *why;
  for (;;) {
    size_t want = proxy_parse(str_n(in->bytes, in->len), ret, &why);
    if (want == 0)
      return why;
    if (want <= in->len)
      return NULL;
    /* Standard input of a test session may block. */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n = poll(&p, 1, 0) == 0 ? (errno = EAGAIN, -1) : read(fd, in->bytes + in->len, want - in->len);
    if (n > 0) {
      in->len += (size_t)n;
    } else if (n == 0) {
      return "connection closed";
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      int rc = fiber_wait_fd(fd, FIBER_READ, deadline);
      if (rc < 0)
        return rc == -ETIMEDOUT ? "timeout" : "connection lost";
    } else if (errno != EINTR) {
      return "connection lost";
    }
  }
}

/* The rest of a bad header shall not be taken for commands. */
static void drop_input(struct smtp_session *s) {
  char rubbish[4096];
  for (int i = 0; i < 32; i++)
    if (read(stream_fd(s->stream), rubbish, sizeof rubbish) <= 0)
      return;
}

/* [suspends] */
static void set_addresses(struct smtp_session *s, const struct proxy_header *h) {
  struct client *cl = s->c->client;
  struct client_proxy *proxy = cl->proxy;
  proxy->local_address = cl->host_address;
  proxy->local_port = cl->host_port;
  if (h->local) {
    proxy->external_address = cl->interface_address;
    proxy->external_port = cl->interface_port;
    return;
  }
  proxy->external_address = ip_text(s->arena, &h->to);
  proxy->external_port = h->to_port;
  if (str_is_set(h->unique_id))
    proxy->unique_id = str_dup(s->arena, h->unique_id);
  smtp_set_client_address(s, &h->from, h->from_port);
  /* Whatever host_lookup says, as Exim does: who is behind a proxy is known by name. */
  if (host_name_lookup(s->c) == OUTCOME_OK)
    client_set_fullhost(s->arena, cl);
}

bool smtp_proxy_negotiate(struct smtp_session *s) {
  struct client *cl = s->c->client;
  struct proxy_header h;
  struct input *in = arena_new_of(s->arena, struct input);
  cl->proxy = arena_new_of(s->arena, struct client_proxy);
  in->len = 0;
  const char *why = read_header(s, in, &h);
  if (!why) {
    set_addresses(s, &h);
    return true;
  }
  s->proxy_failed = true;
  if (s->p->kind != SESSION_SMTP)
    return true;
  drop_input(s);
  if (log_selected(LOGSEL_connection_reject))
    acl_log(s->c, LOG_MAIN, "proxy negotiation failed: %s from %.*s", why, STRF(smtp_sender_who(s)));
  /* Nothing can be said in clear to who expects TLS. */
  if (s->p->tls_on_connect)
    return false;
  if (s->o->proxy_fail_close)
    smtp_say(s, "421 %.*s: required Proxy negotiation failed", STRF(s->hostname));
  return !s->o->proxy_fail_close;
}

/* ---- variables ---- */

static const struct client_proxy none;

int smtp_proxy_variable(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct client_proxy *p = c->proxy_out ? c->proxy_out : c->client && c->client->proxy ? c->client->proxy : &none;
  switch (def->flags) {
    case PROXY_SESSION: *ret = p != &none ? STR("yes") : STR("no"); break;
    case PROXY_LOCAL_ADDRESS: *ret = p->local_address; break;
    case PROXY_LOCAL_PORT: *ret = str_printf(c->arena, "%d", p->local_port); break;
    case PROXY_EXTERNAL_ADDRESS: *ret = p->external_address; break;
    case PROXY_EXTERNAL_PORT: *ret = str_printf(c->arena, "%d", p->external_port); break;
    default: *ret = p->unique_id;
  }
  if (!str_is_set(*ret))
    *ret = STR_EMPTY;
  return 0;
}
