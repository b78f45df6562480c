/* Reads LMDB data files (format version 1) by plain reads instead of mapping them, so that a file that is damaged, or shrinks
while it is read, is an error and not the end of the process; a writer may be at work meanwhile. */
#pragma once

#include "base/str.h"

struct arena;

#define LMDB_KEY_MAX 511u

struct lmdb_source {
  bool (*read)(void *arg, void *to, size_t n, uint64_t at); /* false: not all of it is there */
  uint64_t (*size)(void *arg);
  void *arg;
};

enum lmdb_result {
  LMDB_FOUND, LMDB_NOT_FOUND, LMDB_NO_DATABASE, LMDB_FOREIGN, LMDB_OTHER_VERSION, LMDB_TRUNCATED, LMDB_DAMAGED, LMDB_CHANGING,
  LMDB_TOO_LONG, LMDB_INTEGER_KEYS
};

/* Is it such a file at all? LMDB_FOUND, or what is wrong with it. */
enum lmdb_result lmdb_file_check(struct arena *a, const struct lmdb_source *s);
/* The (first) value of a key in the main database, or in the one called `db`, if that is set; in `a`. */
enum lmdb_result lmdb_file_get(struct arena *a, const struct lmdb_source *s, struct str db, struct str key, size_t max,
    struct str *ret);
/* For error texts; NULL for LMDB_FOUND and LMDB_NOT_FOUND. */
const char *lmdb_file_text(enum lmdb_result r);
