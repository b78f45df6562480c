#include "scan/mime.h"

#include <endian.h>
#include <string.h>

#include "base/ascii.h"
#include "base/arena.h"
#include "base/buf.h"

/* ---- header fields ---- */

struct field {
  const char *name;
  size_t offset;
};
#define FIELD(name, member) {name, offsetof(struct mime_header, member)}
static const struct field fields[] = {
  FIELD("content-type", content_type), FIELD("content-disposition", content_disposition),
  FIELD("content-transfer-encoding", transfer_encoding), FIELD("content-id", content_id),
  FIELD("content-description", content_description),
};

static const struct field *field_of(struct str line, struct str *ret_value) {
  ptrdiff_t colon = str_find_byte(line, ':');
  if (colon <= 0)
    return NULL;
  struct str name = str_rtrim(str_slice(line, 0, (size_t)colon));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (str_ieq_c(name, fields[i].name)) {
      *ret_value = str_from(line, (size_t)colon + 1);
      return &fields[i];
    }
  return NULL;
}

bool mime_header_wanted(struct str line) {
  struct str value;
  return field_of(line, &value) != NULL;
}

/* What stands in front of the first ";": without white space and comments, in lower case. */
static struct str main_value(struct arena *a, struct str text, struct str *ret_rest) {
  struct buf b;
  int depth = 0;
  size_t i = 0;
  buf_init(&b, a, MIME_FIELD_MAX);
  b.taint = STR_TAINTED;
  for (; i < text.len && (text.p[i] != ';' || depth > 0); i++) {
    char c = text.p[i];
    if (c == '(')
      depth++;
    else if (c == ')' && depth > 0)
      depth--;
    else if (depth == 0 && !ascii_is_space(c))
      buf_add_byte(&b, (char)ascii_lower(c));
  }
  *ret_rest = str_from(text, i + 1);
  return buf_str(&b);
}

/* The next parameter, as Exim reads them: quotes go wherever they stand, a ";" inside of them does not end the value. */
static bool next_parameter(struct arena *a, struct str *rest, struct str *ret_name, struct str *ret_value) {
  struct str s = str_ltrim(*rest);
  while (s.len > 0 && s.p[0] == ';')
    s = str_ltrim(str_from(s, 1));
  if (s.len == 0)
    return false;
  size_t i = 0;
  while (i < s.len && s.p[i] != '=' && s.p[i] != ';')
    i++;
  *ret_name = str_trim(str_slice(s, 0, i));
  *ret_value = STR_UNSET;
  if (i < s.len && s.p[i] == '=') {
    struct buf b;
    bool quoted = false;
    buf_init(&b, a, MIME_FIELD_MAX);
    b.taint = STR_TAINTED;
    for (i++; i < s.len && ascii_is_space(s.p[i]); i++)
      ;
    for (; i < s.len && (quoted || s.p[i] != ';'); i++) {
      if (s.p[i] == '"')
        quoted = !quoted;
      else if (s.p[i] == ' ' || !ascii_is_space(s.p[i]))
        buf_add_byte(&b, s.p[i]);
    }
    if (quoted) /* Exim ends each field with a ";" of its own */
      buf_add_byte(&b, ';');
    *ret_value = buf_str(&b);
  }
  *rest = str_from(s, i + 1);
  return true;
}

/* A parameter's name with what RFC 2231 hangs on it: name*, name*0, name*0*. */
struct parameter {
  struct str name;
  int segment;    /* -1: none */
  bool extended;
};

static void read_name(struct str text, struct parameter *ret) {
  *ret = (struct parameter){.name = text, .segment = -1};
  if (text.len > 0 && text.p[text.len - 1] == '*') {
    ret->extended = true;
    ret->name = text = str_slice(text, 0, text.len - 1);
  }
  ptrdiff_t star = str_rfind_byte(text, '*');
  uint64_t n;
  if (star > 0 && str_to_u64(str_from(text, (size_t)star + 1), &n) && n < MIME_SEGMENTS_MAX) {
    ret->segment = (int)n;
    ret->name = str_slice(text, 0, (size_t)star);
  }
}

/* Takes charset'language' off the front; unset when they are not there. */
static struct str cut_charset(struct str *value) {
  ptrdiff_t first = str_find_byte(*value, '\'');
  ptrdiff_t second = first < 0 ? -1 : str_find_byte(str_from(*value, (size_t)first + 1), '\'');
  if (second < 0)
    return STR_EMPTY;
  struct str charset = str_slice(*value, 0, (size_t)first);
  *value = str_from(*value, (size_t)(first + 1 + second + 1));
  return charset;
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

static void add_percent(struct buf *b, struct str s) {
  b->taint = str_taint_join(b->taint, s.taint);
  for (size_t i = 0; i < s.len; i++) {
    int high = s.p[i] == '%' && i + 2 < s.len ? hex(s.p[i + 1]) : -1, low = high >= 0 ? hex(s.p[i + 2]) : -1;
    buf_add_byte(b, low >= 0 ? (char)(high << 4 | low) : s.p[i]);
    i += low >= 0 ? 2 : 0;
  }
}

struct segments {
  struct str value[MIME_SEGMENTS_MAX];
  bool extended[MIME_SEGMENTS_MAX];
  bool any;
};

static void set_filename(struct mime_header *h, struct arena *a, const struct segments *s) {
  struct buf b;
  struct str charset = STR_UNSET;
  buf_init(&b, a, MIME_FIELD_MAX);
  for (int i = 0; i < MIME_SEGMENTS_MAX && str_is_set(s->value[i]); i++) {
    struct str value = s->value[i];
    if (s->extended[i]) {
      if (i == 0)
        charset = cut_charset(&value);
      else if (!str_is_set(charset))
        charset = STR_EMPTY;
      add_percent(&b, value);
    } else {
      buf_add(&b, value);
    }
  }
  h->filename = buf_str(&b);
  h->filename_charset = charset;
}

static void take_parameters(struct mime_header *h, struct arena *a, struct str rest) {
  struct segments *pieces = NULL;
  struct str text, value;
  while (next_parameter(a, &rest, &text, &value)) {
    struct parameter p;
    read_name(text, &p);
    if (!str_is_set(value))
      continue;
    if (str_ieq_c(p.name, "name") || str_ieq_c(p.name, "filename")) {
      if (p.segment >= 0) {
        if (!pieces)
          pieces = arena_new_of(a, struct segments);
        pieces->any = true;
        pieces->value[p.segment] = value;
        pieces->extended[p.segment] = p.extended;
      } else if (p.extended) {
        struct buf b;
        h->filename_charset = cut_charset(&value);
        buf_init(&b, a, MIME_FIELD_MAX);
        add_percent(&b, value);
        h->filename = buf_str(&b);
      } else {
        h->filename = value;
        h->filename_charset = STR_UNSET;
      }
    } else if (p.segment < 0 && !p.extended && str_ieq_c(p.name, "charset")) {
      h->charset = value;
    } else if (p.segment <= 0 && !p.extended && str_ieq_c(p.name, "boundary") && value.len <= MIME_BOUNDARY_MAX) {
      h->boundary = value;
    }
  }
  if (pieces && str_is_set(pieces->value[0]))
    set_filename(h, a, pieces);
}

void mime_header_field(struct mime_header *h, struct arena *a, struct str field) {
  struct str value, rest;
  const struct field *f = field_of(str_slice(field, 0, MIME_FIELD_MAX), &value);
  if (!f)
    return;
  *(struct str *)(void *)((char *)h + f->offset) = main_value(a, value, &rest);
  take_parameters(h, a, rest);
}

bool mime_is_multipart(const struct mime_header *h) {
  return str_is_set(h->content_type) && str_starts(h->content_type, STR("multipart/"));
}

bool mime_is_rfc822(const struct mime_header *h) {
  return str_is_set(h->content_type) && (str_eq_c(h->content_type, "message/rfc822") || str_eq_c(h->content_type, "message/global"));
}

/* ---- delimiter lines ---- */

int mime_delimiter(struct str line, struct str boundary, bool *ret_end) {
  if (line.len < boundary.len + 2 || line.p[0] != '-' || line.p[1] != '-' || memcmp(line.p + 2, boundary.p, boundary.len) != 0)
    return 0;
  struct str rest = str_from(line, boundary.len + 2);
  *ret_end = rest.len >= 2 && rest.p[0] == '-' && rest.p[1] == '-';
  return str_trim(str_from(rest, *ret_end ? 2 : 0)).len == 0 ? 2 : 1;
}

/* ---- transfer encodings ---- */

enum mime_encoding mime_encoding_of(const struct mime_header *h) {
  if (str_is_set(h->transfer_encoding) && str_eq_c(h->transfer_encoding, "base64"))
    return MIME_BASE64;
  if (str_is_set(h->transfer_encoding) && str_eq_c(h->transfer_encoding, "quoted-printable"))
    return MIME_QUOTED;
  return MIME_IDENTITY;
}

/* Values of base64 characters; 64: "=", 65: white space, 66: none of it. */
static uint8_t base64_value[256];
/* The same for the four places of a quantum, where their bits belong; NO_DIGIT: not one of the 64. */
static uint32_t base64_bits[4][256];
#define NO_DIGIT (1u << 24)

static void make_base64_tables(void) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (base64_value['B'] == 1)
    return;
  memset(base64_value, 66, sizeof base64_value);
  base64_value['='] = 64;
  base64_value[' '] = base64_value['\t'] = base64_value['\r'] = base64_value['\n'] = 65;
  for (int place = 0; place < 4; place++)
    for (int i = 0; i < 256; i++)
      base64_bits[place][i] = NO_DIGIT;
  for (uint32_t i = 0; i < 64; i++) {
    base64_value[(uint8_t)digits[i]] = (uint8_t)i;
    for (int place = 0; place < 4; place++)
      base64_bits[place][(uint8_t)digits[i]] = i << (18 - 6 * place);
  }
}

/* Whole quanta; how many characters were taken. Writes up to a byte beyond what it gives. */
static size_t decode_quanta(const uint8_t *p, size_t n, char *out) {
  size_t at = 0;
  for (; n - at >= 4; at += 4, out += 3) {
    uint32_t v = base64_bits[0][p[at]] | base64_bits[1][p[at + 1]] | base64_bits[2][p[at + 2]] | base64_bits[3][p[at + 3]];
    if (v >= NO_DIGIT)
      break;
    v = htobe32(v << 8);
    memcpy(out, &v, sizeof v);
  }
  return at;
}

static size_t decode_base64(struct mime_decoder *d, struct str text, char *out) {
  make_base64_tables();
  const uint8_t *p = (const uint8_t *)text.p, *end = p + text.len;
  size_t n = 0;
  while (p < end) {
    if (d->have == 0 && !d->padded) {
      size_t taken = decode_quanta(p, (size_t)(end - p), out + n);
      p += taken;
      n += taken / 4 * 3;
      if (p == end)
        break;
    }
    uint8_t v = base64_value[*p++];
    if (v == 65)
      continue;
    if (v == 64) {
      /* The quantum ends here; a second "=" may follow it. */
      d->broken |= d->have == 1 || (d->have == 0 && !d->padded);
      d->padded = true;
      d->have = 0;
      continue;
    }
    d->broken |= v == 66 || d->padded;
    if (v == 66)
      continue;
    d->padded = false;
    d->bits = d->bits << 6 | v;
    d->have++;
    if (d->have == 2)
      out[n++] = (char)(d->bits >> 4);
    else if (d->have == 3)
      out[n++] = (char)(d->bits >> 2);
    else if (d->have == 4)
      out[n++] = (char)d->bits;
    d->have &= 3;
  }
  return n;
}

/* Blanks at the end of a line were put there on the way; "=" with nothing but blanks behind it goes on with the next line. */
static size_t decode_quoted_line(struct mime_decoder *d, struct str line, char *out) {
  size_t n = 0, len = line.len;
  bool newline = len > 0 && line.p[len - 1] == '\n';
  while (newline && len > 0 && ascii_is_space(line.p[len - 1]))
    len--;
  for (size_t i = 0; i < len; i++) {
    const char *equals = memchr(line.p + i, '=', len - i);
    size_t plain = (equals ? (size_t)(equals - line.p) : len) - i;
    memcpy(out + n, line.p + i, plain);
    n += plain;
    i += plain;
    if (i == len)
      break;
    if (i + 1 == len && newline)
      return n;
    int high = i + 2 < len ? hex(line.p[i + 1]) : -1, low = high >= 0 ? hex(line.p[i + 2]) : -1;
    if (low < 0) {
      d->broken = true;
      out[n++] = '=';
    } else {
      out[n++] = (char)(high << 4 | low);
      i += 2;
    }
  }
  if (newline)
    out[n++] = '\n';
  return n;
}

static size_t decode_quoted(struct mime_decoder *d, struct str text, char *out) {
  size_t n = 0;
  for (size_t at = 0; at < text.len;) {
    const char *lf = memchr(text.p + at, '\n', text.len - at);
    size_t end = lf ? (size_t)(lf - text.p) + 1 : text.len;
    n += decode_quoted_line(d, str_slice(text, at, end), out + n);
    at = end;
  }
  return n;
}

size_t mime_decode(struct mime_decoder *d, struct str text, char *out) {
  if (d->encoding == MIME_BASE64)
    return decode_base64(d, text, out);
  if (d->encoding == MIME_QUOTED)
    return decode_quoted(d, text, out);
  memcpy(out, text.p, text.len);
  return text.len;
}

void mime_decode_end(struct mime_decoder *d) {
  if (d->encoding == MIME_BASE64)
    d->broken |= d->have > 0;
}
