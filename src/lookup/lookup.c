/* A whole search: checks, the cache, partial matching and defaults. */
#include "lookup/lookup.h"

#include "base/ascii.h"
#include "config/config.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/handles.h"
#include "lookup/memo.h"

#define KEY_MAX (1u << 20)

struct search {
  struct ctx *c;
  const struct lookup_spec *spec;
  struct lookup_handle *handle;
  struct str file;
  bool cache_read, cache_write;
  struct str *ret;
};

/* Everything that decides the result; `cache=` is about whether to look here at all. */
static struct str memo_key(const struct search *s, struct str key) {
  struct buf b;
  buf_init(&b, s->c->arena, KEY_MAX * 2);
  buf_add_c(&b, s->spec->def->name);
  struct str rest = s->spec->options;
  while (str_is_set(rest)) {
    struct str option = str_trim(str_cut(&rest, ','));
    if (!str_starts(option, STR("cache="))) {
      buf_add_byte(&b, ',');
      buf_add(&b, option);
    }
  }
  buf_add_byte(&b, '\0');
  buf_add(&b, s->file);
  buf_add_byte(&b, '\0');
  buf_add(&b, key);
  return buf_str(&b);
}

/* A key of an authenticator may hold a password. */
static struct str shown(const struct ctx *c, struct str key) { return c->authenticator != NULL ? STR("****") : key; }

/* One key, without defaults; the empty key is never found in a file. */
static int find_one(struct search *s, struct str key) {
  const struct lookup_spec *spec = s->spec;
  struct ctx *c = s->c;
  if (key.len == 0 && !(spec->def->flags & LOOKUP_QUERY))
    return OUTCOME_FAIL;
  struct str mkey = s->cache_read || s->cache_write ? memo_key(s, key) : STR_UNSET;
  if (s->cache_read) {
    const struct memo_value *v = memo_get(c, mkey);
    if (v) {
      DEBUG(lookup, "cached data used for lookup of %.*s%s%.*s\n", STRF(shown(c, key)), s->file.len ? " in " : "", STRF(s->file));
      if (v->outcome == OUTCOME_OK)
        *s->ret = str_dup(c->arena, v->value);
      return v->outcome;
    }
  }
  int seconds = -1;
  struct str value = STR_UNSET;
  int r = spec->def->find(c, spec->def, lookup_handle_data(s->handle), s->file, key, spec->options, &value, &seconds);
  DEBUG(lookup, "%s lookup of \"%.*s\"%s%.*s: %s\n", spec->def->name, STRF(shown(c, key)), s->file.len ? " in " : "",
    STRF(s->file), r == OUTCOME_OK ? "found" : r == OUTCOME_FAIL ? "not found" : "deferred");
  if (r == OUTCOME_OK || r == OUTCOME_FAIL) {
    if (s->cache_write)
      memo_put(c, mkey, r, value, seconds);
    if (r == OUTCOME_OK)
      *s->ret = value;
  }
  return r;
}

static void set_captures(struct ctx *c, bool wanted, struct str wild, struct str fixed) {
  if (!wanted)
    return;
  capture_set(&c->expand, 1, wild);
  capture_set(&c->expand, 2, fixed);
}

/* partial0: nothing but the affix is left of the key. */
static int find_affix_alone(struct search *s, struct str key, bool captures) {
  struct str affix = s->spec->affix;
  if (affix.len == 0)
    return OUTCOME_FAIL;
  if (affix.len > 1 && affix.p[affix.len - 1] == '.')
    affix = str_slice(affix, 0, affix.len - 1);
  int r = find_one(s, affix);
  if (r == OUTCOME_OK)
    set_captures(s->c, captures, key, STR_EMPTY);
  return r;
}

/* Affix + key, then with leading components dropped (manual, "Partial matching in single-key lookups"). */
static int find_partial(struct search *s, struct str key, bool captures) {
  const struct lookup_spec *spec = s->spec;
  int dots = 0;
  for (size_t i = 0; i < key.len; i++)
    dots += key.p[i] == '.';
  size_t from = 0;
  /* With an empty affix the first of these would repeat the lookup of the unchanged key. */
  bool first = spec->affix.len > 0;
  for (;;) {
    if (first) {
      /* The whole key has no minimum. */
      if (from > 0 && dots + 1 < spec->partial)
        return OUTCOME_FAIL;
      struct str fixed = str_from(key, from);
      int r = find_one(s, str_cat(s->c->arena, spec->affix, fixed));
      if (r == OUTCOME_OK)
        set_captures(s->c, captures, str_slice(key, 0, from ? from - 1 : 0), fixed);
      if (r != OUTCOME_FAIL)
        return r;
    }
    first = true;
    ptrdiff_t dot = str_find_byte(str_from(key, from), '.');
    if (dot < 0)
      break;
    from += (size_t)dot + 1;
    dots--;
  }
  return spec->partial == 0 ? find_affix_alone(s, key, captures) : OUTCOME_FAIL;
}

static int find_default(struct search *s, struct str key, bool captures) {
  if (s->spec->defaulting == LOOKUP_STAR_AT) {
    ptrdiff_t at = str_rfind_byte(key, '@');
    if (at > 0) {
      int r = find_one(s, str_cat(s->c->arena, STR("*"), str_from(key, (size_t)at)));
      if (r == OUTCOME_OK)
        set_captures(s->c, captures, str_slice(key, 0, (size_t)at), STR_EMPTY);
      if (r != OUTCOME_FAIL)
        return r;
    }
  }
  if (s->spec->defaulting == LOOKUP_NO_DEFAULT)
    return OUTCOME_FAIL;
  int r = find_one(s, STR("*"));
  if (r == OUTCOME_OK)
    set_captures(s->c, captures, key, STR_EMPTY);
  return r;
}

static int find_with_defaults(struct search *s, struct str key, bool captures) {
  int r = key.len == 0 ? OUTCOME_FAIL : find_one(s, key);
  if (r == OUTCOME_OK && s->spec->partial >= 0)
    set_captures(s->c, captures, STR_EMPTY, key);
  if (r != OUTCOME_FAIL || (s->spec->def->flags & LOOKUP_QUERY))
    return r;
  if (s->spec->partial >= 0 && key.len > 0 && (r = find_partial(s, key, captures)) != OUTCOME_FAIL)
    return r;
  return find_default(s, key, captures);
}

/* Where the text of a query came from, for the log. */
static struct str where_text(struct ctx *c) {
  const struct instance *i = c->transport ? c->transport : c->router;
  if (c->config == NULL || i == NULL)
    return STR_EMPTY;
  struct str file = i->where.file < c->config->files.n ? c->config->files.v[i->where.file] : STR_EMPTY;
  return str_printf(c->arena, " (%s %.*s, %.*s %u)", c->transport ? "transport" : "router", STRF(i->name), STRF(file),
    i->where.line);
}

/* Foreign text in a query must have been quoted for this type (manual, "Query-style lookup types"). Exim only says so;
here the servers that would run whatever they are given are spared it. */
static int check_quoting(struct ctx *c, const struct lookup_def *def, struct str query) {
  if (def->quote == NULL || !str_is_tainted(query) ||
      (query.taint & ~STR_TAINTED) == lookup_quote_mark(def))
    return OUTCOME_OK;
  log_write(LOG_MAIN | LOG_PANIC, c->message, "tainted search query is not properly quoted%.*s: %.*s",
    STRF(where_text(c)), STRF(query));
  return def->flags & LOOKUP_QUOTED ? ctx_fail(c, OUTCOME_DEFER, "tainted search query is not properly quoted") : OUTCOME_OK;
}

/* The file of a query type that has one: an option, the main option, or in front of the query. */
static int query_file(struct ctx *c, const struct lookup_spec *spec, struct str *file, struct str *query) {
  const struct lookup_def *def = spec->def;
  *file = lookup_option(spec->options, "file");
  if (!str_is_set(*file) && query->len > 0 && query->p[0] == '/') {
    size_t n = 0;
    while (n < query->len && !ascii_is_space(query->p[n]))
      n++;
    *file = str_slice(*query, 0, n);
    *query = str_ltrim(str_from(*query, n));
  }
  if (!str_is_set(*file) && c->config) {
    int r = expand_option(c, &main_options(c->config)->sqlite_dbfile, file);
    if (r != OUTCOME_OK)
      return r;
  }
  if (!str_is_set(*file) || file->len == 0 || file->p[0] != '/')
    return ctx_fail(c, OUTCOME_ERROR, "absolute file name expected for \"%s\" lookup", def->name);
  return OUTCOME_OK;
}

static int check_file(struct ctx *c, struct str file) {
  if (!str_is_tainted(file))
    return OUTCOME_OK;
  log_write(LOG_MAIN | LOG_PANIC, c->message, "Tainted filename for search: '%.*s'", STRF(file));
  c->error = STR("NULL"); /* what Exim shows in the place of a reason; the reason is in the log */
  return OUTCOME_ERROR;
}

static int prepare(struct search *s, struct str file, struct str *key) {
  struct ctx *c = s->c;
  const struct lookup_def *def = s->spec->def;
  if (def->flags & LOOKUP_LATER)
    return ctx_fail(c, OUTCOME_ERROR, "lookup type \"%s\" is not supported%s%s", def->name, def->why ? ": " : " yet",
      def->why ? def->why : "");
  if (key->len > KEY_MAX)
    return ctx_fail(c, OUTCOME_ERROR, "key or query too long for \"%s\" lookup", def->name);
  s->file = STR_UNSET;
  if (def->flags & LOOKUP_ABSFILE_QUERY) {
    int r = query_file(c, s->spec, &s->file, key);
    if (r != OUTCOME_OK)
      return r;
  } else if (!(def->flags & LOOKUP_QUERY)) {
    s->file = file;
  }
  if (str_is_set(s->file)) {
    int r = check_file(c, s->file);
    if (r != OUTCOME_OK)
      return r;
    if (memchr(s->file.p, '\0', s->file.len))
      return ctx_fail(c, OUTCOME_ERROR, "file name for \"%s\" lookup contains a NUL", def->name);
    s->file = str_dup(c->arena, s->file); /* NUL-terminated */
  }
  if (def->flags & LOOKUP_QUERY) {
    int r = check_quoting(c, def, *key);
    if (r != OUTCOME_OK)
      return r;
  }
  if (def->flags & LOOKUP_INDEXED)
    return OUTCOME_OK;
  struct str cache = lookup_option(s->spec->options, "cache");
  s->cache_read = !str_eq_c(cache, "no_rd") && !str_eq_c(cache, "no");
  s->cache_write = !str_eq_c(cache, "no_wr") && !str_eq_c(cache, "no");
  return OUTCOME_OK;
}

int lookup_find(struct ctx *c, const struct lookup_spec *spec, struct str file, struct str key, bool captures,
    struct str *ret) {
  struct search s = {.c = c, .spec = spec, .ret = ret};
  int r = prepare(&s, file, &key);
  if (r != OUTCOME_OK)
    return r;
  r = lookup_handle_acquire(c, spec->def, s.file, &s.handle);
  if (r != OUTCOME_OK)
    return r;
  r = find_with_defaults(&s, key, captures);
  lookup_handle_release(s.handle);
  if (r == OUTCOME_OK && !(spec->def->flags & LOOKUP_QUERY) && str_eq_c(lookup_option(spec->options, "ret"), "key"))
    *ret = str_untainted(str_dup(c->arena, key));
  return r;
}

void lookup_tidy(void) {
  lookup_handles_close();
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct lookup_def *const *d = modules[i]->lookups; d && *d; d++)
      if ((*d)->tidy)
        (*d)->tidy();
}
