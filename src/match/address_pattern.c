/* The patterns of rewriting and retry rules: one item of an address list, which sets captures. */
#include "base/ascii.h"
#include "log/log.h"
#include "match/list.h"

/* $0 is the address, $1 what the `*` of the local part stands for, then what the domain's pattern captured. */
static void join_captures(struct match *m, const struct item *i) {
  struct expand_vars *v = &m->c->expand;
  struct str address = m->original;
  ptrdiff_t at = str_rfind_byte(address, '@');
  bool wild = str_is_set(i->local) && i->local.len && i->local.p[0] == '*';
  int n = v->captures > 1 ? v->captures - 1 : 0, first = wild ? 2 : 1;
  if (n + first > CAPTURES_MAX)
    n = CAPTURES_MAX - first;
  memmove(v->capture + first, v->capture + 1, (size_t)n * sizeof *v->capture);
  v->capture[0] = address;
  if (wild && at >= 0) {
    size_t fixed = i->local.len - 1;
    v->capture[1] = str_slice(address, 0, (size_t)at > fixed ? (size_t)at - fixed : 0);
  }
  v->captures = n + first;
}

int match_address_pattern(struct ctx *c, const struct option_expr *pattern, struct str address) {
  struct str text;
  unsigned flags;
  int r = match_expand(c, pattern, &text, &flags);
  if (r == OUTCOME_FORCED || (r == OUTCOME_OK && !str_is_set(text)))
    return OUTCOME_FAIL;
  if (r != OUTCOME_OK) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand \"%.*s\" while checking a list: %.*s",
      STRF(pattern->text), STRF(c->error));
    return OUTCOME_DEFER;
  }
  struct str lower = str_lower(c->arena, address);
  ptrdiff_t at = str_rfind_byte(address, '@');
  size_t split = at < 0 ? address.len : (size_t)at;
  struct match m = {.c = c, .kind = LIST_ADDRESS, .subject = lower, .caseful = true, .captures = true};
  m.original = str_cat(c->arena, str_slice(address, 0, split), str_from(lower, split));
  m.value = STR_UNSET;
  struct item item = {0};
  text = str_trim(text);
  bool negate = text.len && text.p[0] == '!';
  item_compile(c->arena, LIST_ADDRESS, negate ? str_ltrim(str_from(text, 1)) : text, LIST_TRANSIENT, &item);
  item.negate = negate;
  struct list list = {.kind = LIST_ADDRESS, .v = &item, .n = 1, .text = text};
  c->expand.captures = 0;
  r = match_list(&m, &list);
  if (r == OUTCOME_OK && item.type == ITEM_SPLIT)
    join_captures(&m, &item);
  return r;
}
