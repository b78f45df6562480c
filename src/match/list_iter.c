#include "base/ascii.h"
#include "base/buf.h"
#include "match/match.h"

static void iter_start(struct list_iter *i, struct arena *a, struct str text, bool may_change) {
  *i = (struct list_iter){.sep = ':', .arena = a};
  struct str s = str_ltrim(text);
  if (s.len >= 2 && s.p[0] == '<' && may_change && (ascii_is_punct(s.p[1]) || ascii_is_cntrl(s.p[1]))) {
    i->sep = s.p[1];
    s = str_from(s, 2);
  } else if (may_change && str_eq_c(s, "<")) {
    s = STR_EMPTY;
  } else {
    s = text;
  }
  i->rest = s.p ? s : STR_EMPTY;
}

void list_iter_init(struct list_iter *i, struct arena *a, struct str text) {
  iter_start(i, a, text, !str_is_tainted(text));
}

void list_iter_init_literal(struct list_iter *i, struct arena *a, struct str text) { iter_start(i, a, text, true); }

/* An item with doubled separators: the first of them is at `at`. */
static struct str undouble(struct list_iter *i, struct str s, size_t at, size_t *ret_end) {
  struct buf b;
  buf_init(&b, i->arena, (size_t)s.len + 1);
  buf_add_n(&b, s.p, at + 1);
  size_t k = at + 2;
  while (k < s.len) {
    if (s.p[k] != i->sep) {
      buf_add_byte(&b, s.p[k++]);
    } else if (k + 1 < s.len && s.p[k + 1] == i->sep) {
      buf_add_byte(&b, i->sep);
      k += 2;
    } else {
      break;
    }
  }
  *ret_end = k;
  struct str item = buf_str(&b);
  item.taint = s.taint;
  return item;
}

bool list_next(struct list_iter *i, struct str *ret_item) {
  const char *p = i->rest.p, *end = p + i->rest.len, sep = i->sep;
  while (p < end && ascii_is_space(*p) && *p != sep)
    p++;
  if (p == end) {
    i->rest = str_from(i->rest, i->rest.len);
    return false;
  }
  const char *stop = memchr(p, sep, (size_t)(end - p)), *next = stop ? stop + 1 : end;
  if (!stop) {
    stop = end;
  } else if (next < end && *next == sep && !ascii_is_cntrl(sep)) {
    size_t used;
    struct str item = undouble(i, (struct str){p, (uint32_t)(end - p), i->rest.taint}, (size_t)(stop - p), &used);
    i->rest = str_from(i->rest, (size_t)(p - i->rest.p) + used + 1);
    *ret_item = str_rtrim(item);
    return true;
  }
  while (stop > p && ascii_is_space(stop[-1]))
    stop--;
  *ret_item = (struct str){p, (uint32_t)(stop - p), i->rest.taint};
  i->rest = (struct str){next, (uint32_t)(end - next), i->rest.taint};
  return true;
}

bool list_changes_separator(struct str text) {
  struct str s = str_ltrim(text);
  return s.len >= 2 && s.p[0] == '<' && (ascii_is_punct(s.p[1]) || ascii_is_cntrl(s.p[1]));
}

void list_add(struct buf *list, char sep, struct str item) {
  if (list->len > 0)
    buf_add_byte(list, sep);
  /* A separator in front of an item would otherwise be read as doubled with the one before. */
  if (item.len == 0 || (list->len > 0 && item.p[0] == sep))
    buf_add_byte(list, ' ');
  for (size_t k = 0; k < item.len; k++) {
    if (item.p[k] == sep && !ascii_is_cntrl(sep))
      buf_add_byte(list, sep);
    buf_add_byte(list, item.p[k]);
  }
  list->taint = str_taint_join(list->taint, item.taint);
}
