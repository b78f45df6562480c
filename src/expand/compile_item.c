#include "expand/internal.h"

#include "base/ascii.h"

typedef VEC(const struct expr *) expr_list;

/* An item that could not be read to its end: what stands before the error is evaluated for its own errors. */
static bool error_node(struct expand_compiler *k, const expr_list *before, struct node *ret) {
  *ret = (struct node){.kind = NODE_ERROR, .error = {.text = k->error, .before = before->v, .n = (int)before->n}};
  return false;
}

static const struct expand_branches no_branches;

const struct expand_branches *expand_compile_branches(struct expand_compiler *k, const char *name) {
  if (expand_accept(k, '}'))
    return &no_branches;
  struct expand_branches *b = arena_new_of(k->arena, struct expand_branches);
  const char *what = "'yes' part did not start with '{'";
  if (expand_accept(k, '{')) {
    b->yes = expand_compile_string(k);
    if (b->yes == NULL)
      return NULL;
    char c = expand_peek(k);
    if (c == '{') {
      expand_accept(k, '{');
      b->no = expand_compile_string(k);
      if (b->no == NULL)
        return NULL;
    } else if (c != '}') {
      if (!str_eq_c(compile_name(k, "_"), "fail"))
        return expand_compile_error(k, "syntax error in \"%s\" item - \"fail\" expected", name);
      b->fail = true;
    }
    if (expand_accept(k, '}'))
      return b;
    what = b->fail ? "did not close with '}' after forcedfail" : "did not close with '}'";
  }
  if (k->malformed_header)
    return expand_compile_error(k, "missing or misplaced { or } - could be header name not terminated by colon");
  return expand_compile_error(
      k, "curly-bracket problem in conditional yes/no parsing: %s\n remaining string is '%.*s'", what, STRF(expand_rest(k)));
}

static bool compile_arguments(struct expand_compiler *k, const struct expand_item_def *def, expr_list *args) {
  while ((int)args->n < def->max_args && expand_accept(k, '{')) {
    const struct expr *arg = compile_sequence(k, true, false);
    vec_push(k->arena, args, arg);
    if (str_is_set(k->error))
      return false;
    k->p++;
  }
  if ((int)args->n < def->min_args)
    return expand_compile_error(k, "Not enough arguments for '%s' (min is %d)", def->name, def->min_args);
  if (def->flags & EXPAND_YES_NO)
    return true;
  if (expand_accept(k, '}'))
    return true;
  if (expand_peek(k) == '{')
    return expand_compile_error(k, "Too many arguments for '%s' (max is %d)", def->name, def->max_args);
  return expand_compile_error(k, "missing '}' after '%s'", def->name);
}

static bool compile_item(struct expand_compiler *k, const struct expand_item_def *def, struct node *ret) {
  *ret = (struct node){.kind = NODE_ITEM, .item = {.def = def}};
  expr_list args = {0};
  if (def->compile != NULL) {
    ret->item.args.custom = def->compile(k, def);
    return ret->item.args.custom != NULL || error_node(k, &args, ret);
  }
  if (!compile_arguments(k, def, &args))
    return error_node(k, &args, ret);
  ret->item.args.tree = args.v;
  ret->item.args.n = (int)args.n;
  if (def->flags & EXPAND_YES_NO) {
    ret->item.args.branches = expand_compile_branches(k, def->name);
    if (ret->item.args.branches == NULL)
      return error_node(k, &args, ret);
  }
  return true;
}

/* Finds the operator of "name" or "name_arg". */
static const struct expand_operator_def *operator_of(struct str name, struct str *ret_base, struct str *ret_arg) {
  const struct expand_operator_def *def = find_operator(name);
  *ret_base = name;
  *ret_arg = STR_UNSET;
  ptrdiff_t under = str_find_byte(name, '_');
  if (def != NULL || under < 0)
    return def;
  *ret_base = str_slice(name, 0, under);
  *ret_arg = str_from(name, under + 1);
  return find_operator(*ret_base);
}

/* Behind `${name:`. */
static bool compile_operator(struct expand_compiler *k, struct str name, struct node *ret) {
  struct str base, arg;
  const struct expand_operator_def *def = operator_of(name, &base, &arg);
  expr_list subject = {0};
  vec_push(k->arena, &subject, compile_sequence(k, true, false));
  if (str_is_set(k->error))
    return error_node(k, &subject, ret);
  k->p++;
  *ret = (struct node){.kind = NODE_OPERATOR, .op = {def, str_is_set(arg) ? str_dup(k->arena, arg) : arg, subject.v[0]}};
  if (def == NULL)
    expand_compile_error(k, "unknown expansion operator \"%.*s\"", STRF(name));
  else if (str_is_set(arg) && !def->takes_arg)
    expand_compile_error(
        k, "unknown expansion operator \"%.*s\" (\"%.*s\" does not take an _arg)", STRF(name), STRF(base));
  else
    return true;
  return error_node(k, &subject, ret);
}

bool compile_braced(struct expand_compiler *k, struct node *ret) {
  *ret = (struct node){.kind = NODE_TEXT};
  if (k->p == k->end || !ascii_is_alnum(*k->p)) {
    expand_compile_error(k, "letter or digit expected after ${");
    return false;
  }
  struct str name = compile_name(k, "_-");
  const struct expand_item_def *item = find_item(name);
  if (item != NULL)
    return compile_item(k, item, ret);
  char c = k->p == k->end ? '\0' : *k->p;
  if (c == ':') {
    k->p++;
    return compile_operator(k, name, ret);
  }
  if (c != '}') {
    expand_compile_error(
        k, "\"${%.*s\" is not a known operator (or a } is missing in a variable reference)", STRF(name));
    return false;
  }
  k->p++;
  const char *why;
  if (compile_reference(k, name, ret, &why))
    return true;
  expand_compile_error(k, "unknown variable in \"${%.*s}\"%s", STRF(name), why);
  return false;
}
