#include "route/redirect_parse.h"

#include "base/buf.h"
#include "base/outcome.h"
#include "message/address.h"

#define INCLUDE_DEPTH_MAX 20

struct parser {
  struct arena *arena;
  const struct redirect_rules *rules;
  struct redirect_parsed *out;
  int depth;
};

/* --- where items end --- */

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }

/* Separators, white space and comments before an item. */
static struct str skip_gap(struct str s) {
  for (;;) {
    while (s.len && (blank(s.p[0]) || s.p[0] == ','))
      s = str_from(s, 1);
    if (!s.len || s.p[0] != '#')
      return s;
    ptrdiff_t end = str_find_byte(s, '\n');
    s = end < 0 ? str_from(s, s.len) : str_from(s, end + 1);
  }
}

/* An item that is quoted as a whole: index behind its closing quote, or 0. */
static size_t whole_quote_end(struct str s) {
  if (s.p[0] != '"')
    return 0;
  size_t i = 1;
  while (i < s.len && s.p[i] != '"')
    i += s.p[i] == '\\' && i + 1 < s.len ? 2 : 1;
  if (i >= s.len)
    return 0;
  size_t end = ++i;
  while (i < s.len && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\r'))
    i++;
  return i == s.len || s.p[i] == ',' || s.p[i] == '\n' ? end : 0;
}

/* End of an address: a comma or newline outside of quotes, comments and <…>. */
static size_t address_end(struct str s) {
  size_t i = 0;
  int comment = 0;
  bool quoted = false, angle = false;
  for (; i < s.len; i++) {
    char c = s.p[i];
    if (c == '\\') {
      i++;
    } else if (quoted) {
      quoted = c != '"';
    } else if (comment) {
      comment += c == '(' ? 1 : c == ')' ? -1 : 0;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '(') {
      comment = 1;
    } else if (c == '<') {
      angle = true;
    } else if (c == '>') {
      angle = false;
    } else if (c == '\n' || (c == ',' && !angle)) {
      break;
    }
  }
  if (i < s.len || (!quoted && !comment && !angle))
    return i > s.len ? s.len : i;
  /* Something is never closed: the line is all of it. */
  ptrdiff_t line = str_find_byte(s, '\n');
  return line < 0 ? s.len : (size_t)line;
}

static size_t plain_end(struct str s) {
  size_t i = 0;
  while (i < s.len && s.p[i] != ',' && s.p[i] != '\n')
    i++;
  return i;
}

static struct str dequote(struct arena *a, struct str s) {
  struct buf b;
  buf_init(&b, a, s.len + 1);
  for (size_t i = 1; i + 1 < s.len; i++) {
    if (s.p[i] == '\\' && i + 2 < s.len)
      i++;
    buf_add_byte(&b, s.p[i]);
  }
  struct str r = buf_str(&b);
  r.taint = s.taint;
  return r;
}

/* --- special items --- */

static bool fail(struct parser *p, enum redirect_result result, struct str text) {
  p->out->result = result;
  p->out->text = text;
  return false;
}

static bool error(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool error(struct parser *p, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(p->arena, fmt, ap);
  va_end(ap);
  return fail(p, REDIRECT_ERROR, text);
}

/* The text of :fail: and :defer: is all that follows: commas and newlines belong to it, as administrators have come to know
(the manual says that a newline ends it). */
static bool forced(struct parser *p, struct str s, size_t word, bool allowed, enum redirect_result result) {
  if (!allowed)
    return error(p, "\"%.*s\" is not permitted", STRF(str_rtrim(s)));
  return fail(p, result, str_dup(p->arena, str_trim(str_from(s, word))));
}

static bool parse_list(struct parser *p, struct str s);

static bool path_has_dotdot(struct str path) {
  return str_find(path, STR("/../")) >= 0 || str_ends(path, STR("/.."));
}

static bool include(struct parser *p, struct str path) {
  const struct redirect_rules *r = p->rules;
  struct str text, why;
  if (r->forbid_include)
    return error(p, "included files not permitted");
  if (!path.len)
    return error(p, "file name missing after :include:");
  if (path.p[0] != '/')
    return error(p, "included file \"%.*s\" is not an absolute path", STRF(path));
  if (str_is_tainted(path))
    return error(p, "Tainted name '%.*s' for included file  not permitted", STRF(path));
  if (str_is_set(r->include_directory)) {
    struct str d = r->include_directory;
    if (d.len && d.p[d.len - 1] == '/')
      d = str_slice(d, 0, d.len - 1);
    if (!str_starts(path, d) || path.len <= d.len || path.p[d.len] != '/' || path_has_dotdot(path))
      return error(p, "included file %.*s is not in directory %.*s", STRF(path), STRF(d));
  }
  if (p->depth >= INCLUDE_DEPTH_MAX)
    return error(p, "included files are nested too deeply at %.*s", STRF(path));
  int rc = r->read_file ? r->read_file(r->arg, p->arena, path, &text, &why) : OUTCOME_FAIL;
  if (rc)
    return fail(p, rc == OUTCOME_DEFER ? REDIRECT_INCLUDE_DEFER : REDIRECT_ERROR,
        r->read_file ? why : STR("included files cannot be read here"));
  p->depth++;
  bool more = parse_list(p, text);
  p->depth--;
  return more;
}

/* Items that begin with a colon. *used is set to their length. */
static bool special(struct parser *p, struct str s, size_t *used, bool *is_special) {
  const struct redirect_rules *r = p->rules;
  *is_special = true;
  if (str_istarts(s, STR(":blackhole:"))) {
    if (r->forbid_blackhole)
      return error(p, "\":blackhole:\" is not permitted");
    return fail(p, REDIRECT_BLACKHOLE, STR_EMPTY);
  }
  if (str_istarts(s, STR(":unknown:")))
    return fail(p, REDIRECT_UNKNOWN, STR_EMPTY);
  if (str_istarts(s, STR(":defer:")))
    return forced(p, s, 7, r->allow_defer, REDIRECT_DEFER);
  if (str_istarts(s, STR(":fail:")))
    return forced(p, s, 6, r->allow_fail, REDIRECT_FAIL);
  if (str_istarts(s, STR(":include:"))) {
    *used = plain_end(s);
    return include(p, str_trim(str_slice(s, 9, *used)));
  }
  *is_special = false;
  return true;
}

/* --- items --- */

static bool add(struct parser *p, enum redirect_kind kind, struct str text, bool backslash) {
  struct redirect_item item = {.kind = kind, .text = str_dup(p->arena, text), .backslash = backslash};
  if (p->out->items.n >= p->rules->items_max)
    return error(p, "too many items (more than %zu)", p->rules->items_max);
  vec_push(p->arena, &p->out->items, item);
  return true;
}

static bool bad_item(struct parser *p, struct str item, struct str why) {
  struct str shown = str_trim(item);
  if (!p->rules->skip_syntax_errors)
    return error(p, "%.*s in \"%.*s\"", STRF(why), STRF(shown));
  struct redirect_skipped s = {.item = str_dup(p->arena, shown), .error = str_dup(p->arena, why)};
  vec_push(p->arena, &p->out->skipped, s);
  return true;
}

static bool one_item(struct parser *p, struct str item) {
  struct mail_address m;
  struct str why = STR_EMPTY;
  if (!item.len)
    return true;
  if (item.p[0] == '|' || item.p[0] == '/') {
    /* X.400 and UUCP addresses look like paths; what has a domain is an address. */
    if (!address_parse(p->arena, item, p->rules->address_flags, &m, &why) && m.domain.len)
      return add(p, REDIRECT_ADDRESS, m.address, false);
    return add(p, item.p[0] == '|' ? REDIRECT_PIPE : REDIRECT_FILE, item, false);
  }
  if (item.p[0] == '\\' && !address_parse(p->arena, str_from(item, 1), p->rules->address_flags, &m, &why) && m.address.len &&
      !m.domain.len)
    return add(p, REDIRECT_ADDRESS, m.address, true);
  if (address_parse(p->arena, item, p->rules->address_flags | ADDRESS_ALLOW_EMPTY, &m, &why))
    return str_eq_c(why, "empty address") ? true : bad_item(p, item, why); /* a comment alone is no error */
  /* Comments only yield nothing; so does <> in a list of addresses only by mistake. */
  if (!m.address.len)
    return str_find_byte(item, '<') >= 0 ? bad_item(p, item, STR("missing or malformed local part")) : true;
  return add(p, REDIRECT_ADDRESS, m.address, false);
}

/* False: the rest of the list does not count any more. */
static bool parse_list(struct parser *p, struct str s) {
  for (s = skip_gap(s); s.len; s = skip_gap(s)) {
    size_t used = 0;
    bool is_special = false;
    size_t quoted = whole_quote_end(s);
    struct str item;
    if (quoted) {
      item = str_trim(dequote(p->arena, str_slice(s, 0, quoted)));
      used = quoted;
      if (item.len && item.p[0] == ':') {
        size_t ignored;
        if (!special(p, item, &ignored, &is_special))
          return false;
      }
    } else {
      if (s.p[0] == ':' && !special(p, s, &used, &is_special))
        return false;
      if (!is_special)
        used = s.p[0] == '|' || s.p[0] == '/' ? plain_end(s) : address_end(s);
      item = str_trim(str_slice(s, 0, used));
    }
    if (!is_special && !one_item(p, item))
      return false;
    s = str_from(s, used);
  }
  return true;
}

void redirect_parse(struct arena *a, struct str data, const struct redirect_rules *rules, struct redirect_parsed *ret) {
  struct parser p = {.arena = a, .rules = rules, .out = ret};
  memset(ret, 0, sizeof *ret);
  ret->result = REDIRECT_ITEMS;
  ret->text = STR_EMPTY;
  parse_list(&p, data);
}
