#include "loop/dscp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <sys/socket.h>

static const struct {
  const char *name;
  int value;
} names[] = {
    {"af11", IPTOS_DSCP_AF11}, {"af12", IPTOS_DSCP_AF12}, {"af13", IPTOS_DSCP_AF13}, {"af21", IPTOS_DSCP_AF21},
    {"af22", IPTOS_DSCP_AF22}, {"af23", IPTOS_DSCP_AF23}, {"af31", IPTOS_DSCP_AF31}, {"af32", IPTOS_DSCP_AF32},
    {"af33", IPTOS_DSCP_AF33}, {"af41", IPTOS_DSCP_AF41}, {"af42", IPTOS_DSCP_AF42}, {"af43", IPTOS_DSCP_AF43},
    {"ef", IPTOS_DSCP_EF}, {"lowcost", IPTOS_LOWCOST}, {"lowdelay", IPTOS_LOWDELAY}, {"mincost", IPTOS_MINCOST},
    {"reliability", IPTOS_RELIABILITY}, {"throughput", IPTOS_THROUGHPUT},
};

const char *dscp_name(size_t i) { return i < sizeof names / sizeof *names ? names[i].name : NULL; }

bool dscp_parse(struct str text, int *ret) {
  uint64_t n = 0;
  if (text.len > 0 && text.p[0] >= '0' && text.p[0] <= '9') {
    bool hex = str_istarts(text, STR("0x")) && text.len > 2 && text.len <= 4;
    if (!hex && !str_to_u64(text, &n))
      return false;
    for (size_t i = 2; hex && i < text.len; i++) {
      int digit = text.p[i] | 32;
      digit = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : 99;
      if (digit == 99)
        return false;
      n = n * 16 + (uint64_t)digit;
    }
    *ret = (int)(n << 2);
    return n <= 0x3f;
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_ieq_c(text, names[i].name)) {
      *ret = names[i].value;
      return true;
    }
  return false;
}

int dscp_set(int fd, int value) {
  struct sockaddr_storage own;
  socklen_t size = sizeof own;
  int rc = -1;
  if (getsockname(fd, (struct sockaddr *)&own, &size) < 0)
    return -errno;
  if (own.ss_family != AF_INET && own.ss_family != AF_INET6)
    return -EAFNOSUPPORT;
  if (own.ss_family == AF_INET6)
    rc = setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof value);
  /* A socket of both families sends IPv4, too. */
  if (setsockopt(fd, IPPROTO_IP, IP_TOS, &value, sizeof value) == 0)
    rc = 0;
  return rc < 0 ? -errno : 0;
}
