#include "expand/rfc2047.h"

#include <errno.h>
#include <iconv.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "base/encode.h"
#include "core/ctx.h"
#include "core/main_options.h"

#define WORD_MAX 75

/* One word: =?charset?X?text?= */
struct word {
  struct str charset, text;
  char encoding;
  size_t len;
};

static bool word_at(struct str s, bool check_length, struct word *ret) {
  if (!str_starts(s, STR("=?")))
    return false;
  struct str rest = str_from(s, 2);
  ptrdiff_t q1 = str_find_byte(rest, '?');
  if (q1 < 0 || (size_t)q1 + 2 >= rest.len || rest.p[q1 + 2] != '?')
    return false;
  ret->charset = str_slice(rest, 0, (size_t)q1);
  ret->encoding = ascii_lower(rest.p[q1 + 1]);
  rest = str_from(rest, (size_t)q1 + 3);
  ptrdiff_t end = str_find(rest, STR("?="));
  if (end < 0 || (ret->encoding != 'q' && ret->encoding != 'b'))
    return false;
  ret->text = str_slice(rest, 0, (size_t)end);
  ret->len = (size_t)(ret->text.p + ret->text.len + 2 - s.p);
  return !check_length || ret->len <= WORD_MAX;
}

static bool decode_q(struct str s, struct buf *out) {
  for (size_t i = 0; i < s.len; i++) {
    char c = s.p[i];
    if (c == '=') {
      int high = i + 2 < s.len ? ascii_hex_value(s.p[i + 1]) : -1;
      int low = i + 2 < s.len ? ascii_hex_value(s.p[i + 2]) : -1;
      if (high < 0 || low < 0)
        return false;
      c = (char)(high << 4 | low);
      i += 2;
    } else if (c == '_') {
      c = ' ';
    } else if (ascii_is_space(c)) {
      return false;
    }
    buf_add_byte(out, c == '\0' ? '?' : c);
  }
  return true;
}

static bool decode_word(struct arena *a, const struct word *w, struct str *ret) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_EXPANSION);
  if (w->encoding == 'q') {
    if (!decode_q(w->text, &b))
      return false;
  } else {
    struct str bytes;
    if (!base64_decode(a, w->text, false, &bytes))
      return false;
    for (size_t i = 0; i < bytes.len; i++)
      buf_add_byte(&b, bytes.p[i] == '\0' ? '?' : bytes.p[i]);
  }
  *ret = buf_str(&b);
  return true;
}

void rfc2047_convert(struct ctx *c, struct buf *out, struct str text, struct str from, struct str to) {
  if (!str_is_set(to) || to.len == 0 || from.len == 0 || str_ieq(from, to)) {
    buf_add(out, text);
    return;
  }
  iconv_t cd = iconv_open(str_dup_c(c->arena, to), str_dup_c(c->arena, from));
  if (cd == (iconv_t)-1) {
    ctx_fail(c, OUTCOME_ERROR, "iconv_open(\"%.*s\", \"%.*s\") failed: %m%s", STRF(to), STRF(from),
        errno == EINVAL ? " (maybe unsupported conversion)" : "");
    buf_add(out, text);
    return;
  }
  char *in = (char *)text.p, piece[256];
  size_t left = text.len;
  while (left > 0) {
    char *p = piece;
    size_t room = sizeof piece;
    size_t r = iconv(cd, &in, &left, &p, &room);
    buf_add_n(out, piece, (size_t)(p - piece));
    if (r != (size_t)-1)
      break;
    if (errno == E2BIG)
      continue;
    buf_add_byte(out, *in++);
    left--;
  }
  iconv_close(cd);
}

struct str rfc2047_decode(struct ctx *c, struct str text, struct str charset) {
  bool check_length = c->config == NULL || main_options(c->config)->check_rfc2047_length;
  if (str_find(text, STR("=?")) < 0)
    return text;
  struct buf out;
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  size_t at = 0, space_from = 0; /* white space behind the last word */
  bool after_word = false;
  while (at < text.len) {
    struct word w;
    struct str decoded;
    if (text.p[at] == '=' && word_at(str_from(text, at), check_length, &w) && decode_word(c->arena, &w, &decoded)) {
      rfc2047_convert(c, &out, decoded, w.charset, charset);
      at += w.len;
      space_from = at;
      after_word = true;
      continue;
    }
    if (after_word && ascii_is_space(text.p[at])) {
      at++;
      continue;
    }
    if (after_word)
      buf_add(&out, str_slice(text, space_from, at));
    after_word = false;
    buf_add_byte(&out, text.p[at++]);
  }
  if (after_word)
    buf_add(&out, str_slice(text, space_from, at));
  struct str result = buf_str(&out);
  result.taint = text.taint;
  return result;
}

static bool is_special(char c) { return c != '\0' && strchr("?=()<>@,;:\\\".[]_", c) != NULL; }

struct str rfc2047_encode(struct ctx *c, struct str text, struct str charset) {
  bool plain = true;
  for (size_t i = 0; i < text.len && plain; i++)
    plain = text.p[i] >= 32 && text.p[i] < 127 && !is_special(text.p[i]);
  if (plain)
    return text;
  struct buf out;
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  size_t start = 0, limit = 69;
  buf_printf(&out, "=?%.*s?Q?", STRF(charset));
  for (size_t i = 0; i < text.len; i++) {
    if (out.len - start > limit) {
      buf_add_c(&out, "?= ");
      start = out.len;
      limit = 67;
      buf_printf(&out, "=?%.*s?Q?", STRF(charset));
    }
    char ch = text.p[i];
    if (ch == ' ')
      buf_add_byte(&out, '_');
    else if (ch > 32 && ch < 127 && !is_special(ch))
      buf_add_byte(&out, ch);
    else
      buf_printf(&out, "=%02X", (unsigned char)ch);
  }
  buf_add_c(&out, "?=");
  struct str result = buf_str(&out);
  result.taint = text.taint;
  return result;
}
