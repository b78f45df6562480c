/* The reader of foreign bytes: its reads cannot pass the end. A read that would
returns zero or an empty string and sets `failed`, which stays set: check it
once at the end. Strings taken carry the taint of the source. */
#pragma once

#include "base/str.h"

struct cursor {
  struct str s; /* the whole */
  size_t at;
  bool failed;
};

static inline struct cursor cursor_of(struct str s) { return (struct cursor){s, 0, false}; }
static inline size_t cursor_left(const struct cursor *c) { return c->s.len - c->at; }
static inline bool cursor_at_end(const struct cursor *c) { return c->at >= c->s.len; }
static inline struct str cursor_rest(const struct cursor *c) { return str_from(c->s, c->at); }

/* The next byte without moving, or -1 at the end (which is no failure). */
static inline int cursor_peek(const struct cursor *c) {
  return cursor_at_end(c) ? -1 : (unsigned char)c->s.p[c->at];
}
/* Moves over the byte b if it is next. */
static inline bool cursor_accept(struct cursor *c, char b) {
  if (cursor_peek(c) != (unsigned char)b)
    return false;
  c->at++;
  return true;
}
/* Moves over a text if it is next (ASCII case ignored). */
bool cursor_accept_word(struct cursor *c, struct str word);

/* Exactly n bytes. */
struct str cursor_take(struct cursor *c, size_t n);
void cursor_skip(struct cursor *c, size_t n);
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c); /* network byte order */
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);

/* The longest part from here on for whose bytes fn is true, perhaps empty. */
struct str cursor_take_while(struct cursor *c, bool (*fn)(char b));
/* Up to the byte b, which is skipped; fails without moving when there is none. */
struct str cursor_take_until(struct cursor *c, char b);
/* Moves over blanks and tabs, or over all white space. */
void cursor_skip_blanks(struct cursor *c);
void cursor_skip_space(struct cursor *c);
/* Decimal digits, at least one; fails on overflow. */
uint64_t cursor_decimal(struct cursor *c);
