#include "base/cursor.h"

#include "base/ascii.h"

bool cursor_accept_word(struct cursor *c, struct str word) {
  if (!str_istarts(cursor_rest(c), word))
    return false;
  c->at += word.len;
  return true;
}

struct str cursor_take(struct cursor *c, size_t n) {
  if (c->failed || n > cursor_left(c)) {
    c->failed = true;
    return str_slice(c->s, 0, 0);
  }
  c->at += n;
  return str_slice(c->s, c->at - n, c->at);
}

void cursor_skip(struct cursor *c, size_t n) { cursor_take(c, n); }

static uint64_t number(struct cursor *c, size_t bytes) {
  struct str s = cursor_take(c, bytes);
  uint64_t v = 0;
  for (size_t i = 0; i < s.len; i++)
    v = v << 8 | (unsigned char)s.p[i];
  return v;
}

uint8_t cursor_u8(struct cursor *c) { return (uint8_t)number(c, 1); }
uint16_t cursor_u16(struct cursor *c) { return (uint16_t)number(c, 2); }
uint32_t cursor_u32(struct cursor *c) { return (uint32_t)number(c, 4); }
uint64_t cursor_u64(struct cursor *c) { return number(c, 8); }

struct str cursor_take_while(struct cursor *c, bool (*fn)(char b)) {
  size_t from = c->at;
  while (!cursor_at_end(c) && fn(c->s.p[c->at]))
    c->at++;
  return str_slice(c->s, from, c->at);
}

struct str cursor_take_until(struct cursor *c, char b) {
  ptrdiff_t n = str_find_byte(cursor_rest(c), b);
  if (n < 0) {
    c->failed = true;
    return str_slice(c->s, 0, 0);
  }
  struct str s = cursor_take(c, (size_t)n);
  cursor_skip(c, 1);
  return s;
}

static bool is_blank(char b) { return b == ' ' || b == '\t'; }

void cursor_skip_blanks(struct cursor *c) { cursor_take_while(c, is_blank); }
void cursor_skip_space(struct cursor *c) { cursor_take_while(c, ascii_is_space); }

uint64_t cursor_decimal(struct cursor *c) {
  uint64_t v = 0;
  if (!str_to_u64(cursor_take_while(c, ascii_is_digit), &v)) {
    c->failed = true;
    return 0;
  }
  return v;
}
