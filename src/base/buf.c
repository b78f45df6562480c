#include "base/buf.h"

#include <stdio.h>
#include "base/arena.h"

void buf_init(struct buf *b, struct arena *arena, size_t max) { *b = (struct buf){.arena = arena, .max = max}; }

/* Room for n more bytes and a NUL; false when the maximum would be passed. */
static bool reserve(struct buf *b, size_t n) {
  if (b->overflow || n > b->max || b->len > b->max - n) {
    b->overflow = true;
    return false;
  }
  size_t need = b->len + n + 1;
  if (need <= b->cap)
    return true;
  size_t cap = b->cap ? b->cap : 64;
  while (cap < need)
    cap *= 2;
  if (cap > b->max + 1)
    cap = b->max + 1;
  b->p = arena_regrow(b->arena, b->p, b->cap, cap);
  b->cap = cap;
  return true;
}

void buf_add_n(struct buf *b, const char *p, size_t n) {
  if (n == 0 || !reserve(b, n))
    return;
  memcpy(b->p + b->len, p, n);
  b->len += n;
}

void buf_add(struct buf *b, struct str s) {
  b->taint = str_taint_join(b->taint, s.taint);
  buf_add_n(b, s.p, s.len);
}

void buf_add_c(struct buf *b, const char *c) { buf_add_n(b, c, strlen(c)); }

void buf_add_byte(struct buf *b, char c) {
  if (reserve(b, 1))
    b->p[b->len++] = c;
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  size_t room = b->cap - b->len;
  int n = vsnprintf(room ? b->p + b->len : NULL, room, fmt, ap);
  if (n > 0 && reserve(b, (size_t)n)) {
    if ((size_t)n >= room)
      vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  buf_vprintf(b, fmt, ap);
  va_end(ap);
}

void buf_truncate(struct buf *b, size_t len) {
  if (len < b->len)
    b->len = len;
}

struct str buf_str(struct buf *b) {
  if (b->p)
    b->p[b->len] = '\0';
  return (struct str){b->p ? b->p : "", (uint32_t)b->len, b->taint};
}
