#include "transport/bsmtp.h"

#include "base/buf.h"
#include "message/message.h"
#include "transport/options.h"

void bsmtp_wrap(struct ctx *c, const struct address *chain, struct str *prefix, struct str *suffix) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  buf_add(&b, *prefix);
  buf_printf(&b, "MAIL FROM:<%.*s>\n", STRF(chain->return_path));
  for (const struct address *a = chain; a; a = a->next)
    buf_printf(&b, "RCPT TO:<%.*s>\n", STRF(transport_options(a->transport)->rcpt_include_affixes ? a->address : address_without_affixes(c->arena, a)));
  buf_add_c(&b, "DATA\n");
  *prefix = buf_str(&b);
  *suffix = str_cat(c->arena, *suffix, STR(".\n"));
}
