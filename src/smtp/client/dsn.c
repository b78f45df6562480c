/* DSN parameters for servers that know them (RFC 3461): as received. */

#include "base/buf.h"
#include "base/idn.h"
#include "message/message.h"
#include "route/options.h"
#include "smtp/client/client.h"

struct str smtp_dsn_mail(struct ctx *c, const struct smtp_connection *n) {
  const struct message *m = c->message;
  struct buf b;
  if (!n->offers.dsn)
    return STR_EMPTY;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  if (m->dsn_ret)
    buf_printf(&b, " RET=%s", m->dsn_ret == DSN_RET_HDRS ? "HDRS" : "FULL");
  if (str_is_set(m->dsn_envid) && m->dsn_envid.len)
    buf_printf(&b, " ENVID=%.*s", STRF(m->dsn_envid));
  return buf_str(&b);
}

/* UTF-8 as \x{…}, which any server that knows DSN may be told (RFC 6533, section 3). */
static void add_orcpt(struct buf *b, struct str s) {
  bool utf8 = utf8_valid(s);
  for (size_t i = 0; i < s.len; i++) {
    unsigned char c = (unsigned char)s.p[i];
    if (c < 0x80 || !utf8) {
      buf_add_byte(b, s.p[i]);
      continue;
    }
    int more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    uint32_t v = c & (0x3fu >> more);
    while (more-- > 0)
      v = v << 6 | ((unsigned char)s.p[++i] & 0x3f);
    buf_printf(b, "\\x{%X}", v);
  }
}

struct str smtp_dsn_rcpt(struct ctx *c, const struct smtp_connection *n, struct address *a) {
  static const struct {
    unsigned flag;
    const char *word;
  } words[] = {{DSN_NOTIFY_NEVER, "NEVER"}, {DSN_NOTIFY_SUCCESS, "SUCCESS"}, {DSN_NOTIFY_FAILURE, "FAILURE"}, {DSN_NOTIFY_DELAY, "DELAY"}};
  struct buf b;
  a->used_dsn = n->offers.dsn && !a->dsn_ended && !(a->router && router_options(a->router)->dsn_lasthop);
  if (!a->used_dsn)
    return STR_EMPTY;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  const char *before = " NOTIFY=";
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (a->dsn_flags & words[i].flag) {
      buf_printf(&b, "%s%s", before, words[i].word);
      before = ",";
    }
  /* "NOTIFY=" with nothing is newer than the RFC; what it means has a word there. */
  if (!b.len && a->dsn_flags & DSN_NOTIFY_EMPTY)
    buf_add_c(&b, " NOTIFY=NEVER");
  if (str_is_set(a->dsn_orcpt) && a->dsn_orcpt.len) {
    buf_add_c(&b, " ORCPT=");
    add_orcpt(&b, a->dsn_orcpt);
  }
  return buf_str(&b);
}
