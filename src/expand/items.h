/* Tables of items and operators, one a file; modules.c puts them into modules. */
#pragma once

#include "base/buf.h"
#include "expand/expand.h"

extern const struct expand_item_def string_items[];
extern const struct expand_item_def list_items[];
extern const struct expand_item_def extract_items[];
extern const struct expand_item_def data_items[];
extern const struct expand_item_def lookup_items[];
extern const struct expand_item_def run_items[];
extern const struct expand_item_def socket_items[];
extern const struct expand_item_def prvs_items[];
extern const struct expand_item_def srs_items[];
extern const struct expand_item_def imap_items[];

extern const struct expand_operator_def string_operators[];
extern const struct expand_operator_def number_operators[];
extern const struct expand_operator_def digest_operators[];
extern const struct expand_operator_def address_operators[];
extern const struct expand_operator_def net_operators[];
extern const struct expand_operator_def charset_operators[];
extern const struct expand_operator_def list_operators[];

/* Shared by the items and the operators of the same name. A length of -1: none was given. */
void string_substr(struct str s, int64_t from, int64_t len, struct buf *out);
int string_hash(struct ctx *c, struct str s, int64_t len, int64_t alphabet, struct buf *out);
void string_nhash(struct str s, int64_t n, int64_t m, struct buf *out);

/* Appends an item as Exim's map and friends do: separators inside doubled, an empty item that is not the first a blank. */
struct list_builder {
  struct buf *out;
  char sep;
  bool started;
};
void list_builder_add(struct list_builder *b, struct str item);
/* Adds a text with its newlines replaced (eol NULL: as they are). */
void add_with_eol(struct buf *out, struct str text, const struct str *eol);
/* The error of an item that evaluates a part of it many times: `"…" inside "map" item`. */
int fail_inside(struct ctx *c, int rc, const char *what, const char *name);
/* Value of "x" in `x=1 y="a b"`; false: not there. */
bool extract_named(struct arena *a, struct str key, struct str text, struct str *ret);
