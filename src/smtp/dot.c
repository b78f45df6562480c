#include "smtp/dot.h"

#include <string.h>

enum { LINE_START, MID_LINE, AFTER_CR, DOT, DOT_CR };

void dot_init(struct dot *d, enum dot_kind kind) { *d = (struct dot){.kind = kind, .header = true}; }

void dot_body(struct dot *d) {
  d->header = false;
  d->line_done = false;
  d->lines = d->zeros = 0;
}

/* A line is complete. */
static char *end_line(struct dot *d, char *o) {
  *o++ = '\n';
  d->lines++;
  if (d->line_length > d->max_line_length)
    d->max_line_length = d->line_length;
  d->line_length = 0;
  d->state = LINE_START;
  if (d->header)
    d->line_done = true;
  return o;
}

/* A bare CR, or a bare LF in the header of a message in CRLF mode. */
static char *bare_end(struct dot *d, char *o) {
  if (!d->mode_known && d->kind != DOT_SMTP)
    d->mode_known = true; /* a program that writes bare CRs has no CRLF discipline; over SMTP that must not open LF mode */
  o = end_line(d, o);
  d->line_done = false;
  d->state = MID_LINE;
  if (d->header) {
    *o++ = ' ';
    d->line_length = 1;
  }
  return o;
}

static char *line_feed(struct dot *d, char *o) {
  if (!d->mode_known) {
    d->mode_known = true; /* LF mode */
    return end_line(d, o);
  }
  if (!d->crlf)
    return end_line(d, o);
  if (d->header)
    return bare_end(d, o);
  *o++ = ' ';
  d->line_length++;
  d->state = MID_LINE;
  return o;
}

static char *crlf(struct dot *d, char *o) {
  if (!d->mode_known)
    d->mode_known = d->crlf = true;
  return end_line(d, o);
}

/* Text without CR and LF, in one piece. */
static size_t take_text(struct dot *d, const char *p, size_t n, char *o) {
  const char *lf = memchr(p, '\n', n);
  size_t len = lf ? (size_t)(lf - p) : n;
  const char *cr = memchr(p, '\r', len);
  if (cr)
    len = (size_t)(cr - p);
  memcpy(o, p, len);
  d->line_length += (int64_t)len;
  for (const char *z = p, *end = p + len; (z = memchr(z, 0, (size_t)(end - z))) != NULL; z++)
    d->zeros++;
  return len;
}

static bool is_end_after_dot(const struct dot *d) { return !d->mode_known || !d->crlf; }

size_t dot_run(struct dot *d, struct str in, char *out, size_t *ret_out) {
  size_t i = 0;
  char *o = out;
  d->line_done = false;
  while (i < in.len && !d->ended && !d->line_done) {
    char ch = in.p[i];
    switch (d->state) {
      case AFTER_CR:
        if (ch == '\n') {
          o = crlf(d, o);
          i++;
        } else {
          o = bare_end(d, o); /* the byte is looked at again */
        }
        break;
      case DOT:
        if (ch == '\r') {
          d->state = DOT_CR;
          i++;
        } else if (ch == '\n' && is_end_after_dot(d)) {
          d->ended = true;
          i++;
        } else {
          if (d->kind == DOT_LOCAL) {
            *o++ = '.';
            d->line_length++;
          }
          d->state = MID_LINE;
        }
        break;
      case DOT_CR:
        if (ch == '\n') {
          d->ended = true;
          i++;
        } else {
          if (d->kind == DOT_LOCAL) {
            *o++ = '.';
            d->line_length++;
          }
          d->state = AFTER_CR;
        }
        break;
      default: /* LINE_START, MID_LINE */
        if (ch == '\r') {
          d->state = AFTER_CR;
          i++;
        } else if (ch == '\n') {
          o = line_feed(d, o);
          i++;
        } else if (ch == '.' && d->state == LINE_START && d->kind != DOT_PLAIN) {
          d->state = DOT;
          i++;
        } else {
          size_t n = take_text(d, in.p + i, in.len - i, o);
          o += n;
          i += n;
          d->state = MID_LINE;
        }
    }
  }
  *ret_out = (size_t)(o - out);
  return i;
}

size_t dot_finish(struct dot *d, char *out) {
  char *o = out;
  d->line_done = false;
  if (d->ended)
    return 0;
  if (d->state == DOT && d->kind == DOT_LOCAL) { /* without its line end it is text */
    *o++ = '.';
    d->line_length++;
    o = end_line(d, o);
    return (size_t)(o - out);
  }
  if (d->state == DOT || d->state == DOT_CR) { /* a last line of just a dot, cut short */
    if (d->kind == DOT_LOCAL)
      d->ended = true;
    d->state = LINE_START;
    return 0;
  }
  if (d->state != LINE_START)
    o = end_line(d, o);
  return (size_t)(o - out);
}
