#include "base/ascii.h"
#include "filter/filter.h"

/* `#`, the word and `filter`, in any case, with white space or without. */
enum filter_kind filter_kind(struct str text) {
  struct str s = str_ltrim(text);
  if (!s.len || s.p[0] != '#')
    return FILTER_NONE;
  s = str_ltrim(str_from(s, 1));
  enum filter_kind kind = str_istarts(s, STR("exim")) ? FILTER_EXIM : str_istarts(s, STR("sieve")) ? FILTER_SIEVE : FILTER_NONE;
  s = str_ltrim(str_from(s, kind == FILTER_EXIM ? 4 : 5));
  return kind != FILTER_NONE && str_istarts(s, STR("filter")) ? kind : FILTER_NONE;
}
