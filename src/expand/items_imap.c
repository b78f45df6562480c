/* ${imapfolder…}: a folder's name as Courier writes it in a Maildir: modified UTF-7 (RFC 2060, section 5.1.3), levels
separated by dots (manual, "MDA operations"). */
#include <errno.h>
#include <iconv.h>
#include <string.h>

#include "core/main_options.h"
#include "expand/internal.h"
#include "expand/items.h"

#define FOLDER_MAX (64u << 10)

/* The text in UTF-16, most significant byte first. */
static int to_utf16(struct ctx *c, struct str text, struct str *ret) {
  struct str charset = c->config != NULL ? main_options(c->config)->headers_charset : STR_EMPTY;
  if (charset.len == 0)
    charset = STR("ISO-8859-1");
  iconv_t cd = iconv_open("UTF-16BE", str_dup_c(c->arena, charset));
  if (cd == (iconv_t)-1)
    return ctx_fail(c, OUTCOME_ERROR, "imapfolder: iconv_open(\"UTF-16BE\", \"%.*s\") failed: %s%s", STRF(charset), strerror(errno),
        errno == EINVAL ? " (maybe unsupported conversion)" : "");
  char *in = str_dup_c(c->arena, text), *space = arena_array(c->arena, char, 4 * (size_t)text.len + 4), *to = space;
  size_t in_left = text.len, left = 4 * (size_t)text.len + 4;
  size_t rc = iconv(cd, &in, &in_left, &to, &left);
  int error = errno;
  iconv_close(cd);
  if (rc == (size_t)-1)
    return ctx_fail(
        c, OUTCOME_ERROR, "imapfolder: iconv() failed to convert from %.*s: %s", STRF(charset), strerror(error));
  *ret = str_n(space, (size_t)(to - space));
  return 0;
}

/* The run of characters that is being written in base64. */
struct shifted {
  struct buf *out;
  bool open;
  uint32_t bits;
  int n;
};

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

static void shift_add(struct shifted *s, unsigned unit) {
  if (!s->open)
    buf_add_byte(s->out, '&');
  s->open = true;
  s->bits = s->bits << 16 | unit;
  s->n += 16;
  for (; s->n >= 6; s->n -= 6)
    buf_add_byte(s->out, alphabet[s->bits >> (s->n - 6) & 63]);
}

static void shift_end(struct shifted *s) {
  if (!s->open)
    return;
  if (s->n > 0)
    buf_add_byte(s->out, alphabet[s->bits << (6 - s->n) & 63]);
  buf_add_byte(s->out, '-');
  *s = (struct shifted){.out = s->out};
}

/* Levels in a row count as one, those at the ends as none. */
static int encode(struct ctx *c, struct str utf16, char separator, struct str specials, struct buf *out) {
  struct shifted s = {.out = out};
  const unsigned char *p = (const unsigned char *)utf16.p;
  size_t n = utf16.len / 2, i = n > 0 && p[0] == 0 && p[1] == (unsigned char)separator;
  for (; i < n; i++) {
    unsigned unit = (unsigned)p[2 * i] << 8 | p[2 * i + 1];
    if (unit == (unsigned char)separator) {
      shift_end(&s);
      while (i + 1 < n && p[2 * i + 2] == 0 && p[2 * i + 3] == (unsigned char)separator)
        i++;
      if (i + 1 < n)
        buf_add_byte(out, '.');
    } else if (unit >= 32 && unit < 127 && str_find_byte(specials, (char)unit) < 0) {
      if (unit == '.' || unit == '/')
        return ctx_fail(c, OUTCOME_ERROR, "imapfolder: illegal character '%c'", (char)unit);
      shift_end(&s);
      buf_add_byte(out, (char)unit);
      if (unit == '&')
        buf_add_byte(out, '-');
    } else {
      shift_add(&s, unit);
    }
  }
  shift_end(&s);
  return 0;
}

static int eval_imapfolder(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str name = args->value[0], utf16 = STR_EMPTY, separator = args->n > 1 ? args->value[1] : STR("/");
  if (separator.len != 1)
    return ctx_fail(c, OUTCOME_ERROR, "IMAP folder separator must be one character, found \"%.*s\"", STRF(separator));
  if (name.len > FOLDER_MAX)
    return ctx_fail(c, OUTCOME_ERROR, "imapfolder: the name is too long");
  int rc = to_utf16(c, name, &utf16);
  if (rc != 0)
    return rc;
  out->taint = str_taint_join(out->taint, name.taint);
  return encode(c, utf16, separator.p[0], args->n > 2 ? args->value[2] : STR_EMPTY, out);
}

const struct expand_item_def imap_items[] = {
  {"imapfolder", 1, 3, 0, NULL, eval_imapfolder},
  {0},
};
