/* -atrn HOST DOMAINS: the customer's side of On-Demand Mail Relay (RFC 2645). Calls the provider as a router and a transport say,
has the connection turned round, and takes what mail comes. */

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "cli/process.h"
#include "core/main_options.h"
#include "deliver/address.h"
#include "log/log.h"
#include "message/message.h"
#include "route/route.h"
#include "smtp/client/client.h"
#include "smtp/server/server.h"
#include "transport/transport.h"

#define DOMAINS_MAX 900 /* a command line of SMTP has 1000 */
#define NO_MAIL 453

extern const struct transport_def transport_smtp;

static int say(struct process *p, const char *what, struct str detail) {
  fprintf(p->err, "martlet: -atrn: %s%.*s\n", what, STRF(log_printable(p->arena, detail)));
  return 1;
}

/* Nothing that could end the address or the command. */
static bool plain(struct str s, size_t max) {
  for (size_t i = 0; i < s.len; i++)
    if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] == 127 || s.p[i] == '@' || s.p[i] == '<' || s.p[i] == '>')
      return false;
  return s.len <= max;
}

/* Where the provider is: what a router makes of an address at the host. Only the transport and the hosts count. */
static struct address *find(struct process *p, struct str host) {
  struct ctx *c = p->ctx;
  struct address *a = address_new(p->arena, str_printf(p->arena, "postmaster@%.*s", STRF(host)), -1);
  struct route_lists lists = {.mode = ROUTE_FOR_DELIVERY};
  a->topaddr = a->address;
  enum route_result r = route_address(c, a, &lists);
  if (r != ROUTE_OK) {
    (void)say(p, "no router says how to reach the host", str_is_set(a->message) && a->message.len
                  ? str_printf(p->arena, ": %.*s", STRF(a->message)) : STR_EMPTY);
    return NULL;
  }
  if (!a->transport || a->transport->driver != &transport_smtp.driver || smtp_client_options(a->transport)->lmtp) {
    (void)say(p, "the router's transport is not of the driver smtp", STR_EMPTY);
    return NULL;
  }
  return a;
}

static struct smtp_connection *call(struct process *p, struct address *a) {
  struct ctx *c = p->ctx;
  struct host *hosts;
  struct str error = STR_EMPTY, command, reply;
  int port, number;
  enum smtp_stage_result why;
  if (!smtp_choose_hosts(c, a->transport, a, &hosts, &port, &error)) {
    (void)say(p, "", error);
    return NULL;
  }
  for (struct host *h = hosts; h; h = h->next) {
    if (!smtp_find_address(c, a->transport, h, h->port > 0 ? h->port : port, &error))
      continue;
    c->host = h;
    h->port = h->port > 0 ? h->port : port;
    struct smtp_connection *n = smtp_connect(c, a->transport, h->port, &why, &number, &error, &command, &reply);
    if (n)
      return n;
    error = str_printf(p->arena, "%.*s [%.*s]: %.*s", STRF(h->name), STRF(h->address), STRF(error));
  }
  (void)say(p, "cannot connect: ", error);
  return NULL;
}

static struct smtp_connection *connect_to(struct process *p, struct str host) {
  struct address *a = find(p, host);
  if (!a)
    return NULL;
  p->ctx->transport = a->transport;
  address_set_vars(p->ctx, a);
  return call(p, a);
}

/* 0: turned round; otherwise *ret_status is how it ends. */
static int ask(struct process *p, struct smtp_connection *n, struct str domains, int *ret_status) {
  struct ctx *c = p->ctx;
  enum smtp_stage_result r = smtp_command(c, n, true, "ATRN%s%.*s", domains.len ? " " : "", STRF(domains));
  if (!r)
    r = smtp_early_settle(c, n);
  if (!r)
    r = smtp_expect(c, n, smtp_client_options(n->transport)->command_timeout, '2');
  if (!r)
    return 0;
  if (n->reply.code == NO_MAIL) {
    fprintf(p->out, "%.*s\n", STRF(log_printable(p->arena, n->reply.text)));
    *ret_status = 0;
  } else {
    *ret_status = say(p, "", str_printf(p->arena, "%.*s [%.*s]: %.*s", STRF(n->host_name), STRF(n->host_address), STRF(n->error_text)));
  }
  smtp_disconnect(n, r != SMTP_BROKEN);
  return -1;
}

static int serve(struct process *p, struct smtp_connection *n) {
  struct sockaddr_storage own;
  socklen_t len = sizeof own;
  struct smtp_params sp = {.kind = SESSION_SMTP, .stream = n->stream, .peer = n->ip, .peer_port = n->port, .tls = n->tls_info, .reversed = true};
  if (getsockname(stream_fd(n->stream), (struct sockaddr *)&own, &len) == 0)
    (void)!ip_from_sockaddr((struct sockaddr *)&own, &sp.local, &sp.local_port);
  n->stream = NULL;
  int status = process_receive_session(p, &sp);
  smtp_disconnect(n, false);
  return status ? say(p, "the connection has ended without QUIT", STR_EMPTY) : 0;
}

int mode_atrn(struct process *p) {
  struct ctx *c = p->ctx;
  int status = 1;
  if (!process_require_admin(p))
    return 1;
  if (p->cli.args.n != 2)
    return say(p, "a host and a list of domains (which may be empty) are needed", STR_EMPTY);
  struct str host = p->cli.args.v[0], domains = p->cli.args.v[1];
  if (!host.len || !plain(host, 255) || !plain(domains, DOMAINS_MAX))
    return say(p, "not a host, or not a list of domains with commas between them", STR_EMPTY);
  struct message *m = c->message = message_new("atrn"); /* conditions of routers may look at one */
  m->reverse_path = STR_EMPTY;
  smtp_atrn_customer(true);
  struct smtp_connection *n = connect_to(p, host);
  smtp_atrn_customer(false); /* what comes is routed as other mail is */
  bool turned = n && ask(p, n, domains, &status) == 0;
  c->message = NULL;
  address_clear_vars(c);
  message_free(m);
  if (turned)
    status = serve(p, n);
  smtp_pool_close_all();
  return n ? status : 1;
}
