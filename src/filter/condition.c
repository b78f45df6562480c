/* Conditions of filters: reading them (filter specification, "Obeying commands
conditionally" and the sections about conditions). `and` binds closer than `or`;
rows of either are one node with many parts, so that depth is brackets only. */

#include "filter/internal.h"

#define TERMS_MAX 20000

static bool or_list(struct filter_parser *p, bool top, struct str *ret_next, struct filter_test **ret);

static struct filter_test *new_test(struct filter_parser *p, enum filter_test_kind kind) {
  struct filter_test *t = arena_new_of(p->arena, struct filter_test);
  t->kind = kind;
  return t;
}

static bool bracketed(struct filter_parser *p, struct filter_test **ret) {
  struct str next;
  if (++p->depth > FILTER_DEPTH_MAX)
    return filter_parse_error(p, "conditions are nested too deeply near line %d of filter file", p->line);
  if (!or_list(p, false, &next, ret))
    return false;
  p->depth--;
  return str_eq_c(next, ")") || filter_parse_error(p, "missing \")\" at end of condition near line %d of filter file", p->line);
}

static bool personal(struct filter_parser *p, struct filter_test *t) {
  while (str_eq_c(filter_peek_word(p, true), "alias")) {
    struct str w;
    struct filter_value v;
    if (!filter_parse_word(p, true, &w) || !filter_parse_value(p, true, &v))
      return false;
    vec_push(p->arena, &t->aliases, v);
  }
  return true;
}

static bool foranyaddress(struct filter_parser *p, struct filter_test *t) {
  struct str w;
  struct filter_test *inner;
  if (!filter_parse_value(p, true, &t->left) || !filter_parse_word(p, true, &w))
    return false;
  if (!str_eq_c(w, "("))
    return filter_parse_error(p, "\"(\" expected after \"foranyaddress\" near line %d of filter file", p->line);
  if (!bracketed(p, &inner))
    return false;
  vec_push(p->arena, &t->parts, inner);
  return true;
}

static const struct test_word {
  const char *word;
  enum filter_test_kind kind;
  bool caseful;
} test_words[] = {
    {"above", TEST_ABOVE, false},     {"begin", TEST_BEGINS, false},    {"begins", TEST_BEGINS, false},
    {"BEGIN", TEST_BEGINS, true},     {"BEGINS", TEST_BEGINS, true},    {"below", TEST_BELOW, false},
    {"contain", TEST_CONTAINS, false}, {"contains", TEST_CONTAINS, false}, {"CONTAIN", TEST_CONTAINS, true},
    {"CONTAINS", TEST_CONTAINS, true}, {"end", TEST_ENDS, false},       {"ends", TEST_ENDS, false},
    {"END", TEST_ENDS, true},         {"ENDS", TEST_ENDS, true},        {"match", TEST_MATCHES, false},
    {"matches", TEST_MATCHES, false}, {"MATCH", TEST_MATCHES, true},    {"MATCHES", TEST_MATCHES, true},
    {"ABOVE", TEST_ABOVE, false},     {"BELOW", TEST_BELOW, false},       {"is", TEST_IS, false},
    {"IS", TEST_IS, true},
};

static const struct test_word *find_word(struct str w) {
  for (size_t i = 0; i < sizeof test_words / sizeof *test_words; i++)
    if (str_eq_c(w, test_words[i].word))
      return &test_words[i];
  return NULL;
}

/* `is`, `is not`, `does not` and the like in front of the operator; "is" alone is one. */
static bool operator_word(struct filter_parser *p, struct filter_test *t) {
  struct str w;
  if (!filter_parse_word(p, true, &w))
    return false;
  bool is = str_eq_c(w, "is") || str_eq_c(w, "IS"), does = str_eq_c(w, "does") || str_eq_c(w, "DOES");
  bool upper = str_eq_c(w, "IS");
  if (is || does) {
    struct str next = filter_peek_word(p, true), skipped;
    if (str_eq_c(next, "not") || str_eq_c(next, "NOT")) {
      t->negated = !t->negated;
      if (!filter_parse_word(p, true, &skipped))
        return false;
      next = filter_peek_word(p, true);
    }
    if (is && !find_word(next)) {
      t->kind = TEST_IS;
      t->caseful = upper;
      return true;
    }
    if (!filter_parse_word(p, true, &w))
      return false;
  }
  const struct test_word *known = find_word(w);
  if (!known)
    return filter_parse_error(p, "unrecognized condition word \"%.*s\" near line %d of filter file", STRF(w), p->line);
  t->kind = known->kind;
  t->caseful = known->caseful;
  return true;
}

/* A word of its own kind, or a comparison. */
static bool primary(struct filter_parser *p, struct filter_test **ret) {
  static const struct {
    const char *word;
    enum filter_test_kind kind;
  } words[] = {{"delivered", TEST_DELIVERED},   {"error_message", TEST_ERROR_MESSAGE}, {"first_delivery", TEST_FIRST_DELIVERY},
      {"foranyaddress", TEST_FORANYADDRESS}, {"manually_thawed", TEST_MANUALLY_THAWED}, {"personal", TEST_PERSONAL}};
  struct str w = filter_peek_word(p, true), skipped;
  bool negated = false;
  while (str_eq_c(w, "not")) {
    negated = !negated;
    if (!filter_parse_word(p, true, &skipped))
      return false;
    w = filter_peek_word(p, true);
  }
  if (str_eq_c(w, "(")) {
    if (!filter_parse_word(p, true, &skipped) || !bracketed(p, ret))
      return false;
    (*ret)->negated ^= negated;
    return true;
  }
  if (!w.len)
    return filter_parse_error(p, "\"then\" missing at end of filter file");
  if (str_eq_c(w, "then") || str_eq_c(w, "and") || str_eq_c(w, "or"))
    return filter_parse_error(p, "unexpected \"%.*s\" near line %d of filter file", STRF(w), p->line);
  if (str_eq_c(w, ")"))
    return filter_parse_error(p, "unexpected \")\" in line %d of filter file", p->line);
  struct filter_test *t = *ret = new_test(p, TEST_IS);
  t->negated = negated;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (str_eq_c(w, words[i].word)) {
      t->kind = words[i].kind;
      if (!filter_parse_word(p, true, &skipped))
        return false;
      return t->kind == TEST_PERSONAL ? personal(p, t) : t->kind == TEST_FORANYADDRESS ? foranyaddress(p, t) : true;
    }
  return filter_parse_value(p, true, &t->left) && operator_word(p, t) && filter_parse_value(p, true, &t->right);
}

/* Terms joined by and, then by or. *ret_next is what ended the list: `then` or a bracket. */
static bool and_list(struct filter_parser *p, struct str *ret_next, struct filter_test **ret) {
  struct filter_test *all = NULL;
  for (;;) {
    struct filter_test *one;
    if (!primary(p, &one))
      return false;
    if (all)
      vec_push(p->arena, &all->parts, one);
    else
      *ret = one;
    if (!filter_parse_word(p, true, ret_next))
      return false;
    if (!str_eq_c(*ret_next, "and"))
      return true;
    if (!all) {
      all = new_test(p, TEST_AND);
      vec_push(p->arena, &all->parts, one);
      *ret = all;
    }
    if (all->parts.n > TERMS_MAX)
      return filter_parse_error(p, "condition is too long near line %d of filter file", p->line);
  }
}

static bool or_list(struct filter_parser *p, bool top, struct str *ret_next, struct filter_test **ret) {
  struct filter_test *any = NULL;
  for (;;) {
    struct filter_test *one;
    if (!and_list(p, ret_next, &one))
      return false;
    if (any)
      vec_push(p->arena, &any->parts, one);
    else
      *ret = one;
    if (str_eq_c(*ret_next, "then") || str_eq_c(*ret_next, ")"))
      return true;
    if (!str_eq_c(*ret_next, "or"))
      return filter_parse_error(p, "\"and\" or \"or\" or \"%s\" expected near line %d of filter file, but found \"%.*s\"", top ? "then" : ")",
          p->line, STRF(*ret_next));
    if (!any) {
      any = new_test(p, TEST_OR);
      vec_push(p->arena, &any->parts, one);
      *ret = any;
    }
    if (any->parts.n > TERMS_MAX)
      return filter_parse_error(p, "condition is too long near line %d of filter file", p->line);
  }
}

bool filter_parse_condition(struct filter_parser *p, struct filter_test **ret) {
  struct str next;
  if (!or_list(p, true, &next, ret))
    return false;
  if (str_eq_c(next, ")"))
    return filter_parse_error(p, "unexpected \")\" in line %d of filter file", p->line);
  return true;
}
