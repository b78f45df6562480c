/* A file of keys and data, read once and indexed by key (manual, "Single-key
lookup types", lsearch). */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "lookup/file.h"

struct pattern;

struct lsearch_item {
  struct str key;      /* without its quotes; view of the text or in the arena */
  uint32_t line, rest; /* offsets: of the line, and of what follows the key */
  uint32_t end;        /* of the last line of the item */
  uint32_t next;       /* in the hash chain; 0: none, else index + 1 */
  uint64_t hash;
};

struct lsearch_file {
  struct arena *arena;
  struct str text;
  struct lsearch_item *v;
  size_t n;
  uint32_t *buckets; /* NULL: not indexed yet */
  size_t buckets_n; /* a power of two */
  bool searched;
  struct lookup_stamp stamp;
};

/* Takes a text apart; `text` must live as long as the result's arena. NULL: more than can be indexed. */
struct lsearch_file *lsearch_parse(struct arena *a, struct str text);
/* The same, taken apart when it is searched for the second time: v and n are empty until then. */
struct lsearch_file *lsearch_new(struct arena *a, struct str text);
/* The first item with this key, letters' case ignored; NULL: none. The first search of a file from lsearch_new reads on to
the item, and costs a process that needs only one no index. */
const struct lsearch_item *lsearch_find(struct lsearch_file *f, struct str key);
/* The data of an item, continuation lines joined; with `full` the key in front. Copied to `a`, untainted. */
struct str lsearch_data(const struct lsearch_file *f, const struct lsearch_item *i, struct arena *a, bool full);
