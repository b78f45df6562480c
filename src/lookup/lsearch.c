/* lsearch, iplsearch, wildlsearch, nwildlsearch (manual, "Single-key lookup
types"). A file is read once and indexed, so that a big alias file costs one
hash look-up a key; a stat(2) in each turn of the loop tells when it has changed. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/fd_io.h"
#include "base/ip.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/lookup.h"
#include "lookup/lsearch_file.h"
#include "lookup/types.h"
#include "match/match.h"

#define FILE_MAX_SIZE (512u << 20)
#define PURPOSE "linear search"

struct ip_key {
  struct ip_addr ip;
  int bits; /* -1: not an address */
};

struct lsearch_handle {
  struct arena *arena;
  struct lsearch_file *file;
  struct ip_key *ips; /* iplsearch only */
};

static void handle_close(void *handle) {
  struct lsearch_handle *h = handle;
  arena_free(h->arena);
}

static void parse_ips(struct lsearch_handle *h) {
  h->ips = arena_array(h->arena, struct ip_key, h->file->n + 1);
  for (size_t i = 0; i < h->file->n; i++)
    if (!ip_parse_masked(h->file->v[i].key, &h->ips[i].ip, &h->ips[i].bits))
      h->ips[i].bits = -1;
}

static int handle_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  int fd = lookup_file_open(c, file, PURPOSE, def->name, &st);
  if (fd < 0)
    return fd;
  if ((uint64_t)st.st_size > FILE_MAX_SIZE) {
    close(fd);
    return ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s for " PURPOSE ": more than %u bytes; use a cdb file", STRF(file),
      FILE_MAX_SIZE);
  }
  struct arena *a = arena_new("lsearch");
  struct lsearch_handle *h = arena_new_of(a, struct lsearch_handle);
  h->arena = a;
  char *p = arena_bytes(a, (size_t)st.st_size + 1);
  ssize_t n = fd_read_all(fd, p, (size_t)st.st_size);
  close(fd);
  if (n < 0) {
    arena_free(a);
    return lookup_open_failed(c, file, PURPOSE, (int)-n);
  }
  bool by_key = str_eq_c(STR("lsearch"), def->name);
  h->file = by_key ? lsearch_new(a, str_n(p, (size_t)n)) : lsearch_parse(a, str_n(p, (size_t)n));
  lookup_stamp_set(&h->file->stamp, &st);
  if (str_eq_c(STR("iplsearch"), def->name))
    parse_ips(h);
  *ret = h;
  return OUTCOME_OK;
}

static bool handle_stale(void *handle, struct str file) {
  struct lsearch_handle *h = handle;
  return lookup_stamp_changed(&h->file->stamp, file);
}

static int found(struct ctx *c, const struct lsearch_handle *h, const struct lsearch_item *item, struct str options,
    struct str *ret) {
  if (item == NULL)
    return OUTCOME_FAIL;
  *ret = lsearch_data(h->file, item, c->arena, str_eq_c(lookup_option(options, "ret"), "full"));
  return OUTCOME_OK;
}

static int lsearch_find_key(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct lsearch_handle *h = handle;
  return found(c, h, lsearch_find(h->file, key), options, ret);
}

static int iplsearch_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct lsearch_handle *h = handle;
  struct ip_addr ip;
  if (str_eq_c(key, "*"))
    return found(c, h, lsearch_find(h->file, key), options, ret);
  if (!ip_parse(key, &ip))
    return ctx_fail(c, OUTCOME_DEFER,
      "\"%.*s\" is not a valid iplsearch key (an IP address, with optional CIDR mask, is wanted): "
      "in a host list, use net-iplsearch as the search type", STRF(key));
  ip_unmap(&ip);
  for (size_t i = 0; i < h->file->n; i++)
    if (h->ips[i].bits >= 0 && ip_match(&ip, &h->ips[i].ip, h->ips[i].bits))
      return found(c, h, &h->file->v[i], options, ret);
  return OUTCOME_FAIL;
}

/* def->name tells whether the keys in the file are expanded first. */
static int wildlsearch_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct lsearch_handle *h = handle;
  bool expands = def->name[0] == 'w';
  struct expand_vars saved = ctx_save(c);
  int r = OUTCOME_FAIL;
  for (size_t i = 0; i < h->file->n && r == OUTCOME_FAIL; i++) {
    struct str pattern = h->file->v[i].key;
    if (expands && (memchr(pattern.p, '$', pattern.len) || memchr(pattern.p, '\\', pattern.len))) {
      struct str text = pattern;
      int e = expand_text(c, text, &pattern);
      if (e == OUTCOME_FORCED)
        continue;
      if (e != OUTCOME_OK) {
        log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand \"%.*s\" while checking a list: %.*s", STRF(text),
          STRF(c->error));
        r = OUTCOME_DEFER;
        break;
      }
    }
    r = match_item(c, pattern, key, false);
    if (r == OUTCOME_OK)
      r = found(c, h, &h->file->v[i], options, ret);
    else if (r == OUTCOME_ERROR)
      r = OUTCOME_DEFER;
    else if (r == OUTCOME_FAIL)
      continue;
    break;
  }
  /* Captures of the pattern would be missing when the result comes from the cache. */
  ctx_restore(c, &saved);
  return r;
}

#define LSEARCH_TYPE(type, more_flags, fn)                                                                             \
  const struct lookup_def lookup_##type = {.name = #type, .flags = LOOKUP_FILE | (more_flags), .open = handle_open,    \
      .close = handle_close, .stale = handle_stale, .find = fn}

LSEARCH_TYPE(lsearch, LOOKUP_INDEXED, lsearch_find_key);
LSEARCH_TYPE(iplsearch, 0, iplsearch_find);
LSEARCH_TYPE(wildlsearch, 0, wildlsearch_find);
LSEARCH_TYPE(nwildlsearch, 0, wildlsearch_find);
