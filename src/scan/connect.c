/* Connections to scanners, and their answers, which are foreign input. */
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "base/buf.h"
#include "core/ctx.h"
#include "dns/dns.h"
#include "loop/stream.h"
#include "scan/scan.h"

static int connect_unix(struct ctx *c, struct str path, usec_t deadline, struct stream **ret, struct str *ret_error) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int rc = path.len < sizeof to.sun_path ? 0 : -ENAMETOOLONG;
  scan_set_callout_address(c, path);
  if (rc == 0) {
    memcpy(to.sun_path, path.p, path.len);
    rc = stream_connect((struct sockaddr *)&to, sizeof to, NULL, 0, deadline, ret);
  }
  if (rc < 0)
    *ret_error = str_printf(c->arena, "unable to connect to UNIX socket (%.*s): %s", STRF(path), strerror(-rc));
  return rc;
}

/* "783" or "783-790". */
static bool read_ports(struct str text, uint64_t *ret_first, uint64_t *ret_last) {
  struct str rest = text, first = str_cut(&rest, '-');
  if (!str_to_u64(first, ret_first) || *ret_first == 0 || *ret_first > 65535)
    return false;
  *ret_last = *ret_first;
  return !str_is_set(rest) || (str_to_u64(rest, ret_last) && *ret_last >= *ret_first && *ret_last < 65536);
}

static int try_port(struct ctx *c, const struct host *h, int port, usec_t deadline, struct stream **ret) {
  int rc = -ENETUNREACH;
  for (; h != NULL; h = h->next) {
    struct sockaddr_storage to;
    socklen_t len = ip_to_sockaddr(&h->ip, port, &to);
    if (len == 0)
      continue;
    scan_set_callout_address(c, str_printf(c->arena, "[%.*s]:%d", STRF(h->address), port));
    if ((rc = stream_connect((struct sockaddr *)&to, len, NULL, 0, deadline, ret)) == 0)
      return 0;
  }
  return rc;
}

static int connect_inet(struct ctx *c, struct str name, struct str ports, usec_t deadline, struct stream **ret, struct str *ret_error) {
  uint64_t first, last;
  if (!read_ports(ports, &first, &last)) {
    *ret_error = str_printf(c->arena, "invalid port in '%.*s %.*s'", STRF(name), STRF(ports));
    return -EINVAL;
  }
  struct host *h = arena_new_of(c->arena, struct host);
  h->name = name;
  h->mx = -1;
  if (ip_parse(name, &h->ip)) {
    h->address = name;
  } else {
    struct str qualified;
    enum host_find found = host_find_addresses(c, c->arena, h, 0, NULL, &qualified);
    if (found != HOST_FOUND && found != HOST_FOUND_LOCAL) {
      *ret_error = str_printf(c->arena, "no IP address found for host %.*s", STRF(name));
      return -EHOSTUNREACH;
    }
  }
  int rc = -ENETUNREACH;
  for (uint64_t port = first; rc < 0 && port <= last && loop_now_fresh() < deadline; port++)
    rc = try_port(c, h, (int)port, deadline, ret);
  if (rc < 0)
    *ret_error = str_printf(c->arena, "failed to connect to any address for %.*s: %s", STRF(name), strerror(-rc));
  return rc;
}

int scan_connect(struct ctx *c, struct str spec, usec_t deadline, struct stream **ret, struct str *ret_error) {
  *ret = NULL;
  if (str_is_tainted(spec)) {
    *ret_error = str_printf(c->arena, "tainted server '%.*s'", STRF(spec));
    return -EPERM;
  }
  struct str rest = str_trim(spec), name = str_cut(&rest, ' ');
  if (name.len > 0 && name.p[0] == '/')
    return connect_unix(c, name, deadline, ret, ret_error);
  rest = str_is_set(rest) ? str_ltrim(rest) : STR_EMPTY;
  struct str ports = str_cut(&rest, ' ');
  if (name.len == 0 || ports.len == 0) {
    *ret_error = str_printf(c->arena, "missing port: '%.*s'", STRF(spec));
    return -EINVAL;
  }
  return connect_inet(c, name, ports, deadline, ret, ret_error);
}

int scan_answer_line(struct stream *s, size_t max, usec_t deadline, struct str *ret) {
  int eol;
  return stream_read_line(s, max, deadline, ret, &eol);
}

static int read_answer(struct stream *s, usec_t deadline, struct buf *b) {
  int rc;
  while ((rc = stream_fill(s, deadline)) > 0) {
    struct str data = stream_peek(s);
    size_t n = 0;
    while (n < data.len && data.p[n] != '\0' && data.p[n] != '\n')
      n++;
    buf_add(b, str_slice(data, 0, n));
    bool end = n < data.len;
    stream_consume(s, n + end);
    if (b->overflow)
      return -EMSGSIZE;
    if (end)
      return 1;
  }
  return rc;
}

int scan_answer(struct stream *s, usec_t deadline, struct buf *b) {
  int rc = read_answer(s, deadline, b);
  return (rc == 0 || rc == -ECONNRESET) && b->len > 0 ? 1 : rc;
}

int scan_answer_whole(struct stream *s, usec_t deadline, struct buf *b) {
  int rc = read_answer(s, deadline, b);
  return rc == 0 && b->len > 0 ? -ECONNRESET : rc;
}
