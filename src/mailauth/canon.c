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

/* ---- bodies ---- */

void canon_body_begin(struct canon_body *b, enum canon how, uint64_t limit, void (*sink)(void *arg, const char *p, size_t n),
    void *arg) {
  b->how = how;
  b->limit = limit;
  b->total = b->line_ends = b->n = 0;
  b->sink = sink;
  b->arg = arg;
  b->space = false;
}

static void flush(struct canon_body *b) {
  uint64_t before = b->total - b->n;
  size_t n = b->n;
  if (before >= b->limit)
    n = 0;
  else if (n > b->limit - before)
    n = (size_t)(b->limit - before);
  if (n > 0)
    b->sink(b->arg, b->out, n);
  b->n = 0;
}

static void put_across(struct canon_body *b, const char *p, size_t n) {
  while (n > 0) {
    size_t room = sizeof b->out - b->n, now = n < room ? n : room;
    memcpy(b->out + b->n, p, now);
    b->n += now;
    b->total += now;
    p += now;
    n -= now;
    if (b->n == sizeof b->out)
      flush(b);
  }
}

static inline void put(struct canon_body *b, const char *p, size_t n) {
  if (n >= sizeof b->out - b->n) {
    put_across(b, p, n);
    return;
  }
  memcpy(b->out + b->n, p, n);
  b->n += n;
  b->total += n;
}

/* Bytes of a line come: what was held back counts. */
static inline void begin_bytes(struct canon_body *b) {
  for (; b->line_ends > 0; b->line_ends--)
    put(b, "\r\n", 2);
  if (b->space)
    put(b, " ", 1);
  b->space = false;
}

static void relaxed_piece(struct canon_body *b, const char *p, size_t n) {
  const char *end = p + n;
  while (p < end) {
    const char *from = p;
    while (p < end && *p != ' ' && *p != '\t')
      p++;
    if (p > from) {
      begin_bytes(b);
      put(b, from, (size_t)(p - from));
    }
    if (p < end) {
      b->space = true;
      while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    }
  }
}

#ifdef __SSE2__
/* Not 0: sixteen bytes hold two blanks in a row, or a tab. */
static unsigned blank_runs(const char *p, unsigned *before) {
  __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
  unsigned blanks = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_set1_epi8(' ')));
  unsigned runs = (blanks & (blanks << 1 | *before)) | (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_set1_epi8('\t')));
  *before = blanks >> 15;
  return runs;
}
#endif

/* Is the text of a line its own relaxed form: single blanks inside, none at the end? Nearly all text is like that, and this
is what large messages cost beside their hash. */
static bool is_relaxed(const char *p, size_t n) {
  unsigned runs = p[n - 1] == ' ' || p[n - 1] == '\t';
#ifdef __SSE2__
  unsigned before = 0;
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    runs |= blank_runs(p + i, &before);
  if (i < n && n >= 16) {
    before = 0;
    return (runs | blank_runs(p + n - 16, &before)) == 0; /* once more a part of what was seen */
  }
  if (i == n)
    return runs == 0;
#endif
  for (size_t k = 0; k < n; k++)
    runs |= p[k] == '\t' || (p[k] == ' ' && k > 0 && p[k - 1] == ' ');
  return runs == 0;
}

void canon_body_add(struct canon_body *b, struct str data) {
  const char *p = data.p, *end = data.p + data.len;
  while (p < end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    size_t n = (size_t)((nl ? nl : end) - p);
    if (n > 0 && b->how == CANON_RELAXED && ((b->space && *p == ' ') || !is_relaxed(p, n))) {
      relaxed_piece(b, p, n);
    } else if (n > 0) {
      begin_bytes(b);
      put(b, p, n);
    }
    if (nl == NULL)
      return;
    b->space = false; /* at the end of a line it does not count */
    b->line_ends++;
    p = nl + 1;
  }
}

void canon_body_end(struct canon_body *b) {
  /* A last line without its end gets one; a body of empty lines is empty, or one line end in the simple form. */
  if (b->total > 0 || b->how == CANON_SIMPLE)
    put(b, "\r\n", 2);
  flush(b);
}
