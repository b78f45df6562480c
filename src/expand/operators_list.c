/* Operators on lists. */
#include "expand/items.h"

#include "base/ascii.h"
#include "config/config.h"
#include "expand/internal.h"
#include "match/match.h"

static int eval_listcount(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct list_iter it;
  struct str item;
  unsigned n = 0;
  list_iter_init(&it, c->arena, s);
  while (list_next(&it, &item))
    n++;
  buf_printf(out, "%u", n);
  return 0;
}

static const struct {
  char letter;
  enum list_kind kind;
  const char *name;
} kinds[] = {
  {'a', LIST_ADDRESS, "address"},
  {'d', LIST_DOMAIN, "domain"},
  {'h', LIST_HOST, "host"},
  {'l', LIST_LOCAL_PART, "localpart"},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static const struct named_list *find_named(const struct config *config, struct str name, char letter) {
  for (size_t i = 0; i < KINDS; i++)
    if (letter == '\0' || letter == kinds[i].letter) {
      const struct named_list *l = config_list(config, kinds[i].kind, name);
      if (l != NULL)
        return l;
    }
  return NULL;
}

/* The items with " : " between, named lists in them replaced by their own, colons doubled. */
static void add_named(struct ctx *c, const struct named_list *l, struct buf *out, bool *first, int depth) {
  struct list_iter it;
  struct str item;
  list_iter_init(&it, c->arena, l->value.text);
  while (list_next(&it, &item)) {
    if (item.len > 1 && item.p[0] == '+' && depth < 20) {
      const struct named_list *inner = config_list(c->config, l->kind, str_from(item, 1));
      if (inner != NULL) {
        add_named(c, inner, out, first, depth + 1);
        continue;
      }
    }
    if (!*first)
      buf_add_c(out, " : ");
    *first = false;
    for (size_t i = 0; i < item.len; i++) {
      if (item.p[i] == ':')
        buf_add_byte(out, ':');
      buf_add_byte(out, item.p[i]);
    }
  }
}

static int eval_listnamed(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  char letter = '\0';
  const char *kind = NULL;
  if (str_is_set(arg)) {
    for (size_t i = 0; i < KINDS; i++)
      if (arg.len > 0 && arg.p[0] == kinds[i].letter)
        kind = kinds[i].name;
    if (kind == NULL)
      return ctx_fail(c, OUTCOME_ERROR, "bad suffix on \"list\" operator");
    letter = arg.p[0];
  }
  struct str name = s.len > 0 && s.p[0] == '+' ? str_from(s, 1) : s;
  const struct named_list *l = find_named(c->config, name, letter);
  if (l == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not a %s%snamed list", STRF(name), kind != NULL ? kind : "",
        kind != NULL ? " " : "");
  bool first = true;
  add_named(c, l, out, &first, 0);
  return 0;
}

const struct expand_operator_def list_operators[] = {
  {"listcount", 0, false, eval_listcount},
  {"listnamed", 0, true, eval_listnamed},
  {0},
};
