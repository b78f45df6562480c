/* Operators on mail addresses. */
#include "expand/items.h"

#include "base/ascii.h"
#include "expand/internal.h"
#include "message/address.h"

#define ADDRESS_FLAGS address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8)

static int eval_address(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct mail_address m;
  struct str error;
  if (address_parse(c->arena, s, ADDRESS_FLAGS, &m, &error) != 0)
    return 0;
  if (def->name[0] == 'a')
    buf_add(out, m.address);
  else if (def->name[0] == 'd')
    buf_add(out, m.domain);
  else
    buf_add(out, m.local_part);
  return 0;
}

static int eval_addresses(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct list_builder b = {out, ':', false};
  struct str text = str_ltrim(s);
  if (text.len > 0 && text.p[0] == '>') {
    if (text.len < 2)
      return ctx_fail(c, OUTCOME_ERROR, "output separator missing in expanding ${addresses:%.*s}", STRF(s));
    b.sep = text.p[1];
    text = str_from(text, 2);
  }
  struct address_walk w = {.text = text};
  while (address_walk_next(&w)) {
    struct mail_address m;
    struct str error;
    if (address_parse(c->arena, str_slice(text, w.from, w.to), ADDRESS_FLAGS, &m, &error) == 0 && m.address.len > 0)
      list_builder_add(&b, m.address);
  }
  return 0;
}

const struct expand_operator_def address_operators[] = {
  {"address", 0, false, eval_address},
  {"addresses", 0, false, eval_addresses},
  {"domain", 0, false, eval_address},
  {"local_part", 0, false, eval_address},
  {0},
};
