/* Text that is only known at run time is compiled once and kept while it is used: least recently used goes first. */
#include "expand/internal.h"

#include <stdlib.h>

#define CACHE_MAX 1024
#define CACHE_MAX_TEXT (8u << 10)
#define CACHE_MAX_BYTES (16u << 20)

struct cached {
  struct arena *arena;
  struct str text;
  const struct expr *tree;
  unsigned uses;            /* evaluations under way: they may suspend */
  struct cached *chain;     /* of the bucket */
  struct cached *older, *newer;
};

static struct cached *buckets[CACHE_MAX];
static struct cached *oldest, *newest;
static size_t count, bytes;

static void unlink_age(struct cached *e) {
  *(e->older != NULL ? &e->older->newer : &oldest) = e->newer;
  *(e->newer != NULL ? &e->newer->older : &newest) = e->older;
}

static void link_newest(struct cached *e) {
  e->newer = NULL;
  e->older = newest;
  *(newest != NULL ? &newest->newer : &oldest) = e;
  newest = e;
}

static struct cached **bucket_place(struct str text) {
  struct cached **p = &buckets[str_hash(text) % CACHE_MAX];
  while (*p != NULL && !str_eq((*p)->text, text))
    p = &(*p)->chain;
  return p;
}

static void drop(struct cached *e) {
  *bucket_place(e->text) = e->chain;
  unlink_age(e);
  count--;
  bytes -= arena_used(e->arena);
  arena_free(e->arena);
}

static void make_room(void) {
  struct cached *next;
  for (struct cached *e = oldest; e != NULL && (count >= CACHE_MAX || bytes >= CACHE_MAX_BYTES); e = next) {
    next = e->newer;
    if (e->uses == 0)
      drop(e);
  }
}

static struct cached *cache_get(struct str text) {
  /* Often the same text comes again and again: then it need not be hashed. */
  struct cached *e = newest != NULL && str_eq(newest->text, text) ? newest : *bucket_place(text);
  if (e != NULL) {
    unlink_age(e);
    link_newest(e);
    return e;
  }
  make_room();
  struct arena *a = arena_new("expansion cache");
  e = arena_new_of(a, struct cached);
  e->arena = a;
  e->text = str_dup(a, text);
  e->tree = expr_compile(a, e->text, NULL);
  struct cached **p = bucket_place(text);
  *p = e;
  link_newest(e);
  count++;
  bytes += arena_used(a);
  return e;
}

void expand_cache_clear(void) {
  struct cached *next;
  for (struct cached *e = oldest; e != NULL; e = next) {
    next = e->newer;
    if (e->uses == 0)
      drop(e);
  }
}

int expand_text(struct ctx *c, struct str text, struct str *ret) {
  bool plain = str_find_byte(text, '$') < 0 && str_find_byte(text, '\\') < 0;
  if (str_is_tainted(text) && !(plain && text.len == 0))
    return ctx_fail(c, OUTCOME_ERROR, "attempt to expand tainted string '%.*s'", STRF(text));
  if (plain) {
    *ret = str_is_set(text) ? text : STR_EMPTY;
    return 0;
  }
  if (text.len > CACHE_MAX_TEXT)
    return expand(c, expr_compile(c->arena, text, NULL), ret);
  struct cached *e = cache_get(text);
  struct str value;
  e->uses++;
  int rc = expand(c, e->tree, &value);
  e->uses--;
  if (rc == 0)
    *ret = str_dup(c->arena, value); /* it may be a view of the tree */
  return rc;
}
