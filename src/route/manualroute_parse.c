#include "route/manualroute.h"

struct str manualroute_word(struct arena *a, struct str *rest) {
  struct str s = str_ltrim(*rest);
  if (!s.len || s.p[0] != '"') {
    size_t n = 0;
    while (n < s.len && s.p[n] != ' ' && s.p[n] != '\t' && s.p[n] != '\n')
      n++;
    *rest = str_from(s, n);
    return str_slice(s, 0, n);
  }
  struct buf b;
  buf_init(&b, a, s.len + 1);
  size_t n = 1;
  for (; n < s.len && s.p[n] != '"'; n++) {
    if (s.p[n] == '\\' && n + 1 < s.len) {
      n++;
      buf_add_byte(&b, s.p[n] == 'n' ? '\n' : s.p[n] == 't' ? '\t' : s.p[n] == 'r' ? '\r' : s.p[n]);
    } else {
      buf_add_byte(&b, s.p[n]);
    }
  }
  *rest = str_from(s, n + 1);
  struct str word = buf_str(&b);
  word.taint = s.taint;
  return word;
}

void manualroute_parse_data(struct arena *a, struct str data, struct manualroute_rule *ret) {
  struct str rest = data;
  ret->hosts = manualroute_word(a, &rest);
  ret->options = str_trim(rest);
}

bool manualroute_parse_rule(struct arena *a, struct str item, struct manualroute_rule *ret) {
  struct str rest = item;
  ret->pattern = manualroute_word(a, &rest);
  manualroute_parse_data(a, rest, ret);
  return ret->pattern.len != 0;
}
