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

void buf_init(struct buf *b, struct arena *arena, size_t max);
void buf_add(struct buf *b, struct str s);
void buf_add_n(struct buf *b, const char *p, size_t n); /* untainted bytes */
void buf_add_c(struct buf *b, const char *c);
void buf_add_byte(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void buf_truncate(struct buf *b, size_t len);
/* The text so far, NUL-terminated behind its end; valid until the next addition. */
struct str buf_str(struct buf *b);
