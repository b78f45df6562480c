/* ${extract …}: by name, by number, from JSON. */
#include "expand/items.h"

#include "base/ascii.h"
#include "expand/internal.h"
#include "expand/json.h"

#define EXTRACT_MAX_ARGS 5

/* How many of the braces are arguments and how many are {yes}{no} depends on the first one's value, which may be known
only when it is evaluated. */
struct extract_item {
  enum { EXTRACT_PLAIN, EXTRACT_JSON, EXTRACT_JSONS } form;
  const struct expr *arg[EXTRACT_MAX_ARGS];
  struct str rest[EXTRACT_MAX_ARGS + 1]; /* the text from each on, for errors */
  int n;
  bool fail;
};

static bool is_number(struct str key) {
  size_t i = key.len > 0 && key.p[0] == '-';
  if (key.len == 0)
    return false;
  for (; i < key.len; i++)
    if (!ascii_is_digit(key.p[i]))
      return false;
  return true;
}

static int args_needed(const struct extract_item *x, struct str key) {
  return x->form == EXTRACT_PLAIN && is_number(key) ? 3 : 2;
}

/* What is wrong with the braces for that key; unset: nothing. */
static struct str brace_error(struct arena *a, const struct extract_item *x, struct str key) {
  int needed = args_needed(x, key), extra = x->n - needed;
  if (extra < 0)
    return str_printf(a, "missing '{' for arg %d of extract", x->n + 1);
  const char *what = extra > 2 || (x->fail && extra == 2)  ? "did not close with '}'"
                     : x->fail && extra == 0 ? "'yes' part did not start with '{'"
                                             : NULL;
  if (what == NULL)
    return STR_UNSET;
  return str_printf(a, "curly-bracket problem in conditional yes/no parsing: %s\n remaining string is '%.*s'", what,
      STRF(x->rest[extra > 2 ? needed + 2 : x->n]));
}

/* Behind the braces: `fail`, or an error. */
static bool compile_end(struct expand_compiler *k, struct extract_item *x) {
  struct str key = STR("x");
  bool constant = x->n > 0 && expr_is_constant(x->arg[0], &key);
  key = str_trim(key);
  int needed = args_needed(x, key);
  x->rest[x->n] = (expand_peek(k), expand_rest(k));
  if (expand_accept(k, '}'))
    goto done;
  bool more = expand_peek(k) == '{';
  if (k->skipping && (more || !str_eq_c(compile_name(k, "_"), "fail") || !expand_accept(k, '}')))
    return expand_compile_error(k, "missing '}' closing extract");
  if (more)
    x->n++;
  else if (k->skipping)
    x->fail = true;
  else if (x->n < needed && !(constant && key.len == 0))
    return expand_compile_error(k, "missing '{' for arg %d of extract", x->n + 1);
  else if (str_eq_c(compile_name(k, "_"), "fail") && expand_accept(k, '}'))
    x->fail = true;
  else if (x->n == needed + 1)
    return expand_compile_error(k, "syntax error in \"extract\" item - \"fail\" expected");
  else
    return expand_compile_error(k, "curly-bracket problem in conditional yes/no parsing: %s\n remaining string is '%.*s'",
        x->n == needed ? "'yes' part did not start with '{'" : "did not close with '}'", STRF(x->rest[x->n]));
done:
  /* An empty key is complained of before all else. */
  if ((!constant || key.len == 0) && x->n <= EXTRACT_MAX_ARGS)
    return true;
  struct str error = brace_error(k->arena, x, key);
  return !str_is_set(error) || expand_compile_error(k, "%.*s", STRF(error));
}

static const void *compile_extract(struct expand_compiler *k, const struct expand_item_def *def) {
  struct extract_item *x = arena_new_of(k->arena, struct extract_item);
  compile_skip_space(k);
  struct str word = compile_name(k, "_");
  if (str_eq_c(word, "json"))
    x->form = EXTRACT_JSON;
  else if (str_eq_c(word, "jsons"))
    x->form = EXTRACT_JSONS;
  else if (word.len > 0)
    return expand_compile_error(k, "missing '{' for arg 1 of extract");
  while (x->n < EXTRACT_MAX_ARGS && expand_peek(k) == '{') {
    x->rest[x->n] = expand_rest(k);
    expand_accept(k, '{');
    x->arg[x->n] = expand_compile_string(k);
    if (x->arg[x->n] == NULL)
      return NULL;
    x->n++;
  }
  return compile_end(k, x) ? x : NULL;
}

/* A value: "quoted with escapes" or up to white space. */
static struct str extract_value(struct arena *a, struct str *s) {
  if (s->len == 0 || s->p[0] != '"') {
    size_t n = 0;
    while (n < s->len && !ascii_is_space(s->p[n]))
      n++;
    struct str value = str_slice(*s, 0, n);
    *s = str_from(*s, n);
    return value;
  }
  size_t n = 1;
  while (n < s->len && s->p[n] != '"')
    n += s->p[n] == '\\' ? 2 : 1;
  struct str inside = str_slice(*s, 1, n);
  *s = str_from(*s, n + 1);
  if (str_find_byte(inside, '\\') < 0)
    return inside;
  struct expand_compiler k = {.arena = a, .p = inside.p, .end = inside.p + inside.len};
  struct str value;
  if (!expr_is_constant(compile_sequence(&k, false, true), &value))
    return inside;
  value.taint = inside.taint;
  return value;
}

bool extract_named(struct arena *a, struct str key, struct str text, struct str *ret) {
  struct str s = str_ltrim(text);
  while (s.len > 0) {
    size_t n = 0;
    while (n < s.len && s.p[n] != '=' && !ascii_is_space(s.p[n]))
      n++;
    struct str name = str_slice(s, 0, n);
    s = str_ltrim(str_from(s, n));
    if (s.len > 0 && s.p[0] == '=')
      s = str_ltrim(str_from(s, 1));
    struct str value = extract_value(a, &s);
    if (str_ieq(name, key)) {
      *ret = value;
      return true;
    }
    s = str_ltrim(s);
  }
  return false;
}

static bool is_separator(struct str separators, char c) { return str_find_byte(separators, c) >= 0; }

/* Field n, from the right when negative; 0: all. */
static bool extract_numbered(int64_t n, struct str separators, struct str text, struct str *ret) {
  if (n == 0) {
    *ret = text;
    return true;
  }
  if (n < 0) {
    int64_t fields = 1;
    for (size_t i = 0; i < text.len; i++)
      fields += is_separator(separators, text.p[i]);
    n += fields + 1;
    if (n < 1)
      return false;
  }
  size_t from = 0;
  for (int64_t field = 1; from <= text.len; field++) {
    size_t to = from;
    while (to < text.len && !is_separator(separators, text.p[to]))
      to++;
    if (field == n) {
      *ret = str_slice(text, from, to);
      return true;
    }
    from = to + 1;
  }
  return false;
}

static int extract_json(struct ctx *c, bool numbered, int64_t n, struct str key, struct str text, bool *found,
    struct str *ret) {
  struct str inside, element;
  char missing = json_unwrap(text, numbered ? '[' : '{', &inside);
  if (missing != 0)
    return ctx_fail(c, OUTCOME_ERROR, "missing '%c' wrapping %s for extract json", missing, numbered ? "array" : "object");
  while (json_next(&inside, &element)) {
    if (numbered) {
      if (--n == 0) {
        *ret = str_trim(element);
        *found = true;
        return 0;
      }
      continue;
    }
    struct str name;
    const char *wrong = json_member(element, &name, ret);
    if (wrong != NULL)
      return ctx_fail(c, OUTCOME_ERROR, "%s", wrong);
    if (str_eq(name, key)) {
      *found = true;
      return 0;
    }
  }
  return 0;
}

static int extract_find(struct ctx *c, const struct extract_item *x, struct str key, bool *found, struct str *ret) {
  int64_t n = 0;
  bool numbered = is_number(key);
  struct str text, separators = STR_EMPTY;
  if (numbered && !str_to_i64(key, &n))
    n = key.len == 1 ? 0 : INT64_MAX; /* a lone minus is zero; what is too large is beyond all fields */
  if (numbered && x->form != EXTRACT_PLAIN && n <= 0)
    return ctx_fail(c, OUTCOME_ERROR, "first argument of \"extract\" must be greater than zero");
  int needed = args_needed(x, key);
  int rc = needed == 3 ? expand_arg(c, x->arg[1], &separators) : 0;
  if (rc == 0)
    rc = expand_arg(c, x->arg[needed - 1], &text);
  if (rc != 0)
    return rc;
  if (x->form == EXTRACT_PLAIN) {
    *found = numbered ? extract_numbered(n, separators, text, ret) : extract_named(c->arena, key, text, ret);
    return 0;
  }
  rc = extract_json(c, numbered, n, key, text, found, ret);
  if (rc == 0 && *found && x->form == EXTRACT_JSONS && !json_unquote(*ret, ret))
    rc = ctx_fail(c, OUTCOME_ERROR, "missing '\"' wrapping string result for extract jsons");
  return rc;
}

static int eval_extract(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct extract_item *x = args->custom;
  struct str key = STR_EMPTY, value = STR_EMPTY;
  int rc = x->n > 0 ? expand_arg(c, x->arg[0], &key) : 0;
  if (rc != 0)
    return rc;
  key = str_trim(key);
  if (x->n > 0 && key.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "first argument of \"extract\" must not be empty");
  struct str error = brace_error(c->arena, x, key);
  if (str_is_set(error))
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  bool found = false;
  rc = extract_find(c, x, key, &found, &value);
  if (rc != 0)
    return rc;
  int extra = args_needed(x, key);
  struct expand_branches b = {.fail = x->fail};
  b.yes = extra < x->n ? x->arg[extra] : NULL;
  b.no = extra + 1 < x->n ? x->arg[extra + 1] : NULL;
  struct expand_args branches = {.branches = &b};
  struct expand_scope *saved = expand_scope_begin(c);
  if (found)
    c->expand.value = value;
  rc = expand_yes_no(c, &branches, "extract", found, value, out);
  expand_scope_end(c, saved);
  return rc;
}

const struct expand_item_def extract_items[] = {
  {"extract", 0, 0, 0, compile_extract, eval_extract},
  {0},
};
