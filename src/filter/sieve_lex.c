/* The words of Sieve scripts (RFC 5228, section 8.1). Lines may end with LF or CRLF; strings hold LF. */

#include <stdarg.h>
#include <stdio.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "filter/sieve.h"

bool sieve_fail(struct sieve_parser *p, const char *fmt, ...) {
  if (str_is_set(p->error))
    return false;
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(p->arena, fmt, ap);
  va_end(ap);
  p->error = str_printf(p->arena, "%.*s in line %d", STRF(text), p->line);
  return false;
}

int sieve_error(struct sieve_parser *p, const char *text) {
  sieve_fail(p, "%s", text);
  return -1;
}

static char byte_at(const struct sieve_parser *p, size_t ahead) {
  return p->at + ahead < p->text.len ? p->text.p[p->at + ahead] : 0;
}

static bool at_end(const struct sieve_parser *p) { return p->at >= p->text.len; }

static void next_byte(struct sieve_parser *p) {
  if (p->text.p[p->at] == '\n')
    p->line++;
  p->at++;
}

/* A comment behind # ends with a newline, which must be there. */
static bool skip_hash_comment(struct sieve_parser *p) {
  while (!at_end(p) && byte_at(p, 0) != '\n')
    p->at++;
  if (at_end(p))
    return sieve_fail(p, "missing end of comment");
  next_byte(p);
  return true;
}

static bool skip_bracket_comment(struct sieve_parser *p) {
  p->at += 2;
  while (!at_end(p) && !(byte_at(p, 0) == '*' && byte_at(p, 1) == '/'))
    next_byte(p);
  if (at_end(p))
    return sieve_fail(p, "missing end of comment");
  p->at += 2;
  return true;
}

bool sieve_skip(struct sieve_parser *p) {
  for (;;) {
    char c = byte_at(p, 0);
    if (at_end(p))
      return true;
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
      next_byte(p);
    else if (c == '#' && !skip_hash_comment(p))
      return false;
    else if (c == '/' && byte_at(p, 1) == '*') {
      if (!skip_bracket_comment(p))
        return false;
    } else if (c != '#')
      return true;
  }
}

int sieve_take_byte(struct sieve_parser *p, char c) {
  if (!sieve_skip(p))
    return -1;
  if (at_end(p) || byte_at(p, 0) != c)
    return 0;
  p->at++;
  return 1;
}

static bool word_byte(char c) { return ascii_is_alnum(c) || c == '_'; }

int sieve_take_word(struct sieve_parser *p, const char *word) {
  if (!sieve_skip(p))
    return -1;
  size_t n = strlen(word), len = byte_at(p, 0) == ':' ? 1 : 0;
  while (word_byte(byte_at(p, len)))
    len++;
  if (len != n || !str_ieq_c(str_slice(p->text, p->at, p->at + n), word))
    return 0;
  p->at += n;
  return 1;
}

/* --- encoded characters (section 2.4.2.4) --- */

static void add_utf8(struct buf *b, uint32_t u) {
  if (u < 0x80) {
    buf_add_byte(b, (char)u);
    return;
  }
  int more = u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
  static const unsigned first[] = {0, 0xc0, 0xe0, 0xf0};
  buf_add_byte(b, (char)(first[more] | (u >> (6 * more))));
  while (more-- > 0)
    buf_add_byte(b, (char)(0x80 | ((u >> (6 * more)) & 0x3f)));
}

/* The numbers between `${hex:` and `}`: how many bytes of `s` they take with the brace, 0: it is something else, -1: an error. */
static ptrdiff_t encoded(struct sieve_parser *p, struct str s, bool unicode, struct buf *out) {
  size_t i = 0, start = out->len;
  bool any = false;
  for (;;) {
    while (i < s.len && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n'))
      i++;
    if (i < s.len && s.p[i] == '}' && any)
      return (ptrdiff_t)i + 1;
    uint32_t value = 0;
    size_t digits = 0;
    for (int d; i < s.len && (d = ascii_hex_value(s.p[i])) >= 0; i++, digits++)
      value = value > 0xffffff ? value : value * 16 + (uint32_t)d;
    bool ended = i < s.len && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n' || s.p[i] == '}');
    if (!digits || !ended || (!unicode && digits > 2)) {
      buf_truncate(out, start);
      return 0;
    }
    if (!unicode)
      buf_add_byte(out, (char)value);
    else if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
      return sieve_error(p, "unicode character out of range");
    else
      add_utf8(out, value);
    any = true;
  }
}

static int decode_characters(struct sieve_parser *p, struct str *s) {
  struct buf out;
  if (!(p->required & SIEVE_ENCODED_CHARACTER) || str_find(*s, STR("${")) < 0)
    return 1;
  buf_init(&out, p->arena, s->len + 1);
  for (size_t i = 0; i < s->len;) {
    struct str rest = str_from(*s, i);
    bool hex = str_istarts(rest, STR("${hex:")), unicode = str_istarts(rest, STR("${unicode:"));
    ptrdiff_t taken = 0;
    size_t head = hex ? 6 : 10;
    if (hex || unicode)
      taken = encoded(p, str_from(rest, head), unicode, &out);
    if (taken < 0)
      return -1;
    if (taken)
      i += head + (size_t)taken;
    else
      buf_add_byte(&out, s->p[i++]);
  }
  *s = buf_str(&out);
  return 1;
}

/* --- strings --- */

static int quoted(struct sieve_parser *p, struct str *ret) {
  struct buf b;
  buf_init(&b, p->arena, p->text.len + 1);
  for (p->at++; !at_end(p); next_byte(p)) {
    char c = byte_at(p, 0);
    if (c == '"') {
      p->at++;
      *ret = buf_str(&b);
      return decode_characters(p, ret);
    }
    if (c == '\\') {
      p->at++;
      if (at_end(p))
        break;
      c = byte_at(p, 0);
      if (c == '0') /* Exim's Sieve notes: a NUL, which headers may hold when they are decoded */
        c = '\0';
    } else if (c == '\r' && byte_at(p, 1) == '\n') {
      continue;
    }
    buf_add_byte(&b, c);
  }
  return sieve_error(p, "missing end of string");
}

/* Behind `text:`: lines up to one that is a dot. */
static int multi_line(struct sieve_parser *p, struct str *ret) {
  struct buf b;
  buf_init(&b, p->arena, p->text.len + 1);
  while (byte_at(p, 0) == ' ' || byte_at(p, 0) == '\t')
    p->at++;
  if (byte_at(p, 0) == '#' && !skip_hash_comment(p))
    return -1;
  else if (byte_at(p, 0) == '\r' && byte_at(p, 1) == '\n')
    p->at++;
  if (p->text.p[p->at - 1] != '\n') { /* a comment takes its newline along */
    if (byte_at(p, 0) != '\n')
      return sieve_error(p, "syntax error");
    next_byte(p);
  }
  while (!at_end(p)) {
    struct str rest = str_from(p->text, p->at), line = str_cut(&rest, '\n');
    if (!str_is_set(rest))
      break; /* the last line has no end */
    p->at += line.len + 1;
    p->line++;
    if (line.len && line.p[line.len - 1] == '\r')
      line = str_slice(line, 0, line.len - 1);
    if (str_eq_c(line, ".")) {
      *ret = buf_str(&b);
      return decode_characters(p, ret);
    }
    buf_add(&b, line.len && line.p[0] == '.' && line.len > 1 && line.p[1] == '.' ? str_from(line, 1) : line);
    buf_add_byte(&b, '\n');
  }
  while (!at_end(p))
    next_byte(p);
  return sieve_error(p, "missing end of multi line string");
}

int sieve_take_string(struct sieve_parser *p, struct str *ret) {
  if (!sieve_skip(p))
    return -1;
  if (byte_at(p, 0) == '"')
    return quoted(p, ret);
  if (str_istarts(str_from(p->text, p->at), STR("text:"))) {
    p->at += 5;
    return multi_line(p, ret);
  }
  return 0;
}

int sieve_take_list(struct sieve_parser *p, struct sieve_strings *ret) {
  struct str s;
  int rc = sieve_take_byte(p, '[');
  *ret = (struct sieve_strings){0};
  if (rc < 0)
    return -1;
  if (!rc) {
    if ((rc = sieve_take_string(p, &s)) == 1)
      vec_push(p->arena, ret, s);
    return rc;
  }
  if ((rc = sieve_take_byte(p, ']')))
    return rc;
  do {
    rc = sieve_take_string(p, &s);
    if (rc <= 0)
      return rc < 0 ? rc : sieve_error(p, "missing string list");
    vec_push(p->arena, ret, s);
  } while ((rc = sieve_take_byte(p, ',')) == 1);
  if (rc < 0 || (rc = sieve_take_byte(p, ']')) < 0)
    return -1;
  return rc ? 1 : sieve_error(p, "missing string list");
}

bool sieve_take_number(struct sieve_parser *p, uint64_t *ret) {
  uint64_t n = 0;
  if (!sieve_skip(p))
    return false;
  if (!ascii_is_digit(byte_at(p, 0)))
    return sieve_fail(p, "missing number");
  for (; ascii_is_digit(byte_at(p, 0)); p->at++)
    if (__builtin_mul_overflow(n, (uint64_t)10, &n) || __builtin_add_overflow(n, (uint64_t)(byte_at(p, 0) - '0'), &n))
      return sieve_fail(p, "Numerical result out of range");
  char unit = ascii_lower(byte_at(p, 0));
  int shift = unit == 'k' ? 10 : unit == 'm' ? 20 : unit == 'g' ? 30 : 0;
  if (shift) {
    if (n > UINT64_MAX >> shift)
      return sieve_fail(p, "Numerical result out of range");
    n <<= shift;
    p->at++;
  }
  *ret = n;
  return true;
}

bool sieve_need(struct sieve_parser *p, enum sieve_extension e, const char *name) {
  return p->required & e ? true : sieve_fail(p, "missing previous require \"%s\";", name);
}
