#include "mailauth/tags.h"

#include "base/ascii.h"

static bool is_space(char ch) { return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n'; }

static struct str trim(struct str s) {
  while (s.len > 0 && is_space(s.p[0]))
    s = str_from(s, 1);
  while (s.len > 0 && is_space(s.p[s.len - 1]))
    s.len--;
  return s;
}

static bool is_name(struct str s) {
  if (s.len == 0 || !ascii_is_alpha(s.p[0]))
    return false;
  for (size_t i = 1; i < s.len; i++)
    if (!ascii_is_alnum(s.p[i]) && s.p[i] != '_')
      return false;
  return true;
}

/* Printing characters and white space; UTF-8 for internationalised mail (RFC 8616). */
static bool is_value(struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if (((unsigned char)s.p[i] < ' ' && !is_space(s.p[i])) || s.p[i] == 127)
      return false;
  return true;
}

bool tags_parse(struct arena *a, struct str text, struct tag_list *ret) {
  struct str rest = text;
  *ret = (struct tag_list){.v = arena_array(a, struct tag, TAGS_MAX)};
  while (str_is_set(rest)) {
    struct str spec = str_cut(&rest, ';'), value = spec;
    if (trim(spec).len == 0) {
      if (str_is_set(rest))
        return false; /* only the end may be empty */
      break;
    }
    struct str name = trim(str_cut(&value, '='));
    if (!str_is_set(value) || !is_name(name) || !is_value(value) || ret->n == TAGS_MAX)
      return false;
    for (size_t i = 0; i < ret->n; i++)
      if (str_eq(ret->v[i].name, name))
        return false;
    ret->v[ret->n++] = (struct tag){name, trim(value), value};
  }
  return ret->n > 0;
}

const struct tag *tags_find(const struct tag_list *l, const char *name) {
  for (size_t i = 0; i < l->n; i++)
    if (str_eq_c(l->v[i].name, name))
      return &l->v[i];
  return NULL;
}

struct str tags_value(const struct tag_list *l, const char *name) {
  const struct tag *t = tags_find(l, name);
  return t ? t->value : STR_UNSET;
}

struct str tags_squeeze(struct arena *a, struct str value) {
  char *p = arena_bytes(a, value.len + 1);
  uint32_t n = 0;
  for (size_t i = 0; i < value.len; i++)
    if (!is_space(value.p[i]))
      p[n++] = value.p[i];
  p[n] = 0;
  return (struct str){p, n, value.taint};
}
