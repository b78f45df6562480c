/* if, and the items that walk a list: map, filter, reduce, sort, listextract. */
#include "expand/items.h"

#include <stdlib.h>

#include "base/ascii.h"
#include "expand/internal.h"
#include "match/match.h"

struct if_item {
  const struct expand_condition *condition;
  const struct expand_branches *branches;
};

static const void *compile_if(struct expand_compiler *k, const struct expand_item_def *def) {
  struct if_item *i = arena_new_of(k->arena, struct if_item);
  i->condition = expand_compile_condition(k);
  if (i->condition == NULL)
    return NULL;
  i->branches = expand_compile_branches(k, def->name);
  return i->branches == NULL ? NULL : i;
}

static int eval_if(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct if_item *i = args->custom;
  struct expand_args branches = {.branches = i->branches};
  struct expand_scope *saved = expand_scope_begin(c);
  bool truth;
  int rc = expand_condition(c, i->condition, &truth);
  if (rc == 0)
    rc = expand_yes_no(c, &branches, "if", truth, STR("true"), out);
  expand_scope_end(c, saved);
  return rc;
}

void list_builder_add(struct list_builder *b, struct str item) {
  if (b->started) {
    buf_add_byte(b->out, b->sep);
    /* What begins with a separator would read as a doubled one. */
    if (item.len == 0 || item.p[0] == b->sep)
      buf_add_byte(b->out, ' ');
  }
  b->started = true;
  for (ptrdiff_t at; (at = str_find_byte(item, b->sep)) >= 0; item = str_from(item, (size_t)at + 1)) {
    buf_add(b->out, str_slice(item, 0, (size_t)at + 1));
    buf_add_byte(b->out, b->sep);
  }
  buf_add(b->out, item);
}

int fail_inside(struct ctx *c, int rc, const char *what, const char *name) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < c->error.len; i++) {
    if (c->error.p[i] == '"' || c->error.p[i] == '\\')
      buf_add_byte(&b, '\\');
    buf_add_byte(&b, c->error.p[i]);
  }
  return ctx_fail(c, rc, "\"%.*s\" inside \"%s\" %s", STRF(buf_str(&b)), name, what);
}

/* {list} {…} of map, filter and reduce. */
struct list_item {
  const struct expr *list, *start, *step;
  const struct expand_condition *condition;
  bool literal_separator;
};

static const void *compile_list(struct expand_compiler *k, const struct expand_item_def *def) {
  struct list_item *l = arena_new_of(k->arena, struct list_item);
  bool filter = def->name[0] == 'f', reduce = def->name[0] == 'r';
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for first arg of %s", def->name);
  l->literal_separator = list_changes_separator(expand_rest(k));
  if ((l->list = expand_compile_string(k)) == NULL)
    return NULL;
  if (reduce) {
    if (!expand_accept(k, '{'))
      return expand_compile_error(k, "missing '{' for second arg of reduce");
    if ((l->start = expand_compile_string(k)) == NULL)
      return NULL;
  }
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for last arg of %s", def->name);
  bool skipping = expand_compiler_skipping(k, true);
  if (filter)
    l->condition = expand_compile_condition(k);
  else
    l->step = expand_compile_string(k);
  expand_compiler_skipping(k, skipping);
  if (l->condition == NULL && l->step == NULL)
    return expand_compile_inside(k, "inside \"%s\" item", def->name);
  if (filter && !expand_accept(k, '}'))
    return expand_compile_error(k,
        "missing } at end of condition or expression inside \"%s\"; could be an unquoted } in the content", def->name);
  if (!expand_accept(k, '}'))
    return expand_compile_error(k, "missing } at end of \"%s\"", def->name);
  return l;
}

static void start_list(struct ctx *c, struct list_iter *i, struct str text, bool literal_separator) {
  if (literal_separator)
    list_iter_init_literal(i, c->arena, text);
  else
    list_iter_init(i, c->arena, text);
}

static int walk_list(struct ctx *c, const struct expand_item_def *def, const struct list_item *l, struct str list,
    struct buf *out) {
  struct list_iter it;
  struct str item, result;
  start_list(c, &it, list, l->literal_separator);
  struct list_builder b = {out, it.sep, false};
  while (list_next(&it, &item)) {
    c->expand.item = item;
    struct str outer = c->expand.value;
    int step = expand_step(c);
    if (step != 0)
      return step;
    if (l->condition != NULL) {
      bool truth;
      int rc = expand_condition(c, l->condition, &truth);
      if (rc != 0)
        return ctx_fail(c, rc, "%.*s inside \"%s\" condition", STRF(c->error), def->name);
      c->expand.value = outer;
      if (truth)
        list_builder_add(&b, item);
      continue;
    }
    int rc = expand_arg(c, l->step, &result);
    if (rc != 0)
      return fail_inside(c, rc, "item", def->name);
    if (l->start != NULL)
      c->expand.value = result;
    else
      list_builder_add(&b, result);
    if (out->overflow)
      return ctx_fail(c, OUTCOME_ERROR, "expansion result is too long");
  }
  if (l->start != NULL)
    buf_add(out, c->expand.value);
  return 0;
}

static int eval_list(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct list_item *l = args->custom;
  struct str list, start;
  int rc = expand_arg(c, l->list, &list);
  if (rc == 0 && l->start != NULL)
    rc = expand_arg(c, l->start, &start);
  if (rc != 0)
    return rc;
  struct expand_scope *saved = expand_scope_begin(c);
  if (l->start != NULL)
    c->expand.value = start;
  rc = walk_list(c, def, l, list, out);
  expand_scope_end(c, saved);
  return rc;
}

struct sort_item {
  const struct expr *list, *extractor, *comparator;
  bool literal_separator;
};

static const void *compile_sort(struct expand_compiler *k, const struct expand_item_def *def) {
  struct sort_item *s = arena_new_of(k->arena, struct sort_item);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for list arg of sort");
  s->literal_separator = list_changes_separator(expand_rest(k));
  if ((s->list = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for comparator arg of sort");
  if ((s->comparator = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for extractor arg of sort");
  if ((s->extractor = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '}'))
    return expand_compile_error(k, "missing } at end of \"sort\"");
  return s;
}

struct sort_entry {
  struct str item, key;
  int64_t number;
  size_t place;
};

struct sort_order {
  bool numeric, caseless, or_equal;
  int direction;
};

static bool sort_order_parse(struct str name, struct sort_order *ret) {
  static const char *const known[] = {"<", "<=", ">", ">=", "lt", "lti", "le", "lei", "gt", "gti", "ge", "gei"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (str_eq_c(name, known[i])) {
      ret->numeric = i < 4;
      ret->caseless = name.len == 3;
      ret->or_equal = known[i][1] == '=' || known[i][1] == 'e';
      ret->direction = known[i][0] == '<' || known[i][0] == 'l' ? 1 : -1;
      return true;
    }
  return false;
}

static int sort_compare(const void *pa, const void *pb, void *arg) {
  const struct sort_entry *a = pa, *b = pb;
  const struct sort_order *o = arg;
  int r = o->numeric ? (a->number > b->number) - (a->number < b->number)
          : o->caseless ? str_icmp(a->key, b->key)
                        : str_cmp(a->key, b->key);
  if (r != 0)
    return r * o->direction;
  r = (a->place > b->place) - (a->place < b->place);
  return o->or_equal ? -r : r;
}

static int sort_collect(struct ctx *c, const struct sort_item *s, struct list_iter *it, const struct sort_order *order,
    struct sort_entry **ret, size_t *ret_n) {
  VEC(struct sort_entry) v = {0};
  struct str item;
  while (list_next(it, &item)) {
    struct sort_entry e = {.item = item, .place = v.n};
    c->expand.item = item;
    int rc = expand_step(c);
    if (rc != 0)
      return rc;
    if (expand_arg(c, s->extractor, &e.key) != 0)
      return ctx_fail(c, OUTCOME_ERROR, "field-extract in sort: \"%.*s\"", STRF(s->extractor->source));
    /* What is no number sorts as 0. */
    if (order->numeric && expand_to_int(c, e.key, &e.number) != 0)
      e.number = 0;
    vec_push(c->arena, &v, e);
  }
  *ret = v.v;
  *ret_n = v.n;
  return 0;
}

static int eval_sort(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct sort_item *s = args->custom;
  struct str list, comparator;
  int rc = expand_arg(c, s->list, &list);
  if (rc == 0)
    rc = expand_arg(c, s->comparator, &comparator);
  if (rc != 0)
    return rc;
  struct sort_order order;
  char first = comparator.len > 0 ? comparator.p[0] : '\0';
  if (!ascii_is_alpha(first) && first != '=' && first != '<' && first != '>')
    return ctx_fail(c, OUTCOME_ERROR, "condition name expected, but found \"%.*s\"", STRF(comparator));
  if (!sort_order_parse(comparator, &order))
    return ctx_fail(c, OUTCOME_ERROR, "comparator not handled for sort");
  struct list_iter it;
  struct sort_entry *v = NULL;
  size_t n = 0;
  start_list(c, &it, list, s->literal_separator);
  struct list_builder b = {out, it.sep, false};
  struct expand_scope *saved = expand_scope_begin(c);
  rc = sort_collect(c, s, &it, &order, &v, &n);
  expand_scope_end(c, saved);
  if (rc != 0)
    return rc;
  if (n > 1)
    qsort_r(v, n, sizeof *v, sort_compare, &order);
  for (size_t i = 0; i < n; i++)
    list_builder_add(&b, v[i].item);
  return 0;
}

/* {number}{list}{yes}{no}: the separator in front of the list must be seen as written. */
struct listextract_item {
  const struct expr *number, *list;
  const struct expand_branches *branches;
  bool literal_separator;
};

static const void *compile_listextract(struct expand_compiler *k, const struct expand_item_def *def) {
  struct listextract_item *l = arena_new_of(k->arena, struct listextract_item);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for arg 1 of listextract");
  if ((l->number = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for arg 2 of listextract");
  l->literal_separator = list_changes_separator(expand_rest(k));
  if ((l->list = expand_compile_string(k)) == NULL)
    return NULL;
  l->branches = expand_compile_branches(k, def->name);
  return l->branches == NULL ? NULL : l;
}

/* Item number n of the list, from its end when negative. */
static bool list_pick(struct list_iter *it, int64_t n, struct str *ret) {
  if (n == 0)
    return false;
  if (n < 0) {
    struct list_iter counting = *it;
    struct str ignored;
    n++;
    while (list_next(&counting, &ignored))
      n++;
    if (n < 1)
      return false;
  }
  while (list_next(it, ret))
    if (--n == 0)
      return true;
  return false;
}

static int eval_listextract(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct listextract_item *l = args->custom;
  struct str number, list, value = STR_EMPTY;
  int rc = expand_arg(c, l->number, &number);
  if (rc != 0)
    return rc;
  number = str_trim(number);
  int64_t n;
  if (number.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "first argument of \"listextract\" must not be empty");
  /* A lone minus is zero; a plus is none. */
  if (str_eq_c(number, "-"))
    n = 0;
  else if (number.p[0] == '+' || !str_to_i64(number, &n) || n == INT64_MIN)
    return ctx_fail(c, OUTCOME_ERROR, "first argument of \"listextract\" must be numeric");
  if ((rc = expand_arg(c, l->list, &list)) != 0)
    return rc;
  struct list_iter it;
  start_list(c, &it, list, l->literal_separator);
  bool found = list_pick(&it, n, &value);
  struct expand_scope *saved = expand_scope_begin(c);
  if (found)
    c->expand.value = value;
  struct expand_args branches = {.branches = l->branches};
  rc = expand_yes_no(c, &branches, "listextract", found, value, out);
  expand_scope_end(c, saved);
  return rc;
}

const struct expand_item_def list_items[] = {
  {"filter", 0, 0, 0, compile_list, eval_list},
  {"if", 0, 0, 0, compile_if, eval_if},
  {"listextract", 0, 0, 0, compile_listextract, eval_listextract},
  {"map", 0, 0, 0, compile_list, eval_list},
  {"reduce", 0, 0, 0, compile_list, eval_list},
  {"sort", 0, 0, 0, compile_sort, eval_sort},
  {0},
};
