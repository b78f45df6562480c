/* ${lookup …} and ${quote…:}. */
#include "expand/items.h"

#include "base/ascii.h"
#include "expand/internal.h"
#include "lookup/lookup.h"

struct lookup_item {
  const struct expr *key; /* NULL: query style */
  const struct expr *file_or_query;
  struct lookup_spec spec;
  const struct expand_branches *branches;
};

static const void *compile_lookup(struct expand_compiler *k, const struct expand_item_def *def) {
  struct lookup_item *l = arena_new_of(k->arena, struct lookup_item);
  if (expand_accept(k, '{')) {
    if ((l->key = expand_compile_string(k)) == NULL)
      return NULL;
  }
  /* The type: all up to the brace, blanks at its end apart. Names hold neither braces nor blanks. */
  char first = expand_peek(k);
  struct str rest = expand_rest(k), type, error;
  if (!ascii_is_alpha(first))
    return expand_compile_error(k, "missing lookup type");
  ptrdiff_t brace = str_find_byte(rest, '{');
  size_t n = 0, end = brace < 0 ? rest.len : (size_t)brace;
  while (n < end && !ascii_is_space(rest.p[n]))
    n++;
  type = str_slice(rest, 0, n);
  expand_advance(k, n);
  if (lookup_parse(k->arena, str_dup(k->arena, type), &l->spec, &error) != 0)
    return expand_compile_error(k, "%.*s", STRF(error));
  bool query = (l->spec.def->flags & LOOKUP_QUERY) != 0;
  if (query && l->key != NULL && !(l->spec.def->flags & LOOKUP_FILE))
    return expand_compile_error(
        k, "a single key was given for lookup type \"%s\", which is not a single-key lookup type", l->spec.def->name);
  if (!query && l->key == NULL)
    return expand_compile_error(k, "missing {key} for single-key \"%s\" lookup", l->spec.def->name);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for lookup file-or-query arg");
  if ((l->file_or_query = expand_compile_string(k)) == NULL)
    return NULL;
  l->branches = expand_compile_branches(k, def->name);
  return l->branches == NULL ? NULL : l;
}

/* A text inside of quotes, as error texts show it. */
static struct str quoted(struct arena *a, struct str s) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < s.len; i++) {
    if (s.p[i] == '"' || s.p[i] == '\\')
      buf_add_byte(&b, '\\');
    buf_add_byte(&b, s.p[i]);
  }
  return str_untainted(buf_str(&b));
}

static int eval_lookup(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_LOOKUP, "lookup expansions are not permitted"))
    return OUTCOME_ERROR;
  const struct lookup_item *l = args->custom;
  struct str key = STR_EMPTY, file, value = STR_EMPTY;
  int rc = l->key != NULL ? expand_arg(c, l->key, &key) : 0;
  if (rc == 0)
    rc = expand_arg(c, l->file_or_query, &file);
  if (rc != 0)
    return rc;
  if (l->key == NULL) {
    key = file;
    file = STR_UNSET;
  }
  struct expand_scope *saved = expand_scope_begin(c);
  rc = lookup_find(c, &l->spec, file, key, true, &value);
  if (rc == OUTCOME_OK || rc == OUTCOME_FAIL) {
    if (rc == OUTCOME_OK)
      c->expand.value = value;
    struct expand_args branches = {.branches = l->branches};
    rc = expand_yes_no(c, &branches, "lookup", rc == OUTCOME_OK, value, out);
  } else if (rc == OUTCOME_DEFER) {
    struct str why = quoted(c->arena, c->error);
    c->lookup_deferred = true;
    ctx_fail(c, OUTCOME_DEFER, "lookup of \"%.*s\" gave DEFER: \"%.*s\"", STRF(key), STRF(why));
  }
  expand_scope_end(c, saved);
  return rc;
}

const struct expand_item_def lookup_items[] = {
  {"lookup", 0, 0, 0, compile_lookup, eval_lookup},
  {0},
};
