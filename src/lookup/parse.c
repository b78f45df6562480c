/* The text of a lookup type: "partial3(.)lsearch*@,ret=full". */
#include "base/ascii.h"
#include "core/module.h"
#include "lookup/lookup.h"

const struct lookup_def *lookup_by_name(struct str name) {
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct lookup_def *const *d = modules[i]->lookups; d && *d; d++)
      if (str_eq_c(name, (*d)->name))
        return *d;
  return NULL;
}

uint32_t lookup_quote_mark(const struct lookup_def *def) {
  uint32_t n = 1;
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct lookup_def *const *d = modules[i]->lookups; d && *d; d++, n++)
      if (*d == def)
        return n << STR_QUOTED_SHIFT;
  return 0;
}

int lookup_quote(struct ctx *c, const struct lookup_def *def, struct str text, struct str option, struct buf *out) {
  struct buf part;
  buf_init(&part, c->arena, BUF_MAX_EXPANSION);
  if (def->quote == NULL) {
    if (str_is_set(option))
      return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" unrecognized after \"${quote_%s\"", STRF(option), def->name);
    buf_add(&part, text);
  } else {
    int r = def->quote(c, text, option, &part);
    if (r != OUTCOME_OK)
      return r;
    part.taint = str_is_tainted(text) ? (STR_TAINTED | lookup_quote_mark(def)) : 0;
  }
  buf_add(out, buf_str(&part));
  return OUTCOME_OK;
}

struct str lookup_option(struct str options, const char *name) {
  struct str rest = options;
  while (str_is_set(rest) && rest.len > 0) {
    struct str value = str_cut(&rest, ',');
    struct str key = str_cut(&value, '=');
    if (str_eq_c(str_trim(key), name))
      return str_is_set(value) ? str_trim(value) : STR_EMPTY;
  }
  return STR_UNSET;
}

/* "partial", an optional number, then "-" or "(affix)"; *type is left behind it. */
static bool parse_partial(struct str *type, struct lookup_spec *ret) {
  struct str s = str_from(*type, 7);
  size_t n = 0;
  while (n < s.len && ascii_is_digit(s.p[n]))
    n++;
  ret->partial = 2;
  if (n > 0) {
    uint64_t v;
    if (!str_to_u64(str_slice(s, 0, n), &v) || v > 1000)
      return false;
    ret->partial = (int)v;
    s = str_from(s, n);
  }
  ret->affix = STR("*.");
  if (s.len > 0 && s.p[0] == '-') {
    *type = str_from(s, 1);
    return true;
  }
  if (s.len == 0 || s.p[0] != '(')
    return false;
  ptrdiff_t end = str_find_byte(s, ')');
  if (end < 0)
    return false;
  for (ptrdiff_t i = 1; i < end; i++)
    if (!ascii_is_punct(s.p[i]))
      return false;
  ret->affix = str_slice(s, 1, (size_t)end);
  *type = str_from(s, (size_t)end + 1);
  return true;
}

int lookup_parse(struct arena *a, struct str type, struct lookup_spec *ret, struct str *ret_error) {
  *ret = (struct lookup_spec){.partial = -1, .affix = STR_UNSET, .options = STR_UNSET};
  struct str whole = type = str_trim(type);
  struct str name = str_cut(&type, ',');
  ret->options = str_is_set(type) ? str_dup(a, type) : STR_UNSET;
  if (str_starts(name, STR("partial")) && !parse_partial(&name, ret)) {
    *ret_error = str_printf(a, "format error in lookup type \"%.*s\"", STRF(whole));
    return OUTCOME_ERROR;
  }
  struct str affix = str_is_set(ret->affix) ? str_dup(a, ret->affix) : STR_UNSET;
  ret->affix = affix;
  ptrdiff_t star = str_find_byte(name, '*');
  if (star >= 0) {
    ret->defaulting = str_starts(str_from(name, (size_t)star), STR("*@")) ? LOOKUP_STAR_AT : LOOKUP_STAR;
    name = str_slice(name, 0, (size_t)star);
  }
  ret->def = lookup_by_name(name);
  if (ret->def == NULL) {
    *ret_error = str_printf(a, "unknown lookup type \"%.*s\"", STRF(name));
    return OUTCOME_ERROR;
  }
  if (!(ret->def->flags & LOOKUP_QUERY))
    return OUTCOME_OK;
  if (ret->partial >= 0) {
    *ret_error = str_printf(a, "\"partial\" is not permitted for lookup type \"%s\"", ret->def->name);
    return OUTCOME_ERROR;
  }
  if (ret->defaulting) {
    *ret_error = str_printf(a, "defaults using \"*\" or \"*@\" are not permitted for lookup type \"%.*s\"", STRF(whole));
    return OUTCOME_ERROR;
  }
  return OUTCOME_OK;
}
