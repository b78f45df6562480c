#include "mailauth/canon.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <string.h>

#include "base/ascii.h"

/* ---- header fields ---- */

static void simple_header(struct str field, struct buf *out) {
  struct str rest = field;
  while (str_is_set(rest) && rest.len > 0) {
    struct str line = str_cut(&rest, '\n');
    buf_add(out, line);
    if (str_is_set(rest))
      buf_add_c(out, "\r\n");
  }
}

static void relaxed_header(struct str field, struct buf *out) {
  ptrdiff_t colon = str_find_byte(field, ':');
  struct str name = str_rtrim(str_slice(field, 0, colon < 0 ? field.len : (size_t)colon));
  out->taint = str_taint_join(out->taint, field.taint);
  for (size_t i = 0; i < name.len; i++)
    buf_add_byte(out, ascii_lower(name.p[i]));
  buf_add_byte(out, ':');
  bool space = false, any = false;
  for (size_t i = colon < 0 ? field.len : (size_t)colon + 1; i < field.len;) {
    size_t from = i;
    while (i < field.len && field.p[i] != ' ' && field.p[i] != '\t' && field.p[i] != '\n' && field.p[i] != '\r')
      i++;
    if (i > from) {
      if (space && any)
        buf_add_byte(out, ' ');
      buf_add_n(out, field.p + from, i - from);
      space = false;
      any = true;
    } else {
      space = true;
      i++;
    }
  }
}

void canon_header(enum canon how, struct str field, bool crlf, struct buf *out) {
  while (field.len > 0 && field.p[field.len - 1] == '\n')
    field.len--;
  if (how == CANON_SIMPLE)
    simple_header(field, out);
  else
    relaxed_header(field, out);
  if (crlf)
    buf_add_c(out, "\r\n");
}

/* ---- bodies ----

Blocks of 64 bytes are searched for what the canonical form changes; all between is copied as it is. What was copied last is the
state: a blank there may still be one at the end of a line, line ends may be the body's last. Both are held back when the rest
is handed on. */

#define BLOCK 64

void canon_body_begin(struct canon_body *b, enum canon how, uint64_t limit, void (*sink)(void *arg, const char *p, size_t n),
    void *arg) {
  b->how = how;
  b->limit = limit;
  b->total = b->line_ends = 0;
  b->sink = sink;
  b->arg = arg;
  b->n = 0;
  b->before_out[0] = 0;
}

static void hand_on(struct canon_body *b, const char *p, size_t n) {
  uint64_t room = b->total < b->limit ? b->limit - b->total : 0;
  b->total += n;
  if (n > room)
    n = (size_t)room;
  if (n > 0)
    b->sink(b->arg, p, n);
}

static void hand_on_line_ends(struct canon_body *b) {
  static const char some[] = "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";
  while (b->line_ends > 0) {
    uint64_t n = b->line_ends < sizeof some / 2 ? b->line_ends : sizeof some / 2;
    hand_on(b, some, 2 * (size_t)n);
    b->line_ends -= n;
  }
}

/* Hands on what is sure to count, in pieces that hash functions take without leaving a rest, but for the last one. */
static void flush(struct canon_body *b, bool last) {
  char *text = b->before_out + 1;
  size_t n = b->n, most = sizeof b->before_out / 2;
  uint64_t line_ends = 0;
  bool blank = b->how == CANON_RELAXED && n > 0 && text[n - 1] == ' ';
  n -= blank;
  for (; n > 1 && text[n - 1] == '\n'; n -= 2) /* no LF is there without its CR */
    line_ends++;
  if (n > 0)
    hand_on_line_ends(b);
  size_t rest = (size_t)((b->total + n) % (2 * BLOCK));
  if (!last && n > most) {
    hand_on(b, text, n - rest);
    b->n -= n - rest;
    memmove(text, text + n - rest, b->n);
    return;
  }
  hand_on(b, text, n);
  b->line_ends += line_ends;
  text[0] = ' ';
  b->n = blank;
}

#ifdef __SSE2__
static inline uint64_t find_16(const char *p, __m128i ch) {
  return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), ch));
}

/* Which of 64 bytes are `ch`. */
__attribute__((always_inline)) static inline uint64_t find(const char *p, char ch) {
  __m128i x = _mm_set1_epi8(ch);
  return find_16(p, x) | find_16(p + 16, x) << 16 | find_16(p + 32, x) << 32 | find_16(p + 48, x) << 48;
}
#else
__attribute__((always_inline)) static inline uint64_t find(const char *p, char ch) {
  uint64_t found = 0;
  for (int i = 0; i < BLOCK; i++)
    found |= (uint64_t)(p[i] == ch) << i;
  return found;
}
#endif

/* The first n of the 128 bytes at `p`, which may all be read, as those behind what was copied may be written. Sixty-four are
copied always, since that is faster than to copy as many as there are. */
__attribute__((always_inline)) static inline char *add_block(char *out, const char *p, size_t n, bool relaxed) {
  uint64_t line_ends = find(p, '\n'), changes = line_ends;
  size_t from = 0;
  if (relaxed) {
    uint64_t tabs = find(p, '\t'), blanks = find(p, ' ') | tabs;
    changes |= tabs | (blanks & (blanks << 1 | (out[-1] == ' ')));
  }
  if (n < BLOCK)
    changes &= (UINT64_C(1) << n) - 1;
  for (; changes != 0; changes &= changes - 1) {
    size_t at = (size_t)__builtin_ctzll(changes);
    memcpy(out, p + from, BLOCK);
    out += at - from;
    from = at + 1;
    bool blank = relaxed && out[-1] == ' ';
    if (p[at] == '\n') {
      out -= blank;
      memcpy(out, "\r\n", 2);
      out += 2;
    } else if (!blank) {
      *out++ = ' ';
    }
  }
  memcpy(out, p + from, BLOCK);
  return out + (n - from);
}

/* Is it time to make room? */
static inline char *make_room(struct canon_body *b, char *out) {
  char *text = b->before_out + 1;
  b->n = (size_t)(out - text);
  if (b->n <= sizeof b->before_out - 1 - 3 * BLOCK)
    return out;
  flush(b, false);
  return text + b->n;
}

__attribute__((always_inline)) static inline void add_blocks(struct canon_body *b, struct str data, bool relaxed) {
  char rest[2 * BLOCK], *out = b->before_out + 1 + b->n;
  const char *p = data.p, *end = data.p + data.len;
  for (; (size_t)(end - p) >= 2 * BLOCK; p += BLOCK)
    out = make_room(b, add_block(out, p, BLOCK, relaxed));
  while (p < end) {
    size_t n = (size_t)(end - p) < BLOCK ? (size_t)(end - p) : BLOCK;
    memset(rest, 0, sizeof rest);
    memcpy(rest, p, n);
    out = make_room(b, add_block(out, rest, n, relaxed));
    p += n;
  }
}

void canon_body_add(struct canon_body *b, struct str data) {
  if (b->how == CANON_RELAXED)
    add_blocks(b, data, true);
  else
    add_blocks(b, data, false);
}

void canon_body_end(struct canon_body *b) {
  flush(b, true);
  b->n = 0;
  /* A last line without its end gets one; a body of empty lines is empty, or one line end in the simple form. */
  if (b->total > 0 || b->how == CANON_SIMPLE)
    hand_on(b, "\r\n", 2);
}
