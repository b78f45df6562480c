/* inlist, forany and forall, over lists and JSON arrays. */
#include "expand/conditions.h"

#include "expand/internal.h"
#include "expand/json.h"
#include "match/match.h"

struct for_condition {
  const struct expr *list;
  const struct expand_condition *condition;
  bool literal_separator;
};

static const void *compile_for(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct for_condition *f = arena_new_of(k->arena, struct for_condition);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"%s\"", def->name);
  f->literal_separator = list_changes_separator(expand_rest(k));
  if ((f->list = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"%s\"", def->name);
  bool skipping = expand_compiler_skipping(k, true);
  f->condition = expand_compile_condition(k);
  expand_compiler_skipping(k, skipping);
  if (f->condition == NULL)
    return expand_compile_inside(k, "inside \"%s\" condition", def->name);
  if (!expand_accept(k, '}'))
    return expand_compile_error(k, "missing } at end of condition inside \"%s\"", def->name);
  return f;
}

struct for_walk {
  bool json, jsons;
  struct list_iter list;
  struct str inside;
};

static int for_start(struct ctx *c, const struct expand_condition_def *def, const struct for_condition *f, struct for_walk *w) {
  struct str text;
  int rc = expand_arg(c, f->list, &text);
  if (rc != 0)
    return rc;
  w->json = def->name[6] == '_';
  w->jsons = w->json && def->name[11] == 's';
  if (w->json) {
    char missing = json_unwrap(text, '[', &w->inside);
    if (missing != 0)
      return ctx_fail(c, OUTCOME_ERROR, "missing '%c' wrapping array for extract json", missing);
  } else if (f->literal_separator) {
    list_iter_init_literal(&w->list, c->arena, text);
  } else {
    list_iter_init(&w->list, c->arena, text);
  }
  return 0;
}

/* 1: an item, 0: no more. */
static int for_next(struct ctx *c, struct for_walk *w) {
  struct str item;
  if (!(w->json ? json_next(&w->inside, &item) : list_next(&w->list, &item)))
    return 0;
  if (w->json)
    item = str_trim(item);
  if (w->jsons && !json_unquote(item, &item))
    return ctx_fail(c, OUTCOME_ERROR, "missing '\"' wrapping string result for extract jsons");
  c->expand.item = item;
  return 1;
}

static int eval_for(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct for_condition *f = args->custom;
  struct for_walk w = {0};
  bool stop_at = def->name[4] == 'n'; /* fora-n-y */
  int rc = for_start(c, def, f, &w);
  if (rc != 0)
    return rc;
  struct str outer = c->expand.item;
  /* For an empty list both are false. */
  *ret = false;
  while ((rc = for_next(c, &w)) > 0) {
    rc = expand_condition(c, f->condition, ret);
    if (rc != 0)
      rc = ctx_fail(c, rc, "%.*s inside \"%s\" condition", STRF(c->error), def->name);
    if (rc != 0 || *ret == stop_at)
      break;
  }
  c->expand.item = outer;
  return rc;
}

struct inlist {
  const struct expr *subject, *list;
  bool literal_separator;
};

static const void *compile_inlist(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct inlist *l = arena_new_of(k->arena, struct inlist);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"%s\"", def->name);
  if ((l->subject = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing 2nd string in {} after \"%s\"", def->name);
  l->literal_separator = list_changes_separator(expand_rest(k));
  l->list = expand_compile_string(k);
  return l->list == NULL ? NULL : l;
}

static int eval_inlist(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct inlist *l = args->custom;
  bool caseless = def->name[6] == 'i';
  struct str subject, list, item;
  int rc = expand_arg(c, l->subject, &subject);
  if (rc == 0)
    rc = expand_arg(c, l->list, &list);
  if (rc != 0)
    return rc;
  struct list_iter it;
  if (l->literal_separator)
    list_iter_init_literal(&it, c->arena, list);
  else
    list_iter_init(&it, c->arena, list);
  while (!*ret && list_next(&it, &item))
    *ret = caseless ? str_ieq(subject, item) : str_eq(subject, item);
  if (*ret)
    c->expand.value = item;
  return 0;
}

const struct expand_condition_def list_conditions[] = {
  {"forall", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"forall_json", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"forall_jsons", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"forany", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"forany_json", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"forany_jsons", 0, 0, EXPAND_LAZY, compile_for, eval_for},
  {"inlist", 0, 0, EXPAND_LAZY, compile_inlist, eval_inlist},
  {"inlisti", 0, 0, EXPAND_LAZY, compile_inlist, eval_inlist},
  {0},
};
