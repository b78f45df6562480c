#include "lookup/sql.h"

#include <netdb.h>
#include "base/ascii.h"
#include "base/ip.h"
#include "loop/fiber.h"

#define ADDRESSES_MAX 8

void sql_add_field(struct buf *b, const char *name, struct str v) {
  bool quote = v.len == 0 || v.p[0] == '"';
  for (size_t i = 0; i < v.len && !quote; i++)
    quote = ascii_is_space(v.p[i]);
  buf_add_c(b, name);
  buf_add_byte(b, '=');
  if (!quote) {
    buf_add(b, v);
  } else {
    buf_add_byte(b, '"');
    for (size_t i = 0; i < v.len; i++) {
      if (v.p[i] == '"' || v.p[i] == '\\')
        buf_add_byte(b, '\\');
      buf_add_byte(b, v.p[i]);
    }
    buf_add_byte(b, '"');
  }
  buf_add_byte(b, ' ');
}

int sql_quote(struct ctx *c, const char *type, bool doubled, struct str text, struct str option, struct buf *out) {
  static const char special[] = "\n\t\r\b'\"\\", letters[] = "ntrb'\"\\";
  if (str_is_set(option))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" unrecognized after \"${quote_%s\"", STRF(option), type);
  for (size_t i = 0; i < text.len; i++) {
    char ch = text.p[i];
    const char *at = ch ? strchr(special, ch) : NULL;
    if (ch == '\0') {
      buf_add_c(out, "\\0");
    } else if (at) {
      buf_add_byte(out, doubled && ch == '\'' ? '\'' : '\\');
      buf_add_byte(out, letters[at - special]);
    } else {
      buf_add_byte(out, ch);
    }
  }
  return OUTCOME_OK;
}

struct resolution {
  const char *name;
  struct addrinfo *found;
};

static int run_resolve(void *arg) {
  struct resolution *r = arg;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  return getaddrinfo(r->name, NULL, &hints, &r->found);
}

int sql_resolve(struct ctx *c, const char *title, struct str host, struct str *ret) {
  struct ip_addr ip;
  *ret = host;
  if (ip_parse(host, &ip))
    return 0;
  struct resolution r = {.name = str_dup_c(c->arena, host)};
  int e = fiber_offload(run_resolve, &r);
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "%s connection failed: %.*s: %s", title, STRF(host), gai_strerror(e));
  struct buf b;
  buf_init(&b, c->arena, ADDRESSES_MAX * IP_TEXT_MAX);
  int n = 0, port;
  for (const struct addrinfo *i = r.found; i && n < ADDRESSES_MAX; i = i->ai_next)
    if (ip_from_sockaddr(i->ai_addr, &ip, &port)) {
      if (n++ > 0)
        buf_add_byte(&b, ',');
      buf_add(&b, ip_text(c->arena, &ip));
    }
  freeaddrinfo(r.found);
  *ret = buf_str(&b);
  return 0;
}
