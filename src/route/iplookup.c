/* The iplookup router: another host says what an address becomes (Exim manual,
chapter "The iplookup router"). */

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/pcre.h"
#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "message/address.h"
#include "route/router.h"

#define ANSWER_MAX 4096

struct iplookup {
  struct str hosts, protocol, response_pattern;
  struct option_expr query, reroute;
  int64_t port, timeout;
  bool optional;
};

#define OFF(f) offsetof(struct iplookup, f)
static const struct option_def options[] = {
    {"hosts", OPTION_STRING, OFF(hosts)},
    {"optional", OPTION_BOOL, OFF(optional)},
    {"port", OPTION_INT, OFF(port)},
    {"protocol", OPTION_STRING, OFF(protocol), "udp"},
    {"query", OPTION_EXPR, OFF(query)},
    {"reroute", OPTION_EXPR, OFF(reroute)},
    {"response_pattern", OPTION_STRING, OFF(response_pattern)},
    {"timeout", OPTION_TIME, OFF(timeout), "5s"},
    OPTIONS_END,
};

static int iplookup_init(struct config_reader *cr, struct instance *i) {
  const struct iplookup *o = i->options;
  struct str error = STR_UNSET;
  if (o->port < 1 || o->port > 65535)
    return config_error(cr, "a port must be specified");
  if (!str_is_set(o->hosts) || !o->hosts.len)
    return config_error(cr, "a host list must be specified");
  if (!str_eq_c(o->protocol, "udp") && !str_eq_c(o->protocol, "tcp"))
    return config_error(cr, "protocol not specified as udp or tcp");
  if (str_is_set(o->response_pattern) && !pcre_get(config_reader_arena(cr), o->response_pattern, 0, &error))
    return config_error(cr, "regular expression error in response_pattern: %.*s", STRF(error));
  return 0;
}

/* One question to one address. 0 or -errno. */
static int ask(struct ctx *c, const struct iplookup *o, const struct ip_addr *ip, struct str query, struct str *ret) {
  struct sockaddr_storage to;
  bool tcp = str_eq_c(o->protocol, "tcp");
  socklen_t to_len = ip_to_sockaddr(ip, (int)o->port, &to);
  usec_t deadline = deadline_in(o->timeout > 0 ? o->timeout : 5);
  int fd = socket(ip->family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), e = fd < 0 ? -errno : 0;
  if (!e && connect(fd, (struct sockaddr *)&to, to_len) < 0)
    e = errno == EINPROGRESS ? 0 : -errno;
  if (!e && (e = fiber_wait_fd(fd, FIBER_WRITE, deadline)) > 0)
    e = 0;
  if (!e && send(fd, query.p, query.len, MSG_NOSIGNAL) != (ssize_t)query.len)
    e = errno ? -errno : -EIO;
  if (!e && tcp)
    shutdown(fd, SHUT_WR);
  char *text = arena_bytes(c->arena, ANSWER_MAX);
  size_t used = 0;
  while (!e && used < ANSWER_MAX) {
    ssize_t n = recv(fd, text + used, ANSWER_MAX - used, 0);
    if (n > 0) {
      used += (size_t)n;
      if (!tcp)
        break;
    } else if (n == 0) {
      break;
    } else if (errno == EAGAIN) {
      e = fiber_wait_fd(fd, FIBER_READ, deadline);
      e = e > 0 ? 0 : e;
    } else if (errno != EINTR) {
      e = -errno;
    }
  }
  if (fd >= 0)
    close(fd);
  *ret = str_tainted(str_n(text, used));
  return !e && !used ? -EIO : e;
}

static bool ask_hosts(struct ctx *c, const struct iplookup *o, struct str query, struct str *ret) {
  struct list_iter it;
  struct str item, full;
  list_iter_init(&it, c->arena, o->hosts);
  while (list_next(&it, &item)) {
    struct host *h = arena_new_of(c->arena, struct host);
    h->name = item;
    if (ip_parse(item, &h->ip)) {
      h->address = item;
    } else {
      enum host_find f = host_find_addresses(c, c->arena, h, 0, NULL, &full);
      if (f != HOST_FOUND && f != HOST_FOUND_LOCAL)
        continue;
    }
    for (; h; h = h->next)
      if (!ask(c, o, &h->ip, query, ret))
        return true;
  }
  return false;
}

/* The new address out of the answer. False: the answer does not fit the question. */
static enum route_result new_address(struct ctx *c, const struct instance *r, struct address *a, struct str answer, struct str query, bool defaulted,
    struct str *ret) {
  const struct iplookup *o = r->options;
  answer = str_trim(answer);
  captures_set(&c->expand, &answer, 1);
  if (str_is_set(o->response_pattern)) {
    struct str groups[CAPTURES_MAX];
    int n = pcre_match_text(c->arena, o->response_pattern, answer, groups, CAPTURES_MAX);
    if (n <= 0)
      return ROUTE_DECLINE;
    groups[0] = answer;
    captures_set(&c->expand, groups, n);
  } else if (defaulted) {
    struct str rest = answer;
    (void)str_cut(&rest, ' ');
    if (!str_is_set(rest) || !str_eq(str_trim(rest), a->address))
      return ROUTE_DECLINE;
  }
  size_t n = 0;
  while (n < answer.len && answer.p[n] != ' ' && answer.p[n] != '\t')
    n++;
  *ret = str_slice(answer, 0, n);
  if (str_is_set(o->reroute.text) && expand_option(c, &o->reroute, ret))
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: failed to expand %.*s: %.*s", STRF(r->name), STRF(o->reroute.text), STRF(c->error));
  return ROUTE_OK;
}

static enum route_result iplookup_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct iplookup *o = r->options;
  struct str query, answer, text, error;
  struct mail_address m;
  struct address_props props = a->prop;
  bool defaulted = !str_is_set(o->query.text);
  if (defaulted)
    query = str_printf(c->arena, "%.*s@%.*s %.*s@%.*s", STRF(a->local_part), STRF(a->domain), STRF(a->local_part), STRF(a->domain));
  else if (expand_option(c, &o->query, &query))
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: failed to expand %.*s: %.*s", STRF(r->name), STRF(o->query.text), STRF(c->error));
  if (!ask_hosts(c, o, query, &answer))
    return o->optional ? ROUTE_PASS : router_defer(c, a, ERROR_UNKNOWN, "%.*s router: failed to communicate with any host", STRF(r->name));
  struct expand_vars saved = ctx_save(c);
  enum route_result rc = new_address(c, r, a, answer, query, defaulted, &text);
  ctx_restore(c, &saved);
  if (rc)
    return rc;
  if (address_parse(c->arena, text, 0, &m, &error) || !m.domain.len) {
    log_write(LOG_MAIN, c->message, "%.*s router: reroute string %.*s is not of the form user@domain", STRF(r->name), STRF(text));
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: reroute string %.*s is not of the form user@domain", STRF(r->name), STRF(text));
  }
  if ((rc = router_props(c, r, a, &props)))
    return rc;
  struct address *child = address_child(c->arena, a, m.address);
  child->prop.errors_address = props.errors_address;
  child->prop.extra_headers = props.extra_headers;
  child->prop.remove_headers = props.remove_headers;
  child->dsn_ended = true;
  child->start_router = r->next; /* "passed on to subsequent routers" */
  child->next = lists->children;
  lists->children = child;
  a->router = (struct instance *)r;
  a->result = OUTCOME_OK;
  return ROUTE_REROUTED;
}

const struct router_def router_iplookup_def = {
    .driver = {.name = "iplookup", .class = DRIVER_ROUTER, .options = options, .options_size = sizeof(struct iplookup),
        .summary = "asks another host for the address", .init = iplookup_init},
    .flags = ROUTER_NO_TRANSPORT,
    .route = iplookup_route,
};
