/* `udpsend = host : port : text` (Exim manual, section "ACL modifiers"): one
datagram, sent without waiting for anything but the host's address. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "acl/internal.h"
#include "dns/dns.h"
#include "log/log.h"
#include "match/match.h"

#define DATAGRAM_MAX 65000

static int send_datagram(const struct ip_addr *ip, int port, struct str text) {
  struct sockaddr_storage to;
  socklen_t len = ip_to_sockaddr(ip, port, &to);
  int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  ssize_t n = sendto(fd, text.p, text.len, MSG_NOSIGNAL, (struct sockaddr *)&to, len);
  int e = n < 0 ? -errno : (size_t)n < text.len ? -EMSGSIZE : 0;
  close(fd);
  return e;
}

int acl_apply_udpsend(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct list_iter i;
  struct str name, port_text, text;
  struct host host = {.mx = -1};
  uint64_t port;
  /* The separator stands in the configuration: $sender_host_address, or worse, comes behind it. */
  if (str_starts(str_ltrim(clause->arg.text), STR("<")))
    list_iter_init_literal(&i, c->arena, arg);
  else
    list_iter_init(&i, c->arena, arg);
  if (!list_next(&i, &name) || name.len == 0)
    return acl_fail(c, OUTCOME_ERROR, "missing destination host in \"udpsend\" modifier");
  if (!list_next(&i, &port_text))
    return acl_fail(c, OUTCOME_ERROR, "missing destination port in \"udpsend\" modifier");
  text = i.rest; /* all of it, as it is */
  if (text.len == 0)
    return acl_fail(c, OUTCOME_ERROR, "missing datagram content in \"udpsend\" modifier");
  if (!str_to_u64(port_text, &port) || port == 0 || port > 65535)
    return acl_fail(c, OUTCOME_ERROR, "bad destination port \"%.*s\" in \"udpsend\" modifier", STRF(port_text));
  if (text.len > DATAGRAM_MAX)
    return acl_fail(c, OUTCOME_ERROR, "the datagram of a \"udpsend\" modifier is too long");
  host.name = name;
  if (!ip_parse(name, &host.ip)) {
    struct str full;
    enum host_find f = host_find_addresses(c, c->arena, &host, HOST_FIND_BY_A | HOST_FIND_BY_AAAA | HOST_FIND_QUIET, NULL, &full);
    if (f != HOST_FOUND && f != HOST_FOUND_LOCAL)
      return acl_fail(c, OUTCOME_DEFER, "DNS lookup failed in \"udpsend\" modifier");
  }
  if (c->is_test) {
    DEBUG(acl, "udpsend: nothing is sent in a test\n");
    return OUTCOME_OK;
  }
  int e = send_datagram(&host.ip, (int)port, text);
  return e ? acl_fail(c, OUTCOME_DEFER, "\"udpsend\" failed to [%.*s]:%d: %s", STRF(ip_text(c->arena, &host.ip)), (int)port, strerror(-e))
           : OUTCOME_OK;
}
