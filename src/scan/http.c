#include "scan/http.h"

#include "base/buf.h"

#define INTERIM_MAX 10 /* answers 1xx */

struct framing {
  bool length_seen, chunked, bad, close, keep_alive;
  uint64_t length;
};

/* Is the word in the comma list? */
static bool has_word(struct str list, const char *word) {
  while (str_is_set(list))
    if (str_ieq_c(str_trim(str_cut(&list, ',')), word))
      return true;
  return false;
}

static void read_field(struct str name, struct str value, struct framing *f) {
  uint64_t n;
  if (str_ieq_c(name, "Content-Length")) {
    if (!str_to_u64(value, &n) || n > HTTP_BODY_MAX || (f->length_seen && n != f->length))
      f->bad = true;
    else
      f->length = n;
    f->length_seen = true;
  } else if (str_ieq_c(name, "Transfer-Encoding")) {
    f->bad |= f->chunked || !str_ieq_c(value, "chunked");
    f->chunked = true;
  } else if (str_ieq_c(name, "Connection")) {
    f->close |= has_word(value, "close");
    f->keep_alive |= has_word(value, "keep-alive");
  }
}

/* The status line and the fields; `head` is without the empty line. */
static bool read_head(struct str head, struct http_answer *ret, struct framing *f) {
  struct str rest = head;
  ret->line = str_rtrim(str_cut(&rest, '\n'));
  uint64_t status;
  if (!str_starts(ret->line, STR("HTTP/1.")) || ret->line.len < 12 || !str_to_u64(str_slice(ret->line, 9, 12), &status) || status < 100 ||
      ret->line.p[8] != ' ')
    return false;
  ret->status = (int)status;
  *f = (struct framing){0};
  while (str_is_set(rest)) {
    struct str line = str_cut(&rest, '\n'), value = line, name = str_cut(&value, ':');
    if (str_is_set(value))
      read_field(name, str_trim(value), f);
  }
  ret->keep = !f->close && (ret->line.p[7] != '0' || f->keep_alive);
  /* Two lengths: somebody between us and the server may have taken the other one. */
  if (f->chunked && f->length_seen)
    ret->keep = false;
  return !f->bad;
}

static bool read_hex(struct str text, uint32_t *ret) {
  *ret = 0;
  for (size_t i = 0; i < text.len; i++) {
    char c = text.p[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0 || i == 7)
      return false;
    *ret = *ret * 16 + (uint32_t)digit;
  }
  return text.len > 0;
}

/* A line with its CRLF off the front. HTTP_BAD: it is too long. */
static enum http_state cut_line(struct str *text, struct str *ret) {
  ptrdiff_t end = str_find(str_slice(*text, 0, text->len < 4096 ? text->len : 4096), STR("\r\n"));
  if (end < 0)
    return text->len >= 4096 ? HTTP_BAD : HTTP_MORE;
  *ret = str_slice(*text, 0, (size_t)end);
  *text = str_from(*text, (size_t)end + 2);
  return HTTP_DONE;
}

/* Up to the empty line behind the last chunk. `b` gets the data; NULL: it is only looked whether all is there. */
static enum http_state read_chunks(struct str *text, struct buf *b) {
  struct str line, extension;
  enum http_state state;
  uint32_t n;
  do {
    if ((state = cut_line(text, &line)) != HTTP_DONE)
      return state;
    extension = line;
    if (!read_hex(str_rtrim(str_cut(&extension, ';')), &n) || n > HTTP_BODY_MAX)
      return HTTP_BAD;
    if (n == 0)
      break;
    if (text->len < (size_t)n + 2)
      return HTTP_MORE;
    if (text->p[n] != '\r' || text->p[n + 1] != '\n')
      return HTTP_BAD;
    if (b)
      buf_add(b, str_slice(*text, 0, n));
    *text = str_from(*text, (size_t)n + 2);
  } while (true);
  do {
    if ((state = cut_line(text, &line)) != HTTP_DONE)
      return state;
  } while (line.len > 0);
  return HTTP_DONE;
}

static enum http_state read_chunked_body(struct arena *a, struct str *text, struct http_answer *ret) {
  struct str again = *text;
  enum http_state state = read_chunks(text, NULL);
  if (state != HTTP_DONE)
    return state;
  struct buf b;
  buf_init(&b, a, HTTP_BODY_MAX);
  b.taint = again.taint;
  (void)read_chunks(&again, &b);
  ret->body = buf_str(&b);
  return b.overflow ? HTTP_BAD : HTTP_DONE;
}

static enum http_state read_body(struct arena *a, struct str text, bool ended, const struct framing *f, struct http_answer *ret) {
  enum http_state state = HTTP_DONE;
  if (ret->status == 204 || ret->status == 304) {
    ret->body = STR_EMPTY;
  } else if (f->chunked) {
    state = read_chunked_body(a, &text, ret);
  } else if (f->length_seen) {
    if (text.len < f->length)
      return HTTP_MORE;
    ret->body = str_slice(text, 0, f->length);
    text = str_from(text, f->length);
  } else {
    ret->body = text;
    ret->keep = false;
    return ended ? HTTP_DONE : text.len > HTTP_BODY_MAX ? HTTP_BAD : HTTP_MORE;
  }
  ret->keep = ret->keep && text.len == 0 && !ended;
  return state;
}

enum http_state http_read_answer(struct arena *a, struct str text, bool ended, struct http_answer *ret) {
  enum http_state state = HTTP_MORE;
  struct framing f;
  for (int n = 0; n <= INTERIM_MAX; n++) {
    ptrdiff_t end = str_find(str_slice(text, 0, text.len < HTTP_HEAD_MAX ? text.len : HTTP_HEAD_MAX), STR("\r\n\r\n"));
    if (end < 0)
      return ended || text.len >= HTTP_HEAD_MAX ? HTTP_BAD : HTTP_MORE;
    if (!read_head(str_slice(text, 0, (size_t)end), ret, &f))
      return HTTP_BAD;
    text = str_from(text, (size_t)end + 4);
    if (ret->status < 200)
      continue;
    state = read_body(a, text, ended, &f, ret);
    return state == HTTP_MORE && ended ? HTTP_BAD : state;
  }
  return HTTP_BAD;
}
