/* Byte classes of ASCII, independent of the locale. Bytes above 127 belong to
no class. */
#pragma once

#include <stdbool.h>

static inline bool ascii_is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool ascii_is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static inline bool ascii_is_lower(char c) { return c >= 'a' && c <= 'z'; }
static inline bool ascii_is_alpha(char c) { return ascii_is_upper(c) || ascii_is_lower(c); }
static inline bool ascii_is_alnum(char c) { return ascii_is_alpha(c) || ascii_is_digit(c); }
/* Blank, tab, LF, VT, FF, CR. */
static inline bool ascii_is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static inline bool ascii_is_print(char c) { return c >= 32 && c < 127; }
static inline bool ascii_is_cntrl(char c) { return (c >= 0 && c < 32) || c == 127; }
static inline bool ascii_is_punct(char c) { return c > 32 && c < 127 && !ascii_is_alnum(c); }
static inline char ascii_lower(char c) { return ascii_is_upper(c) ? (char)(c + 32) : c; }
static inline char ascii_upper(char c) { return ascii_is_lower(c) ? (char)(c - 32) : c; }
/* 0-15, or -1. */
static inline int ascii_hex_value(char c) {
  if (ascii_is_digit(c))
    return c - '0';
  c = ascii_lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
static inline bool ascii_is_xdigit(char c) { return ascii_hex_value(c) >= 0; }
