/* The resolver and host finding against a name server of our own: a thread
that answers from the table below. */
#include "dns/dns.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/test.h"
#include "config/config.h"
#include "core/ctx.h"
#include "core/main_options.h"
#include "dns/packet.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "lookup/lookup.h"
#include "match/match.h"

/* "AD" and "AA" set the bits of every reply they are in; rcodes stand alone. */
static const struct rr {
  const char *name, *type, *data;
} zone[] = {
  {"a.ex", "A", "10.0.0.1"}, {"a.ex", "AAAA", "2001:db8::1"}, {"b.ex", "A", "10.0.0.2"}, {"b.ex", "A", "10.0.0.3"},
  {"sec.ex", "A", "10.0.0.9"}, {"sec.ex", "AD", ""},
  {"alias.ex", "CNAME", "b.ex"}, {"alias.ex", "A", "@b.ex 10.0.0.2"}, {"short.ex", "CNAME", "a.ex"},
  {"mx.ex", "MX", "10 a.ex"}, {"mx.ex", "MX", "20 b.ex"}, {"mx.ex", "MX", "5 none.ex"},
  {"null.ex", "MX", "0 ."}, {"dead.ex", "MX", "1 none.ex"}, {"ipmx.ex", "MX", "1 10.0.0.1"},
  {"second.ex", "MX", "10 a.ex"}, {"second.ex", "MX", "20 us.ex"}, {"second.ex", "MX", "30 b.ex"},
  {"first.ex", "MX", "10 us.ex"}, {"first.ex", "MX", "20 a.ex"}, {"us.ex", "A", "127.0.0.1"},
  {"secmx.ex", "MX", "10 sec.ex"}, {"secmx.ex", "AD", ""},
  {"_smtp._tcp.srv.ex", "SRV", "1 0 2525 a.ex"}, {"_smtp._tcp.srv.ex", "SRV", "0 0 26 b.ex"}, {"srv.ex", "MX", "1 us.ex"},
  {"_smtp._tcp.nosrv.ex", "SRV", "0 0 0 ."}, {"nosrv.ex", "A", "10.0.0.1"},
  {"again.ex", "SERVFAIL", ""}, {"nonexist.ex", "SERVFAIL", ""}, {"refused.ex", "REFUSED", ""}, {"mxagain.ex", "MX", "1 again.ex"},
  {"txt.ex", "TXT", "one|two"}, {"txt.ex", "TXT", "three"}, {"spf.ex", "SPF", "v=spf1|-all"},
  {"soa.ex", "SOA", "ns.ex root.ex 1 2 3 4 5"}, {"ns.ex", "NS", "n1.ex"}, {"_25._tcp.a.ex", "TLSA", "\3\1\1\xab\xcd"},
  {"4.3.2.10.in-addr.arpa", "PTR", "host.ex"}, {"host.ex", "A", "10.2.3.4"}, {"5.3.2.10.in-addr.arpa", "PTR", "a.ex"},
  {"6.3.2.10.in-addr.arpa", "PTR", "two.ex"}, {"6.3.2.10.in-addr.arpa", "PTR", "host.ex"},
  {"6.3.2.10.in-addr.arpa", "PTR", "Three.ex"}, {"two.ex", "A", "10.2.3.6"}, {"three.ex", "A", "10.2.3.6"},
  {"7.3.2.10.in-addr.arpa", "SERVFAIL", ""}, {"8.3.2.10.in-addr.arpa", "PTR", "bad^name.ex"}, {"bad^name.ex", "A", "10.2.3.8"},
  {"_client._smtp.csa.ex", "SRV", "1 2 0 csa.ex"}, {"_client._smtp.no.ex", "SRV", "1 1 0 no.ex"},
  {"_client._smtp.strict.co.ex", "SRV", "1 2 1 x.ex"}, {"trusted.ex", "A", "10.0.0.8"}, {"trusted.ex", "AA", "trusted.ex"},
  {"big.ex", "BIG", ""},
};

static const struct {
  const char *name;
  int number;
} types[] = {{"A", 1}, {"NS", 2}, {"CNAME", 5}, {"SOA", 6}, {"PTR", 12}, {"MX", 15}, {"TXT", 16}, {"AAAA", 28}, {"SRV", 33},
  {"TLSA", 52}, {"SPF", 99}};

static int udp, tcp;
static char server[40];
static atomic_int queries;

static unsigned char *put16(unsigned char *p, int v) {
  *p++ = (unsigned char)(v >> 8);
  *p++ = (unsigned char)v;
  return p;
}

static unsigned char *put_name(unsigned char *p, const char *name) {
  while (*name && strcmp(name, ".") != 0) {
    size_t n = strcspn(name, ".");
    *p++ = (unsigned char)n;
    memcpy(p, name, n);
    p += n;
    name += n + (name[n] == '.');
  }
  *p++ = 0;
  return p;
}

static unsigned char *put_data(unsigned char *p, int type, const char *data) {
  int v[3], used = 0;
  char x[100], y[100];
  switch (type) {
  case 1:
    inet_pton(AF_INET, data, p);
    return p + 4;
  case 28:
    inet_pton(AF_INET6, data, p);
    return p + 16;
  case 15:
    sscanf(data, "%d %n", &v[0], &used);
    return put_name(put16(p, v[0]), data + used);
  case 33:
    sscanf(data, "%d %d %d %n", &v[0], &v[1], &v[2], &used);
    return put_name(put16(put16(put16(p, v[0]), v[1]), v[2]), data + used);
  case 6:
    sscanf(data, "%99s %99s", x, y);
    p = put_name(put_name(p, x), y);
    for (int i = 1; i <= 5; i++)
      p = put16(put16(p, 0), i);
    return p;
  case 16: case 99:
    for (;;) {
      size_t n = strcspn(data, "|");
      *p++ = (unsigned char)n;
      memcpy(p, data, n);
      p += n;
      if (!data[n])
        return p;
      data += n + 1;
    }
  case 52:
    memcpy(p, data, 5);
    return p + 5;
  default:
    return put_name(p, data);
  }
}

static unsigned char *put_rr(unsigned char *p, const char *name, int type, const char *data) {
  p = put_name(p, name);
  p = put16(put16(put16(put16(p, type), 1), 0), 300);
  unsigned char *length = p;
  p = put_data(p + 2, type, data);
  put16(length, (int)(p - length - 2));
  return p;
}

static int answer(const unsigned char *q, size_t n, unsigned char *out, bool over_udp) {
  char name[256] = "";
  size_t at = 12;
  while (at < n && q[at]) {
    snprintf(name + strlen(name), sizeof name - strlen(name), "%s%.*s", name[0] ? "." : "", q[at], (const char *)q + at + 1);
    at += q[at] + 1u;
  }
  int type = q[at + 1] << 8 | q[at + 2], rcode = 3, count = 0, bits = 0, authority = 0;
  queries++;
  at += 5;
  memcpy(out, q, at);
  unsigned char *p = out + at;
  for (size_t i = 0; i < sizeof zone / sizeof *zone; i++) {
    const struct rr *r = &zone[i];
    if (strcasecmp(r->name, name) != 0)
      continue;
    rcode = rcode == 3 ? 0 : rcode;
    if (strcmp(r->type, "SERVFAIL") == 0)
      rcode = 2;
    else if (strcmp(r->type, "REFUSED") == 0)
      rcode = 5;
    else if (strcmp(r->type, "AD") == 0)
      bits |= 0x20;
    else if (strcmp(r->type, "AA") == 0)
      bits |= 0x400;
    else if (strcmp(r->type, "BIG") == 0 && over_udp)
      bits |= 0x200;
    else if (strcmp(r->type, "BIG") == 0)
      for (count = 0; count < 500; count++)
        p = put_rr(p, name, 1, "10.9.9.9");
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
      bool follows = types[k].number == 5 && type != 5;
      if (strcmp(types[k].name, r->type) != 0 || (types[k].number != type && !follows))
        continue;
      const char *owner = r->name, *data = r->data;
      char other[100];
      int used = 0;
      if (data[0] == '@' && sscanf(data, "@%99s %n", other, &used) == 1)
        owner = other, data += used;
      p = put_rr(p, owner, types[k].number, data);
      count++;
    }
  }
  if (bits & 0x400) {
    p = put_rr(p, "trusted.ex", 2, "ns.ex");
    authority = 1;
  }
  put16(put16(put16(put16(put16(out + 2, 0x8180 | bits | rcode), 1), count), authority), 0);
  return (int)(p - out);
}

static void *serve_udp(void *arg) {
  unsigned char q[2000], out[65536];
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  for (ssize_t n; (n = recvfrom(udp, q, sizeof q, 0, (struct sockaddr *)&from, &size)) > 16; size = sizeof from)
    sendto(udp, out, (size_t)answer(q, (size_t)n, out, true), 0, (struct sockaddr *)&from, size);
  return NULL;
}

static void *serve_tcp(void *arg) {
  static unsigned char q[2000], out[65536 + 2];
  for (int fd; (fd = accept(tcp, NULL, NULL)) >= 0; close(fd)) {
    ssize_t n = recv(fd, q, 2, MSG_WAITALL);
    if (n == 2 && (n = recv(fd, q + 2, (size_t)(q[0] << 8 | q[1]), MSG_WAITALL)) > 16) {
      int m = answer(q + 2, (size_t)n, out + 2, false);
      put16(out, m);
      if (send(fd, out, (size_t)m + 2, MSG_NOSIGNAL) < 0)
        break;
    }
  }
  return NULL;
}

static struct arena *a;
static struct config *config;
static struct ctx *c;
static pthread_t threads[2];

static int setup(void **state) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof addr;
  udp = socket(AF_INET, SOCK_DGRAM, 0);
  tcp = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(udp, (struct sockaddr *)&addr, size) || getsockname(udp, (struct sockaddr *)&addr, &size) ||
      bind(tcp, (struct sockaddr *)&addr, size) || listen(tcp, 5))
    return -1;
  snprintf(server, sizeof server, "127.0.0.1:%d", ntohs(addr.sin_port));
  pthread_create(&threads[0], NULL, serve_udp, NULL);
  pthread_create(&threads[1], NULL, serve_tcp, NULL);
  dns_use_server(server);
  a = arena_new("test");
  struct config_source s = {.paths = STR("test"), .text = STR("primary_hostname = my.ex\n"
    "dns_again_means_nonexist = nonexist.ex\ndns_trust_aa = trusted.ex\nhosts_treat_as_local = treat.ex\n"
    "extra_local_interfaces = 10.0.0.77\n")};
  struct str errors;
  if (config_read(&s, a, &config, &errors) != 0)
    fail_msg("%.*s", STRF(errors));
  expand_compile_config(config);
  match_compile_config(config);
  c = ctx_new(a, config);
  loop_init();
  return 0;
}

static int teardown(void **state) {
  struct sockaddr_in addr;
  socklen_t size = sizeof addr;
  getsockname(udp, (struct sockaddr *)&addr, &size);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sendto(fd, "", 1, 0, (struct sockaddr *)&addr, size); /* too short: ends the thread */
  close(fd);
  shutdown(tcp, SHUT_RDWR);
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
  close(udp);
  close(tcp);
  dns_done();
  lookup_tidy();
  match_done();
  arena_free(a);
  loop_done();
  return 0;
}

/* Each test runs in a fiber. */
static int (*body)(void);
static int call_body(void *arg) { return body(); }
static void in_fiber(int (*fn)(void)) {
  body = fn;
  assert_int_equal(loop_run(call_body, NULL), 0);
}
/* cmocka's failures longjmp: not across fiber stacks, so checks return a line number instead. */
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                                          \
      return __LINE__;                                                                                                 \
    }                                                                                                                  \
  } while (0)

static enum dns_result ask(const char *name, enum dns_type type, struct dns_answer *ret) {
  return dns_query(c, a, str_c(name), type, ret);
}

static int query_body(void) {
  struct dns_answer r;
  CHECK(ask("a.ex", DNS_A, &r) == DNS_OK && r.n == 1 && str_eq_c(r.v[0].text, "10.0.0.1") && !r.secure);
  CHECK(str_is_tainted(r.v[0].name) && r.min_ttl == 300);
  CHECK(ask("A.EX.", DNS_AAAA, &r) == DNS_OK && str_eq_c(r.v[0].text, "2001:db8::1"));
  CHECK(ask("sec.ex", DNS_A, &r) == DNS_OK && r.secure);
  CHECK(ask("trusted.ex", DNS_A, &r) == DNS_OK && r.secure && r.authoritative);
  CHECK(ask("a.ex", DNS_MX, &r) == DNS_NODATA);
  CHECK(ask("none.ex", DNS_A, &r) == DNS_NOMATCH);
  CHECK(ask("again.ex", DNS_A, &r) == DNS_AGAIN);
  CHECK(ask("nonexist.ex", DNS_A, &r) == DNS_NOMATCH);
  CHECK(ask("refused.ex", DNS_A, &r) == DNS_FAIL);
  CHECK(ask("alias.ex", DNS_A, &r) == DNS_OK && r.n == 1 && str_eq_c(r.canonical, "b.ex"));
  CHECK(ask("short.ex", DNS_A, &r) == DNS_OK && str_eq_c(r.v[0].text, "10.0.0.1"));
  CHECK(ask("bad_name.ex", DNS_A, &r) == DNS_NOMATCH && ask("-a.ex", DNS_A, &r) == DNS_NOMATCH);
  CHECK(ask("x..ex", DNS_TXT, &r) == DNS_NOMATCH && ask("", DNS_A, &r) == DNS_NOMATCH);
  CHECK(ask("txt.ex", DNS_TXT, &r) == DNS_OK && r.n == 2 && r.v[0].chunks_n == 2 && str_eq_c(r.v[0].text, "onetwo"));
  CHECK(ask("_25._tcp.a.ex", DNS_TLSA, &r) == DNS_OK && r.v[0].text.len == 5);
  CHECK(ask("big.ex", DNS_A, &r) == DNS_OK && r.n == 500); /* by TCP */
  int before = queries;
  CHECK(ask("a.EX", DNS_A, &r) == DNS_OK && queries == before); /* from the cache */
  CHECK(str_eq_c(r.v[0].text, "10.0.0.1"));
  return 0;
}

static void test_query(void **state) { in_fiber(query_body); }

/* "name[address]:port name[address]" */
static struct str hosts_text(struct host *h) {
  struct str s = STR_EMPTY;
  for (; h; h = h->next) {
    s = str_printf(a, "%.*s%s%.*s[%.*s]", STRF(s), s.len ? " " : "", STRF(h->name), STRF(h->address));
    if (h->port)
      s = str_printf(a, "%.*s:%d", STRF(s), h->port);
  }
  return s;
}

static struct host_find_params params = {.flags = HOST_FIND_BY_MX | HOST_FIND_BY_A | HOST_FIND_BY_AAAA};

static enum host_find find(const char *domain, const char **ret) {
  struct host *hosts;
  struct str full;
  enum host_find r = host_find_by_dns(c, a, str_c(domain), &params, &hosts, &full);
  *ret = hosts_text(hosts).p;
  return r;
}

static int mx_body(void) {
  const char *t;
  CHECK(find("mx.ex", &t) == HOST_FOUND);
  CHECK(!strcmp(t, "a.ex[2001:db8::1] a.ex[10.0.0.1] b.ex[10.0.0.2] b.ex[10.0.0.3]") ||
        !strcmp(t, "a.ex[2001:db8::1] a.ex[10.0.0.1] b.ex[10.0.0.3] b.ex[10.0.0.2]"));
  CHECK(find("a.ex", &t) == HOST_FOUND && !strcmp(t, "a.ex[2001:db8::1] a.ex[10.0.0.1]"));
  params.flags |= HOST_FIND_IPV4_FIRST;
  CHECK(find("a.ex", &t) == HOST_FOUND && !strcmp(t, "a.ex[10.0.0.1] a.ex[2001:db8::1]"));
  params.flags |= HOST_FIND_IPV4_ONLY;
  CHECK(find("a.ex", &t) == HOST_FOUND && !strcmp(t, "a.ex[10.0.0.1]"));
  CHECK(find("null.ex", &t) == HOST_FIND_FAILED && str_eq_c(c->error, "an MX or SRV record indicated no SMTP service"));
  CHECK(find("dead.ex", &t) == HOST_FIND_FAILED &&
        str_eq_c(c->error, "all relevant MX records point to non-existent hosts"));
  CHECK(find("ipmx.ex", &t) == HOST_FIND_FAILED && str_eq_c(c->error, "all relevant MX records point to non-existent hosts or (invalidly) to IP addresses"));
  CHECK(find("none.ex", &t) == HOST_FIND_FAILED && !str_is_set(c->error));
  CHECK(find("again.ex", &t) == HOST_FIND_AGAIN && find("mxagain.ex", &t) == HOST_FIND_AGAIN);
  CHECK(find("refused.ex", &t) == HOST_FIND_AGAIN);
  bool removed;
  params.ret_local_removed = &removed;
  CHECK(find("second.ex", &t) == HOST_FOUND && !strcmp(t, "a.ex[10.0.0.1]") && removed);
  CHECK(find("first.ex", &t) == HOST_FOUND_LOCAL && !strncmp(t, "us.ex[127.0.0.1]", 16) && !removed);
  params.ret_local_removed = NULL;
  struct option_expr list = {.text = STR("10.9.9.9 : 10.0.0.0/30")};
  list.tree = expr_compile(a, list.text, NULL);
  params.ignore_target_hosts = &list;
  CHECK(find("a.ex", &t) == HOST_IGNORED);
  params.ignore_target_hosts = NULL;
  list.text = STR("*");
  list.tree = expr_compile(a, list.text, NULL);
  params.mx_fail_domains = &list;
  CHECK(find("refused.ex", &t) == HOST_FIND_AGAIN); /* its A lookup fails as well */
  params.mx_fail_domains = NULL;
  params.dnssec_require = &list;
  CHECK(find("secmx.ex", &t) == HOST_FOUND && find("mx.ex", &t) == HOST_FIND_SECURITY && find("a.ex", &t) == HOST_FIND_SECURITY);
  params.dnssec_require = NULL;
  return 0;
}

static void test_mx(void **state) { in_fiber(mx_body); }

static int srv_body(void) {
  const char *t;
  params.srv_service = STR("smtp");
  CHECK(find("srv.ex", &t) == HOST_FOUND);
  CHECK(!strncmp(t, "b.ex[10.0.0.", 12) && strstr(t, " a.ex[10.0.0.1]:2525"));
  CHECK(find("nosrv.ex", &t) == HOST_FIND_FAILED && str_eq_c(c->error, "an MX or SRV record indicated no SMTP service"));
  CHECK(find("b.ex", &t) == HOST_FOUND);
  params.srv_service = STR_UNSET;
  return 0;
}

static void test_srv(void **state) { in_fiber(srv_body); }

static int local_body(void) {
  bool primary;
  CHECK(host_mx_local(c, STR("first.ex"), STR_UNSET, &primary) == OUTCOME_OK && primary);
  CHECK(host_mx_local(c, STR("second.ex"), STR_UNSET, &primary) == OUTCOME_OK && !primary);
  CHECK(host_mx_local(c, STR("second.ex"), STR("127.0.0.1"), &primary) == OUTCOME_FAIL);
  CHECK(host_mx_local(c, STR("mx.ex"), STR_UNSET, &primary) == OUTCOME_FAIL);
  CHECK(host_mx_local(c, STR("us.ex"), STR_UNSET, &primary) == OUTCOME_FAIL);
  CHECK(host_mx_local(c, STR("again.ex"), STR_UNSET, &primary) == OUTCOME_DEFER);
  CHECK(match_text(c, LIST_DOMAIN, STR("@mx_secondary"), STR("second.ex"), 0, NULL) == OUTCOME_OK);
  CHECK(match_text(c, LIST_DOMAIN, STR("@mx_primary"), STR("second.ex"), 0, NULL) == OUTCOME_FAIL);
  CHECK(match_text(c, LIST_DOMAIN, STR("@mx_any/ignore=<;127.0.0.1;::1 : x"), STR("first.ex"), 0, NULL) == OUTCOME_FAIL);
  CHECK(match_text(c, LIST_DOMAIN, STR("@mx_any"), STR("again.ex"), 0, NULL) == OUTCOME_DEFER);
  struct ip_addr ip;
  CHECK(ip_parse(STR("10.0.0.77"), &ip) && host_is_local(c, &ip));
  CHECK(ip_parse(STR("10.0.0.78"), &ip) && !host_is_local(c, &ip));
  return 0;
}

static void test_local(void **state) { in_fiber(local_body); }

static enum outcome name_of(const char *address) {
  c->client = arena_new_of(a, struct client);
  c->client->host_address = str_c(address);
  ip_parse(c->client->host_address, &c->client->ip);
  return host_name_lookup(c);
}

static int name_body(void) {
  CHECK(name_of("10.2.3.4") == OUTCOME_OK && str_eq_c(c->client->host_name, "host.ex") && str_is_tainted(c->client->host_name));
  CHECK(host_name_lookup(c) == OUTCOME_OK);
  CHECK(name_of("10.2.3.5") == OUTCOME_FAIL && c->client->host_lookup_failed && !str_is_set(c->client->host_name));
  CHECK(name_of("10.2.3.6") == OUTCOME_OK);
  CHECK(str_eq_c(c->client->host_name, "two.ex") && str_eq_c(c->client->host_aliases, "three.ex"));
  CHECK(match_client_host_text(c, STR("*ee.ex"), NULL) == OUTCOME_OK);
  CHECK(name_of("10.2.3.7") == OUTCOME_DEFER && c->client->host_lookup_deferred);
  CHECK(name_of("10.2.3.8") == OUTCOME_FAIL);
  CHECK(match_client_host_text(c, STR("*.ex : 10.2.3.8"), NULL) == OUTCOME_FAIL);
  CHECK(match_client_host_text(c, STR("10.2.3.8 : *.ex"), NULL) == OUTCOME_OK);
  CHECK(name_of("10.0.0.2") == OUTCOME_FAIL);
  CHECK(match_client_host_text(c, STR("a.ex : b.ex"), NULL) == OUTCOME_OK);
  CHECK(match_client_host_text(c, STR("none.ex : b.ex"), NULL) == OUTCOME_FAIL);
  CHECK(match_client_host_text(c, STR("+ignore_unknown : none.ex : b.ex"), NULL) == OUTCOME_OK);
  CHECK(match_client_host_text(c, STR("again.ex : b.ex"), NULL) == OUTCOME_DEFER);
  CHECK(match_client_host_text(c, STR("+ignore_defer : again.ex : b.ex"), NULL) == OUTCOME_OK);
  CHECK(match_client_host_text(c, STR("+include_defer : again.ex"), NULL) == OUTCOME_OK);
  return 0;
}

static void test_names(void **state) { in_fiber(name_body); }

static struct str dnsdb(const char *query, int *ret) {
  struct lookup_spec spec;
  struct str error, value = STR_EMPTY;
  if (lookup_parse(a, STR("dnsdb"), &spec, &error) != OUTCOME_OK)
    *ret = OUTCOME_ERROR;
  else
    *ret = lookup_find(c, &spec, STR_UNSET, str_c(query), false, &value);
  return *ret == OUTCOME_OK ? value : *ret == OUTCOME_FAIL ? STR("FAIL") : c->error;
}

static int dnsdb_body(void) {
  static const struct {
    const char *query, *want;
  } cases[] = {
    {"a=a.ex", "10.0.0.1"}, {"aaaa=a.ex", "2001:db8::1"}, {">; a+=a.ex", "2001:db8::1;10.0.0.1"},
    {"a=a.ex:sec.ex", "10.0.0.1\n10.0.0.9"}, {">:a=none.ex:a.ex", "10.0.0.1"}, {"a=none.ex", "FAIL"},
    {"mx=null.ex", "0 "}, {">: mx=second.ex", "10 a.ex:20 us.ex:30 b.ex"}, {">: mxh=second.ex", "a.ex:us.ex:b.ex"},
    {">:,; mx=second.ex", "10;a.ex:20;us.ex:30;b.ex"}, {"ptr=10.2.3.4", "host.ex"}, {"ptr=4.3.2.10.in-addr.arpa", "host.ex"},
    {"txt.ex", "one\nthree"}, {">\n; txt=txt.ex", "onetwo\nthree"}, {">\n,: txt=txt.ex", "one:two\nthree"},
    {"spf=spf.ex", "v=spf1-all"}, {"soa=x.y.soa.ex", "ns.ex"}, {">:,; soa=soa.ex", "ns.ex;root.ex;1;2;3;4;5"},
    {"zns=q.ns.ex", "n1.ex"}, {"cname=alias.ex", "b.ex"}, {"srv=_smtp._tcp.nosrv.ex", "0 0 0 "},
    {"tlsa=_25._tcp.a.ex", "3 1 1 abcd"}, {"csa=csa.ex", "Y csa.ex"}, {"csa=no.ex", "N no.ex"},
    {"csa=x.y.strict.co.ex", "X x.ex"}, {"defer_strict,a=again.ex:a.ex", "DNS lookup of \"again.ex\" failed temporarily"},
    {"a=again.ex:a.ex", "10.0.0.1"}, {"defer_never,a=again.ex", "FAIL"}, {"a=again.ex", "DNS lookup failed temporarily"},
    {"dnssec_strict,a=a.ex", "DNS lookup failed temporarily"}, {"dnssec_strict,a=sec.ex", "10.0.0.9"},
    {"retrans_5s,retry_2,a=a.ex", "10.0.0.1"}, {"xx=a", "unsupported DNS record type"},
    {"defer_foo,a=b", "unsupported dnsdb defer behaviour"}, {"retrans_x,a=b", "unsupported dnsdb timeout value"},
    {"retry_x,a=b", "dnsdb modifier syntax error"}, {"retry_0,a=a.ex", "10.0.0.1"}, {"ptr=[10.2.3.4]", "FAIL"},
    {">:,/csa=csa.ex", "Y csa.ex"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int r;
    struct str got = dnsdb(cases[i].query, &r);
    if (!str_eq_c(got, cases[i].want)) {
      fprintf(stderr, "%s: '%.*s'\n", cases[i].query, STRF(got));
      return 1;
    }
    CHECK(r != OUTCOME_OK || str_is_tainted(got));
  }
  int r;
  dnsdb("a=sec.ex", &r);
  CHECK(str_eq_c(c->vars.lookup_dnssec_authenticated, "yes"));
  dnsdb("a=a.ex", &r);
  CHECK(str_eq_c(c->vars.lookup_dnssec_authenticated, "no"));
  dnsdb("a=none.ex", &r);
  CHECK(str_eq_c(c->vars.lookup_dnssec_authenticated, "no"));
  dnsdb("csa=csa.ex", &r);
  CHECK(str_eq_c(c->vars.lookup_dnssec_authenticated, "no"));
  dnsdb("dnssec_never,a=a.ex", &r);
  CHECK(!str_is_set(c->vars.lookup_dnssec_authenticated));
  return 0;
}

static void test_dnsdb(void **state) { in_fiber(dnsdb_body); }

static int addresses_body(void) {
  struct host h = {.name = STR("10.1.1.1"), .port = 7, .mx = 3};
  CHECK(host_find_addresses(c, a, &h, 0, NULL, NULL) == HOST_FOUND && str_eq_c(hosts_text(&h), "10.1.1.1[10.1.1.1]:7"));
  h = (struct host){.name = STR("b.ex"), .port = 7};
  CHECK(host_find_addresses(c, a, &h, HOST_FIND_BY_A, NULL, NULL) == HOST_FOUND && h.next && h.next->port == 7);
  h = (struct host){.name = STR("us.ex")};
  CHECK(host_find_addresses(c, a, &h, HOST_FIND_BY_A, NULL, NULL) == HOST_FOUND_LOCAL && h.is_local);
  h = (struct host){.name = STR("localhost")};
  CHECK(host_find_addresses(c, a, &h, 0, NULL, NULL) == HOST_FOUND_LOCAL);
  h = (struct host){.name = STR("treat.ex")};
  CHECK(host_find_addresses(c, a, &h, HOST_FIND_BY_A, NULL, NULL) == HOST_FIND_FAILED);
  return 0;
}

static void test_addresses(void **state) { in_fiber(addresses_body); }

/* Malformed replies: refused, never read past their end. */
static void test_packets(void **state) {
  static const unsigned char head[] = {0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1};
  unsigned char p[100];
  struct dns_reply r;
  memcpy(p, head, sizeof head);
  const unsigned char good[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4};
  memcpy(p + sizeof head, good, sizeof good);
  size_t n = sizeof head + sizeof good;
  assert_int_equal(dns_packet_read(a, p, n, STR("A"), DNS_A, &r), 0);
  assert_int_equal(r.n, 1);
  assert_int_equal(r.min_ttl, 9);
  assert_int_equal(dns_packet_read(a, p, n, STR("b"), DNS_A, &r), -1);
  assert_int_equal(dns_packet_read(a, p, n, STR("a"), DNS_AAAA, &r), -1);
  for (size_t k = 0; k < n; k++)
    assert_int_equal(dns_packet_read(a, p, k, STR("a"), DNS_A, &r), -1);
  p[sizeof head + 1] = (unsigned char)sizeof head; /* a name that points to itself */
  assert_int_equal(dns_packet_read(a, p, n, STR("a"), DNS_A, &r), -1);
  p[sizeof head + 1] = 12;
  p[sizeof head + 11] = 3; /* an address of three bytes */
  assert_int_equal(dns_packet_read(a, p, n, STR("a"), DNS_A, &r), -1);
  unsigned char q[DNS_QUERY_MAX];
  assert_int_equal(dns_packet_query(q, 1, STR("a.b"), DNS_A, false, false), 12 + 5 + 4);
  assert_int_equal(dns_packet_query(q, 1, STR("a\\.b"), DNS_A, false, false), 12 + 5 + 4);
  assert_int_equal(dns_packet_query(q, 1, STR("."), DNS_NS, false, false), 12 + 1 + 4);
  assert_int_equal(dns_packet_query(q, 1, STR("a..b"), DNS_A, false, false), -1);
  char label[70];
  memset(label, 'x', sizeof label);
  assert_int_equal(dns_packet_query(q, 1, str_n(label, 64), DNS_A, true, true), -1);
  assert_true(dns_packet_query(q, 1, str_n(label, 63), DNS_A, true, true) > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_packets), cmocka_unit_test(test_query), cmocka_unit_test(test_mx), cmocka_unit_test(test_srv),
    cmocka_unit_test(test_local), cmocka_unit_test(test_names), cmocka_unit_test(test_dnsdb),
    cmocka_unit_test(test_addresses),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
