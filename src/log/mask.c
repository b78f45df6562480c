#include "log/mask.h"

#include "base/ascii.h"
#include "base/buf.h"

static const struct str stars = STR("***");

/* A word of its own: not the end of another one. */
static bool begins(struct str text, size_t at) {
  return at == 0 || !(ascii_is_alnum(text.p[at - 1]) || text.p[at - 1] == '_' || text.p[at - 1] == '-');
}

static size_t backslashes_before(struct str text, size_t at, size_t from) {
  size_t n = 0;
  while (at - n > from && text.p[at - n - 1] == '\\')
    n++;
  return n;
}

/* Where the value that begins at `at` ends: a word, or text in quotes, which may be escaped themselves. */
static size_t value_end(struct str text, size_t at) {
  size_t from = at, quote = at;
  while (quote < text.len && text.p[quote] == '\\')
    quote++;
  if (quote < text.len && text.p[quote] == '"') {
    size_t depth = quote - at;
    for (at = quote + 1; at < text.len; at++)
      if (text.p[at] == '"' && backslashes_before(text, at, quote + 1) <= depth)
        return at + 1;
    return text.len;
  }
  for (at = from; at < text.len && !ascii_is_space(text.p[at]);)
    at++;
  return at;
}

/* The list of servers that begins at `at`: *ret_from is behind the first host. false: nothing to hide. */
static bool servers_end(struct str text, size_t at, bool option, size_t *ret_from, size_t *ret_end) {
  size_t end = at, from = 0;
  int depth = 0;
  for (; end < text.len; end++) {
    char ch = text.p[end];
    if (ch == '{' || ch == '}' || ch == '\n' || (ch == ';' && !option))
      break;
    depth += ch == '(';
    depth -= ch == ')' && depth > 0;
    if (ch == '/' && depth == 0 && from == 0)
      from = end + 1;
  }
  *ret_from = from;
  *ret_end = end;
  /* Without its end it is something else, and LDAP's has no passwords. */
  bool ended = option || (end < text.len && text.p[end] == ';');
  return from > 0 && ended && str_ifind(str_slice(text, at, end), STR("ldap")) < 0;
}

struct str log_masked(struct arena *a, struct str text) {
  bool pass = str_ifind(text, STR("pass=")) >= 0 &&
      (str_ifind(text, STR("ldap")) >= 0 || str_ifind(text, STR("user=")) >= 0 || str_istarts(str_ltrim(text), STR("pass=")));
  if (!pass && str_ifind(text, STR("servers")) < 0)
    return text;
  struct buf b;
  buf_init(&b, a, (size_t)text.len * 2 + 16);
  size_t from, end;
  for (size_t i = 0; i < text.len;) {
    struct str rest = str_from(text, i);
    if (pass && str_istarts(rest, STR("pass=")) && begins(text, i)) {
      end = value_end(text, i + 5);
      buf_add(&b, str_slice(text, i, i + 5));
      if (end > i + 5)
        buf_add(&b, stars);
      i = end;
      continue;
    }
    if (str_istarts(rest, STR("servers")) && begins(text, i)) {
      size_t at = i + 7;
      while (at < text.len && (text.p[at] == ' ' || text.p[at] == '\t'))
        at++;
      bool option = i > 0 && text.p[i - 1] == ',';
      if (at < text.len && text.p[at] == '=' && servers_end(text, at + 1, option, &from, &end)) {
        buf_add(&b, str_slice(text, i, from));
        buf_add(&b, stars);
        i = end;
        continue;
      }
    }
    buf_add_byte(&b, text.p[i++]);
  }
  return buf_str(&b);
}
