#include "base/buf.h"

#include <stdio.h>
#include "base/arena.h"

#define FIRST 64

bool buf_grow(struct buf *b, size_t n) {
  if (!b->p && n < FIRST && b->max >= FIRST && !b->overflow) {
    b->p = arena_bytes(b->arena, FIRST);
    b->cap = FIRST;
    return true;
  }
  if (b->overflow || n > b->max || b->len > b->max - n) {
    b->overflow = true;
    return false;
  }
  size_t need = b->len + n + 1;
  if (need <= b->cap)
    return true;
  size_t cap = b->cap ? b->cap : FIRST;
  while (cap < need)
    cap *= 2;
  if (cap > b->max + 1)
    cap = b->max + 1;
  b->p = arena_regrow(b->arena, b->p, b->cap, cap);
  b->cap = cap;
  return true;
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  size_t room = b->cap - b->len;
  int n = vsnprintf(room ? b->p + b->len : NULL, room, fmt, ap);
  if (n > 0 && buf_grow(b, (size_t)n)) {
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
