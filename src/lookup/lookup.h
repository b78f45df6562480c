/* Lookups: one file a type (Exim manual, chapter "File and database
lookups"). Used by ${lookup…} and by list items. Open handles and results are
cached per process as the manual describes. */
#pragma once

#include "base/buf.h"
#include "base/outcome.h"
#include "core/ctx.h"

#define LOOKUP_FILE 1u        /* single-key: wants an absolute file (or directory) name */
#define LOOKUP_INDEXED 32u    /* a search costs less than to remember what came of it */
#define LOOKUP_QUERY 2u       /* query-style */
#define LOOKUP_LATER 4u       /* known, refused: "not supported yet", or with the reason in `why` */
#define LOOKUP_QUOTED 16u     /* foreign text in a query must have been quoted for the type: else it is refused, not only logged */
#define LOOKUP_ABSFILE_QUERY 8u /* query-style with a file before the query (sqlite) */

struct lookup_def {
  const char *name;
  unsigned flags;
  const char *why;
  /* A handle for file (NULL for query types without one); kept open and closed by the cache. */
  int (*open)(struct ctx *c, const struct lookup_def *def, struct str file, void **ret_handle);
  /* Is the opened file trustworthy (owner, mode, as the caller demands)? May be NULL. */
  int (*check)(struct ctx *c, const struct lookup_def *def, void *handle, struct str file);
  /* OUTCOME_OK, FAIL (not found), DEFER. `options` is the text behind the type: `cache=no_rd,ret=full`.
  *ret_cache_seconds: how long the result may be kept; -1 for ever, 0 not at all. */
  int (*find)(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key, struct str options,
      struct str *ret, int *ret_cache_seconds);
  void (*close)(void *handle);
  /* Has the file changed since it was opened? Then the handle is closed and opened anew. May be NULL. */
  bool (*stale)(void *handle, struct str file);
  void (*tidy)(void);
  /* For ${quote_NAME:…}; NULL: the text unchanged. */
  int (*quote)(struct ctx *c, struct str text, struct str option, struct buf *out);
  /* For ${if TYPEauth{query}…}: OUTCOME_OK (the query's user and password are right), FAIL, DEFER, ERROR. May be NULL. */
  int (*auth)(struct ctx *c, struct str query);
  const struct library_def *library; /* that it is made with (core/module.h); with one type of those that share it. May be NULL. */
};

/* "partial-lsearch*@,opts" and the like, taken apart. */
struct lookup_spec {
  const struct lookup_def *def;
  struct str options;
  int partial;        /* -1: not partial; else the minimum number of components */
  struct str affix;   /* "*." by default */
  enum { LOOKUP_NO_DEFAULT, LOOKUP_STAR, LOOKUP_STAR_AT } defaulting;
};
/* Parses the type's text. 0, or OUTCOME_ERROR with *ret_error ("unknown lookup type \"x\""). */
int lookup_parse(struct arena *a, struct str type, struct lookup_spec *ret, struct str *ret_error) MUST_CHECK;

/* The whole search: file, key (or query; then file may be unset), partial matching, defaults, cache. [suspends]
OK sets *ret (in c->arena; untainted for local data, tainted for what comes from the network); FAIL. DEFER: c->error
is the type's own text, which Exim shows as `lookup of "KEY" gave DEFER: TEXT`. ERROR: c->error is complete (the file
cannot be opened, is tainted …). Partial matching and defaults set captures $1,$2 if `set_captures`. */
int lookup_find(struct ctx *c, const struct lookup_spec *spec, struct str file, struct str key, bool set_captures, struct str *ret)
    MUST_CHECK;
/* Closes everything, forgets cached results. */
void lookup_tidy(void);
const struct lookup_def *lookup_by_name(struct str name);
/* The mark for struct str's taint word of text that was quoted for this type (see STR_QUOTED_SHIFT). */
uint32_t lookup_quote_mark(const struct lookup_def *def);
/* ${quote_NAME_option:text}: 0, or OUTCOME_ERROR with c->error. The result is marked as quoted for the type. */
int lookup_quote(struct ctx *c, const struct lookup_def *def, struct str text, struct str option, struct buf *out) MUST_CHECK;
/* The value of `name` in a type's options ("ret=full,filter=dir"); unset if absent. */
struct str lookup_option(struct str options, const char *name);
