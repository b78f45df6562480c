#include "daemon/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "core/main_options.h"
#include "match/match.h"

int listen_port(struct str text) {
  uint64_t n;
  if (str_to_u64(text, &n))
    return n > 65535 ? -1 : (int)n;
  char name[64];
  if (!text.len || text.len >= sizeof name)
    return -1;
  memcpy(name, text.p, text.len);
  name[text.len] = 0;
  const struct servent *s = getservbyname(name, "tcp");
  if (s)
    return ntohs((uint16_t)s->s_port);
  return str_eq_c(text, "smtp") ? 25 : -1; /* a machine without /etc/services still has a mail port */
}

bool listen_port_is_tls(const struct config *c, struct arena *a, int port) {
  struct list_iter i;
  struct str item;
  struct str list = main_options(c)->tls_on_connect_ports;
  if (!str_is_set(list))
    return false;
  list_iter_init(&i, a, list);
  while (list_next(&i, &item))
    if (listen_port(item) == port)
      return true;
  return false;
}

static bool add(struct listeners *l, const struct ip_addr *ip, int port, bool tls) {
  for (int i = 0; i < l->n; i++)
    if (l->v[i].port == port && ip_eq(&l->v[i].ip, ip))
      return true;
  if (l->n == LISTENERS_MAX)
    return false;
  l->v[l->n++] = (struct listener){.ip = *ip, .port = port, .fd = -1, .tls_on_connect = tls};
  return true;
}

/* The first non-blank byte after a separator change such as "<;", or 0. */
static bool has_dot_or_colon(struct str item) { return memchr(item.p, '.', item.len) || memchr(item.p, ':', item.len); }

/* -oX mixes ports and interfaces: they are told apart item by item. */
static void split_oX(struct arena *a, struct str oX, struct str *ports, struct str *interfaces) {
  struct buf p, i;
  struct list_iter it;
  struct str item;
  buf_init(&p, a, BUF_MAX_LINE);
  buf_init(&i, a, BUF_MAX_LINE);
  list_iter_init(&it, a, oX);
  while (list_next(&it, &item)) {
    struct buf *to = has_dot_or_colon(item) ? &i : &p;
    buf_add_c(to, to->len ? "; " : "<; ");
    buf_add(to, item);
  }
  if (p.len)
    *ports = buf_str(&p);
  if (i.len)
    *interfaces = buf_str(&i);
}

int listen_plan(const struct config *c, struct arena *a, struct str oX, bool all_tls, struct listeners *ret, struct str *ret_error) {
  const struct main_options *o = main_options(c);
  struct str ports = str_is_set(o->daemon_smtp_ports) ? o->daemon_smtp_ports : STR("smtp");
  struct str interfaces = str_is_set(o->local_interfaces) ? o->local_interfaces : STR("<; ::0 ; 0.0.0.0");
  if (str_is_set(oX))
    split_oX(a, oX, &ports, &interfaces);
  ret->n = 0;
  struct list_iter i, k;
  struct str item, port_text;
  list_iter_init(&i, a, interfaces);
  while (list_next(&i, &item)) {
    struct ip_addr ip;
    int port;
    if (!ip_parse_port(item, &ip, &port)) {
      *ret_error = str_printf(a, "invalid IP address \"%.*s\" in local_interfaces or -oX", STRF(item));
      return -1;
    }
    if (ip.family == AF_INET6 && o->disable_ipv6)
      continue;
    bool room = true;
    if (port) {
      room = add(ret, &ip, port, all_tls || listen_port_is_tls(c, a, port));
    } else {
      list_iter_init(&k, a, ports);
      while (room && list_next(&k, &port_text)) {
        if ((port = listen_port(port_text)) < 0) {
          *ret_error = str_printf(a, "TCP port \"%.*s\" not found", STRF(port_text));
          return -1;
        }
        room = add(ret, &ip, port, all_tls || listen_port_is_tls(c, a, port));
      }
    }
    if (!room) {
      *ret_error = str_printf(a, "more than %d listening sockets", LISTENERS_MAX);
      return -1;
    }
  }
  if (!ret->n) {
    *ret_error = STR("no listening ports specified");
    return -1;
  }
  return 0;
}

static bool wildcard_pair(const struct listeners *l, const struct listener *v6) {
  for (int i = 0; i < l->n; i++)
    if (l->v[i].ip.family == AF_INET && ip_is_any(&l->v[i].ip) && l->v[i].port == v6->port)
      return true;
  return false;
}

static int bind_one(const struct main_options *o, struct listener *v, bool with_ipv4) {
  int fd = socket(v->ip.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, off = 0;
  if (fd < 0)
    return -errno;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (v->ip.family == AF_INET6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, with_ipv4 ? &off : &on, sizeof on);
  if (o->tcp_nodelay)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_storage sa;
  socklen_t n = ip_to_sockaddr(&v->ip, v->port, &sa);
  if (bind(fd, (struct sockaddr *)&sa, n) < 0 || listen(fd, o->smtp_connect_backlog > 0 ? (int)o->smtp_connect_backlog : 20) < 0) {
    int e = -errno;
    close(fd);
    return e;
  }
  v->fd = fd;
  v->both_families = with_ipv4;
  return 0;
}

int listen_bind_missing(const struct config *c, struct arena *a, struct listeners *l, struct str *ret_error) {
  const struct main_options *o = main_options(c);
  /* 0.0.0.0 comes last: "::" may serve it, too. */
  for (int step = 0; step < 2 * l->n; step++) {
    struct listener *v = &l->v[step % l->n];
    if ((step >= l->n) != (v->ip.family == AF_INET && ip_is_any(&v->ip)))
      continue;
    bool served = v->fd >= 0;
    if (v->ip.family == AF_INET && ip_is_any(&v->ip))
      for (int k = 0; k < l->n && !served; k++)
        served = l->v[k].fd >= 0 && l->v[k].both_families && l->v[k].port == v->port;
    if (served)
      continue;
    bool pair = v->ip.family == AF_INET6 && ip_is_any(&v->ip) && wildcard_pair(l, v);
    int e = bind_one(o, v, pair);
    /* A kernel without IPv6 is no error as long as IPv4 is listened on as well. */
    if (e && v->ip.family == AF_INET6 && pair && (e == -EAFNOSUPPORT || e == -EADDRNOTAVAIL))
      continue;
    if (e) {
      *ret_error = str_printf(a, "socket bind() to port %d for address %.*s failed: %s", v->port, STRF(ip_text(a, &v->ip)), strerror(-e));
      return e;
    }
  }
  return 0;
}

int listen_bind(const struct config *c, struct arena *a, struct listeners *l, struct str *ret_error) {
  int e = listen_bind_missing(c, a, l, ret_error);
  if (e)
    listen_close(l);
  return e;
}

void listen_close(struct listeners *l) {
  for (int i = 0; i < l->n; i++)
    if (l->v[i].fd >= 0) {
      close(l->v[i].fd);
      l->v[i].fd = -1;
    }
}

/* Ports of one wildcard kind are listed one by one; those of one address as [ip]:{a,b}. */
static void describe_kind(struct arena *a, const struct listeners *l, bool tls, struct buf *b) {
  bool done[LISTENERS_MAX] = {false};
  for (int i = 0; i < l->n; i++) {
    const struct listener *v = &l->v[i];
    if (done[i] || v->tls_on_connect != tls)
      continue;
    if (ip_is_any(&v->ip)) {
      bool other = false;
      for (int k = 0; k < l->n; k++)
        if (k != i && l->v[k].port == v->port && ip_is_any(&l->v[k].ip) && l->v[k].tls_on_connect == tls)
          other = done[k] = true;
      buf_printf(b, " port %d%s", v->port, other ? " (IPv6 and IPv4)" : v->ip.family == AF_INET6 ? " (IPv6)" : " (IPv4)");
      continue;
    }
    int same = 0;
    for (int k = i; k < l->n; k++)
      same += l->v[k].tls_on_connect == tls && ip_eq(&l->v[k].ip, &v->ip);
    buf_printf(b, " [%.*s]:%s", STRF(ip_text(a, &v->ip)), same > 1 ? "{" : "");
    bool first = true;
    for (int k = i; k < l->n; k++)
      if (l->v[k].tls_on_connect == tls && ip_eq(&l->v[k].ip, &v->ip)) {
        buf_printf(b, "%s%d", first ? "" : ",", l->v[k].port);
        first = false;
        done[k] = true;
      }
    if (same > 1)
      buf_add_byte(b, '}');
  }
}

struct str listen_describe(struct arena *a, const struct listeners *l) {
  struct buf b;
  bool clear = false, tls = false, ipv6 = false;
  buf_init(&b, a, BUF_MAX_LINE);
  for (int i = 0; i < l->n; i++) {
    *(l->v[i].tls_on_connect ? &tls : &clear) = true;
    ipv6 |= l->v[i].ip.family == AF_INET6;
  }
  if (clear) {
    buf_add_c(&b, "SMTP on");
    describe_kind(a, l, false, &b);
  }
  if (tls) {
    buf_add_c(&b, clear ? " and for SMTPS on" : "SMTPS on");
    describe_kind(a, l, true, &b);
  }
  struct str s = buf_str(&b);
  if (ipv6)
    return s;
  /* Where only IPv4 is configured, the family is not worth a word. */
  struct buf plain;
  buf_init(&plain, a, BUF_MAX_LINE);
  while (str_is_set(s) && s.len) {
    ptrdiff_t at = str_find(s, STR(" (IPv4)"));
    buf_add(&plain, at < 0 ? s : str_slice(s, 0, (size_t)at));
    s = at < 0 ? STR_EMPTY : str_from(s, (size_t)at + 7);
  }
  return buf_str(&plain);
}
