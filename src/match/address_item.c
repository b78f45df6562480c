/* Items of address lists (manual, "Address lists"). */
#include "log/log.h"
#include "match/list.h"

#define CHAIN_MAX 50

/* One pattern for the local part: literal or *suffix. */
static bool local_part_matches(struct str pattern, struct str local, bool caseful) {
  if (pattern.len > 0 && pattern.p[0] == '*') {
    pattern = str_from(pattern, 1);
    if (local.len < pattern.len)
      return false;
    local = str_from(local, local.len - pattern.len);
  }
  return caseful ? str_eq(pattern, local) : str_ieq(pattern, local);
}

static int match_split(struct match *m, const struct item *i) {
  struct ctx *c = m->c;
  struct str s = m->caseful ? m->original : m->subject;
  ptrdiff_t at = str_rfind_byte(s, '@');
  if (at < 0)
    return OUTCOME_FAIL;
  if (str_is_set(i->local) && !local_part_matches(i->local, str_slice(s, 0, (size_t)at), m->caseful))
    return OUTCOME_FAIL;
  int r = match_item_domain(m, i->domain, str_from(m->subject, (size_t)at + 1));
  if (r == OUTCOME_OK && str_is_set(m->value)) {
    struct str local = str_is_set(i->local) ? i->local : STR_EMPTY;
    m->value = str_cat(c->arena, str_cat(c->arena, local, STR("@")), m->value);
  }
  return r;
}

/* The local parts that @@lookup gave for a domain. *ret_chain: the next key, if the last item is ">key". */
static int match_local_parts(struct match *m, struct str list, struct str local, struct str *ret_chain) {
  struct list_iter iter;
  struct str s;
  *ret_chain = STR_UNSET;
  list_iter_init(&iter, m->c->arena, list);
  while (list_next(&iter, &s)) {
    if (s.len > 1 && s.p[0] == '>') {
      struct list_iter peek = iter;
      struct str next;
      if (!list_next(&peek, &next)) {
        *ret_chain = str_ltrim(str_from(s, 1));
        return OUTCOME_FAIL;
      }
    }
    bool negate = s.len > 0 && s.p[0] == '!';
    if (negate)
      s = str_ltrim(str_from(s, 1));
    struct item item;
    item_compile(m->c->arena, LIST_STRING, s, LIST_IN_FILE | LIST_TRANSIENT, &item);
    int r = match_item_string(m, &item, local, m->caseful);
    if (r != OUTCOME_FAIL)
      return r == OUTCOME_OK && negate ? OUTCOME_FAIL : r;
  }
  return OUTCOME_FAIL;
}

static int match_atat(struct match *m, const struct item *i) {
  struct ctx *c = m->c;
  struct str s = m->caseful ? m->original : m->subject;
  ptrdiff_t at = str_rfind_byte(s, '@');
  if (at < 0)
    return OUTCOME_FAIL;
  struct str local = str_slice(s, 0, (size_t)at);
  struct str key = str_from(m->subject, (size_t)at + 1);
  for (int n = 0; n < CHAIN_MAX; n++) {
    struct str data, chain;
    int r = match_lookup(m, i, key, false, &data);
    if (r != OUTCOME_OK)
      return r;
    r = match_local_parts(m, data, local, &chain);
    if (r != OUTCOME_FAIL || !str_is_set(chain) || (i->lookup.def->flags & LOOKUP_QUERY))
      return r;
    key = chain;
  }
  ctx_fail(c, OUTCOME_DEFER, "Loop detected in lookup of local part of %.*s in %.*s", STRF(s), STRF(i->text));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
  return OUTCOME_DEFER;
}

static int match_whole_lookup(struct match *m, const struct item *i) {
  struct item whole = *i;
  if (i->lookup.partial >= 0) {
    log_write(LOG_MAIN | LOG_PANIC, m->c->message,
      "partial matching is not applicable to whole-address lookups: ignored \"partial-\" in \"%.*s\"", STRF(i->text));
    whole.lookup.partial = -1;
  }
  return match_item_string(m, &whole, m->caseful ? m->original : m->subject, m->caseful);
}

/* What is neither empty nor has a domain is no address: nothing matches it. */
static bool is_no_address(struct match *m, const struct item *i) {
  if (m->subject.len == 0 || str_rfind_byte(m->subject, '@') >= 0)
    return false;
  if (!m->c->is_test)
    log_write(LOG_MAIN | LOG_PANIC, m->c->message,
        "no @ found in the subject of an address list match: subject=\"%.*s\" pattern=\"%.*s\"",
        STRF(m->caseful ? m->original : m->subject), STRF(i->text));
  return true;
}

int match_item_address(struct match *m, const struct item *i) {
  if (is_no_address(m, i))
    return OUTCOME_FAIL;
  switch (i->type) {
  case ITEM_EMPTY:
    if (m->subject.len > 0)
      return OUTCOME_FAIL;
    m->value = STR_EMPTY;
    return OUTCOME_OK;
  case ITEM_SPLIT:
    return match_split(m, i);
  case ITEM_ATAT:
    return match_atat(m, i);
  case ITEM_LOOKUP:
    return match_whole_lookup(m, i);
  default:
    return match_item_string(m, i, m->caseful ? m->original : m->subject, m->caseful);
  }
}
