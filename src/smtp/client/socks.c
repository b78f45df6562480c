#include "smtp/client/socks.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "core/ctx.h"
#include "loop/stream.h"
#include "match/match.h"

#define VERSION 5
#define MESSAGE_MAX 600

static bool number(struct str value, int64_t max, int64_t *ret) {
  uint64_t n;
  if (!str_to_u64(value, &n) || n == 0 || n > (uint64_t)max)
    return false;
  *ret = (int64_t)n;
  return true;
}

static bool set(struct socks_proxy *p, struct str name, struct str value) {
  int64_t n = 0;
  bool ok = true;
  if (str_eq_c(name, "auth")) {
    p->with_name = str_eq_c(value, "name");
    return p->with_name || str_eq_c(value, "none");
  }
  if (str_eq_c(name, "name") || str_eq_c(name, "pass")) {
    *(str_eq_c(name, "name") ? &p->name : &p->pass) = value;
    return value.len <= SOCKS_NAME_MAX;
  }
  if (str_eq_c(name, "port") && (ok = number(value, 65535, &n)))
    p->port = (int)n;
  else if (ok && str_eq_c(name, "tmo") && (ok = number(value, 3600, &n)))
    p->timeout = n;
  else if (ok && str_eq_c(name, "pri") && (ok = number(value, 1000000, &n)))
    p->pri = (int)n;
  else if (ok && str_eq_c(name, "weight") && (ok = number(value, 1000000, &n)))
    p->weight = (int)n;
  else
    return false;
  return true;
}

bool socks_proxy_parse(struct ctx *c, struct str item, struct socks_proxy *ret, struct str *ret_error) {
  struct list_iter i;
  struct str word;
  *ret = (struct socks_proxy){.port = 1080, .pri = 1, .weight = 1, .timeout = 5, .name = STR_EMPTY, .pass = STR_EMPTY};
  list_iter_init(&i, c->arena, item);
  if (!list_changes_separator(item))
    i.sep = ' ';
  if (!list_next(&i, &word) || !ip_parse(word, &ret->ip)) {
    *ret_error = str_printf(c->arena, "no IP address at the start of \"%.*s\" in socks_proxy", STRF(item));
    return false;
  }
  ret->address = ip_text(c->arena, &ret->ip);
  while (list_next(&i, &word)) {
    struct str value = word, name;
    if (!word.len)
      continue;
    name = str_lower(c->arena, str_cut(&value, '='));
    if (str_is_set(value) && set(ret, name, value))
      continue;
    *ret_error = str_printf(c->arena, "bad option \"%.*s\" in socks_proxy", STRF(name));
    return false;
  }
  return true;
}

struct talk {
  struct ctx *c;
  struct stream *s;
  usec_t deadline;
  struct str *error;
};

static int refused(struct talk *t, int e, const char *what) {
  *t->error = str_c(what);
  return e;
}

static int say(struct talk *t, struct buf *b) {
  int e = stream_write(t->s, buf_str(b));
  return e ? e : stream_flush(t->s);
}

static int hear(struct talk *t, unsigned char *to, size_t n) { return stream_read_exact(t->s, (char *)to, n, t->deadline); }

/* RFC 1928, section 3: one method is offered. *ret_name: it was name and password; a proxy that wants nothing may say so. */
static int choose_method(struct talk *t, bool with_name, bool *ret_name) {
  unsigned char answer[2];
  struct buf b;
  buf_init(&b, t->c->arena, MESSAGE_MAX);
  buf_add_byte(&b, VERSION);
  buf_add_byte(&b, 1);
  buf_add_byte(&b, with_name ? 2 : 0);
  int e = say(t, &b);
  if (!e)
    e = hear(t, answer, sizeof answer);
  if (e)
    return e;
  if (answer[0] != VERSION)
    return refused(t, -EPROTO, "the proxy does not speak SOCKS5");
  *ret_name = answer[1] == 2;
  return answer[1] == 0 || (with_name && *ret_name) ? 0 : refused(t, -EACCES, "the proxy does not accept the authentication method");
}

/* RFC 1929. */
static int give_name(struct talk *t, const struct socks_proxy *p) {
  unsigned char answer[2];
  struct buf b;
  buf_init(&b, t->c->arena, MESSAGE_MAX);
  buf_add_byte(&b, 1);
  buf_add_byte(&b, (char)p->name.len);
  buf_add(&b, p->name);
  buf_add_byte(&b, (char)p->pass.len);
  buf_add(&b, p->pass);
  int e = say(t, &b);
  if (!e)
    e = hear(t, answer, sizeof answer);
  if (e)
    return e;
  return answer[1] == 0 ? 0 : refused(t, -EACCES, "the proxy refuses the name and password");
}

static int take_bound(struct talk *t, struct ip_addr *ret_ip, int *ret_port) {
  unsigned char head[4], address[256], port[2], n;
  size_t size;
  int e = hear(t, head, sizeof head);
  if (e)
    return e;
  if (head[0] != VERSION)
    return refused(t, -EPROTO, "the proxy does not speak SOCKS5");
  static const char *const why[] = {"", "general failure of the proxy", "the proxy does not allow the connection", "network unreachable",
      "host unreachable", "connection refused", "TTL expired", "command not supported by the proxy", "address type not supported by the proxy"};
  if (head[1])
    return refused(t, head[1] == 5 ? -ECONNREFUSED : -EACCES, head[1] < sizeof why / sizeof *why ? why[head[1]] : "unknown answer of the proxy");
  *ret_ip = (struct ip_addr){0};
  if (head[3] == 3 && (e = hear(t, &n, 1)))
    return e;
  size = head[3] == 1 ? 4 : head[3] == 4 ? 16 : head[3] == 3 ? n : 0;
  if (!size)
    return refused(t, -EPROTO, "the proxy's answer has no address");
  if ((e = hear(t, address, size)) || (e = hear(t, port, sizeof port)))
    return e;
  *ret_port = port[0] << 8 | port[1];
  if (head[3] != 3) {
    ret_ip->family = size == 4 ? AF_INET : AF_INET6;
    memcpy(ret_ip->bytes, address, size);
  }
  return 0;
}

int socks_greet(struct ctx *c, struct stream *s, const struct socks_proxy *p, const struct ip_addr *to, int port, usec_t deadline,
    struct ip_addr *ret_ip, int *ret_port, struct str *ret_error) {
  struct talk t = {c, s, deadline, ret_error};
  *ret_error = STR_UNSET;
  bool named = false;
  int e = choose_method(&t, p->with_name, &named);
  if (!e && named)
    e = give_name(&t, p);
  if (e)
    return e;
  struct buf b;
  size_t n = to->family == AF_INET6 ? 16 : 4;
  buf_init(&b, c->arena, MESSAGE_MAX);
  const char head[] = {VERSION, 1, 0, n == 4 ? 1 : 4};
  buf_add_n(&b, head, sizeof head);
  buf_add_n(&b, (const char *)to->bytes, n);
  buf_add_byte(&b, (char)(port >> 8));
  buf_add_byte(&b, (char)(port & 255));
  e = say(&t, &b);
  return e ? e : take_bound(&t, ret_ip, ret_port);
}
