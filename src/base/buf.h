/* Growable text in an arena, with a maximum that must be given. It joins the
taint of what is added. When an addition would pass the maximum nothing of it
is added and `overflow` stays set: check it once at the end. */
#pragma once

#include <stdarg.h>
#include "base/str.h"

struct arena;

struct buf {
  struct arena *arena;
  char *p;
  size_t len, cap, max;
  uint32_t taint;
  bool overflow;
};

/* Limits of general use. */
#define BUF_MAX_EXPANSION (64u << 20)
#define BUF_MAX_LINE (64u << 10)

static inline void buf_init(struct buf *b, struct arena *arena, size_t max) {
  *b = (struct buf){.arena = arena, .max = max};
}
/* Makes room for n more bytes and a NUL; false when the maximum would be passed. */
bool buf_grow(struct buf *b, size_t n);
static inline bool buf_room(struct buf *b, size_t n) {
  return __builtin_expect(n < b->cap - b->len && !b->overflow, 1) || buf_grow(b, n);
}
static inline void buf_add_n(struct buf *b, const char *p, size_t n) { /* untainted bytes */
  if (n == 0 || !buf_room(b, n))
    return;
  memcpy(b->p + b->len, p, n);
  b->len += n;
}
static inline void buf_add(struct buf *b, struct str s) {
  b->taint = str_taint_join(b->taint, s.taint);
  buf_add_n(b, s.p, s.len);
}
static inline void buf_add_c(struct buf *b, const char *c) { buf_add_n(b, c, strlen(c)); }
static inline void buf_add_byte(struct buf *b, char c) {
  if (buf_room(b, 1))
    b->p[b->len++] = c;
}
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void buf_truncate(struct buf *b, size_t len);
/* The text so far, NUL-terminated behind its end; valid until the next addition. */
static inline struct str buf_str(struct buf *b) {
  if (b->p)
    b->p[b->len] = '\0';
  return (struct str){b->p ? b->p : "", (uint32_t)b->len, b->taint};
}
