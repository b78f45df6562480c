#include "expand/json.h"

#include "base/ascii.h"

/* Position behind the string that begins at `from` (a quote). */
static size_t skip_string(struct str s, size_t from) {
  size_t i = from + 1;
  while (i < s.len && s.p[i] != '"')
    i += s.p[i] == '\\' ? 2 : 1;
  return i < s.len ? i + 1 : s.len;
}

char json_unwrap(struct str text, char open, struct str *ret_inside) {
  char close = open == '[' ? ']' : '}';
  struct str s = str_trim(text);
  if (s.len == 0 || s.p[0] != open)
    return open;
  size_t depth = 0;
  for (size_t i = 0; i < s.len;) {
    char c = s.p[i];
    if (c == '"') {
      i = skip_string(s, i);
      continue;
    }
    depth += c == '[' || c == '{';
    depth -= c == ']' || c == '}';
    if (depth == 0) {
      if (c != close)
        return close;
      *ret_inside = str_slice(s, 1, i);
      return 0;
    }
    i++;
  }
  return close;
}

bool json_next(struct str *inside, struct str *ret_element) {
  struct str s = str_ltrim(*inside);
  if (s.len == 0)
    return false;
  size_t depth = 0, i = 0;
  while (i < s.len) {
    char c = s.p[i];
    if (c == '"') {
      i = skip_string(s, i);
      continue;
    }
    if (c == ',' && depth == 0)
      break;
    depth += c == '[' || c == '{';
    depth -= (c == ']' || c == '}') && depth > 0;
    i++;
  }
  *ret_element = str_slice(s, 0, i);
  *inside = str_from(s, i + 1);
  return true;
}

bool json_unquote(struct str element, struct str *ret) {
  struct str s = str_trim(element);
  if (s.len < 2 || s.p[0] != '"' || s.p[s.len - 1] != '"')
    return false;
  *ret = str_slice(s, 1, s.len - 1);
  return true;
}

const char *json_member(struct str element, struct str *ret_name, struct str *ret_value) {
  struct str s = str_ltrim(element);
  if (s.len == 0 || s.p[0] != '"')
    return "missing '\"' wrapping string key for extract json";
  size_t end = skip_string(s, 0);
  if (end < 2 || s.p[end - 1] != '"')
    return "missing '\"' wrapping string key for extract json";
  *ret_name = str_slice(s, 1, end - 1);
  s = str_ltrim(str_from(s, end));
  if (s.len == 0 || s.p[0] != ':')
    return "missing object value-separator for extract json";
  *ret_value = str_ltrim(str_from(s, 1));
  return NULL;
}
