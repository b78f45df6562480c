/* Marks of packets (RFC 2474, 2597, 3246; Exim manual, smtp option "dscp"). */

#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "expand/expand.h"
#include "log/log.h"
#include "smtp/client/client.h"

/* Values of the whole byte: the mark is its upper six bits. */
static const struct {
  const char *name;
  int value;
} names[] = {
    {"af11", IPTOS_DSCP_AF11}, {"af12", IPTOS_DSCP_AF12}, {"af13", IPTOS_DSCP_AF13}, {"af21", IPTOS_DSCP_AF21}, {"af22", IPTOS_DSCP_AF22},
    {"af23", IPTOS_DSCP_AF23}, {"af31", IPTOS_DSCP_AF31}, {"af32", IPTOS_DSCP_AF32}, {"af33", IPTOS_DSCP_AF33}, {"af41", IPTOS_DSCP_AF41},
    {"af42", IPTOS_DSCP_AF42}, {"af43", IPTOS_DSCP_AF43}, {"ef", IPTOS_DSCP_EF}, {"lowcost", IPTOS_LOWCOST}, {"lowdelay", IPTOS_LOWDELAY},
    {"mincost", IPTOS_MINCOST}, {"reliability", IPTOS_RELIABILITY}, {"throughput", IPTOS_THROUGHPUT},
};

static int value_of(struct ctx *c, struct str text) {
  unsigned long n;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_ieq_c(text, names[i].name))
      return names[i].value;
  bool hex = str_istarts(text, STR("0x"));
  char *end, *p = str_dup_c(c->arena, text);
  n = strtoul(p, &end, hex ? 16 : 10);
  return text.len && *end == 0 && p[0] != '-' && n <= 0x3f ? (int)(n << 2) : -1;
}

void smtp_set_dscp(struct ctx *c, const struct smtp_connection *n, int fd) {
  struct str text;
  const struct option_expr *o = &smtp_client_options(n->transport)->dscp;
  if (!str_is_set(o->text))
    return;
  if (expand_option(c, o, &text)) {
    log_write(LOG_MAIN, c->message, "failed to expand dscp for %.*s transport: %.*s", STRF(n->transport->name), STRF(c->error));
    return;
  }
  text = str_trim(text);
  int value = text.len ? value_of(c, text) : 0, six = n->ip.family == AF_INET6;
  if (text.len && value < 0)
    log_write(LOG_MAIN, c->message, "DSCP value \"%.*s\" of %.*s transport is not known", STRF(log_printable(c->arena, text)),
        STRF(n->transport->name));
  else if (text.len && setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_TCLASS : IP_TOS, &value, sizeof value))
    DEBUG(transport, "setting DSCP failed\n");
}
