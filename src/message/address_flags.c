#include "core/ctx.h"
#include "core/main_options.h"
#include "message/address.h"
#include "message/message.h"

unsigned address_flags(const struct ctx *c, unsigned flags) {
  const struct main_options *o = c->config ? main_options(c->config) : NULL;
  if (o && o->strip_trailing_dot)
    flags |= ADDRESS_STRIP_TRAILING_DOT;
  if (o && o->strip_excess_angle_brackets)
    flags |= ADDRESS_STRIP_BRACKETS;
  if (o && o->allow_domain_literals)
    flags |= ADDRESS_ALLOW_DOMAIN_LITERAL;
  if ((o && o->allow_utf8_domains) || (c->message && c->message->smtputf8))
    flags |= ADDRESS_ALLOW_UTF8;
  return flags;
}
