/* Operators on character sets: RFC 2047, UTF-8, international domain names. */
#include "expand/items.h"

#include "base/encode.h"
#include "base/idn.h"
#include "base/punycode.h"
#include "core/main_options.h"
#include "expand/internal.h"
#include "expand/rfc2047.h"

static struct str headers_charset(const struct ctx *c) {
  struct str s = c->config != NULL ? main_options(c->config)->headers_charset : STR_EMPTY;
  return s.len > 0 ? s : STR("ISO-8859-1");
}

static int eval_rfc2047(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  buf_add(out, rfc2047_encode(c, s, headers_charset(c)));
  return 0;
}

static int eval_rfc2047d(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  c->error = STR_UNSET;
  struct str value = rfc2047_decode(c, s, headers_charset(c));
  if (str_is_set(c->error))
    return OUTCOME_ERROR;
  buf_add(out, value);
  return 0;
}

/* Bytes of the sequence at s, 0 when it is no UTF-8; *ret_code the character. */
static size_t utf8_char(struct str s, uint32_t *ret_code) {
  unsigned char c = (unsigned char)s.p[0];
  size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  uint32_t code = n == 1 ? c : n == 2 ? c & 0x1f : n == 3 ? c & 0x0f : c & 0x07;
  if (n > s.len)
    return 0;
  for (size_t i = 1; i < n; i++) {
    if (((unsigned char)s.p[i] & 0xc0) != 0x80)
      return 0;
    code = code << 6 | ((unsigned char)s.p[i] & 0x3f);
  }
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (n == 0 || code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    return 0;
  *ret_code = code;
  return n;
}

static int eval_from_utf8(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len;) {
    uint32_t code;
    size_t n = utf8_char(str_from(s, i), &code);
    buf_add_byte(out, n == 0 || code > 255 ? '_' : (char)code);
    i += n == 0 ? 1 : n;
  }
  return 0;
}

/* Length of what one `?` stands for: a lead byte, the continuation bytes that belong to it, and the byte that breaks the row
unless it is ASCII. */
static size_t utf8_bad(struct str s) {
  unsigned char c = (unsigned char)s.p[0];
  size_t want = c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xc2 && c < 0xe0 ? 2 : 1, n = 1;
  while (n < want && n < s.len && ((unsigned char)s.p[n] & 0xc0) == 0x80)
    n++;
  return n < want && n < s.len && (unsigned char)s.p[n] >= 0x80 ? n + 1 : n;
}

static int eval_utf8clean(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len;) {
    uint32_t code;
    struct str rest = str_from(s, i);
    size_t n = utf8_char(rest, &code);
    if (n > 0) {
      buf_add_n(out, rest.p, n);
    } else {
      buf_add_byte(out, '?');
      n = utf8_bad(rest);
    }
    i += n;
  }
  return 0;
}

/* What is no printable ASCII as escapes, but for tabs. */
static struct str shown(struct ctx *c, struct str s) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < s.len; i++)
    if (s.p[i] == '\n' || s.p[i] == '\r')
      buf_add_c(&b, s.p[i] == '\n' ? "\\n" : "\\r");
    else if (s.p[i] == '\t' || (s.p[i] >= ' ' && s.p[i] < 127))
      buf_add_byte(&b, s.p[i]);
    else
      buf_printf(&b, "\\%03o", (unsigned char)s.p[i]);
  return buf_str(&b);
}

static int fail_alabel(struct ctx *c, bool to, struct str subject, const char *why) {
  return ctx_fail(c, OUTCOME_ERROR, "error converting %s (%.*s) to %s: %s", to ? "utf8" : "alabel",
      STRF(shown(c, subject)), to ? "alabel" : "utf8", why);
}

static int eval_domain_to(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str value;
  const char *why;
  if (!idn_domain_to_ascii(c->arena, s, &value, &why))
    return fail_alabel(c, true, s, why);
  buf_add(out, value);
  return 0;
}

/* Label by label; what does not begin with "xn--" stays. */
static int eval_domain_from(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str rest = s, label, value;
  while (str_is_set(rest)) {
    label = value = str_cut(&rest, '.');
    if (str_starts(label, STR("xn--")) && !punycode_decode(c->arena, str_from(label, 4), &value))
      return fail_alabel(c, false, s, "Invalid input");
    buf_add(out, value);
    if (str_is_set(rest))
      buf_add_byte(out, '.');
  }
  return 0;
}

/* A local part as if it were one label of a domain: "xn--" and Punycode. */
static int eval_localpart_to(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str value;
  if (!idn_local_part_to_ascii(c->arena, s, &value))
    return fail_alabel(c, true, s, "l_u2a: bad UTF-8 input");
  buf_add(out, value);
  return 0;
}

static int eval_localpart_from(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str value;
  if (!str_starts(s, STR("xn--")))
    return fail_alabel(c, false, s, "bad alabel prefix");
  if (!punycode_decode(c->arena, str_from(s, 4), &value))
    return fail_alabel(c, false, s, "Invalid input");
  buf_add(out, value);
  return 0;
}

const struct expand_operator_def charset_operators[] = {
  {"from_utf8", 0, false, eval_from_utf8},
  {"rfc2047", 0, false, eval_rfc2047},
  {"rfc2047d", 0, false, eval_rfc2047d},
  {"utf8_domain_from_alabel", 0, false, eval_domain_from},
  {"utf8_domain_to_alabel", 0, false, eval_domain_to},
  {"utf8_localpart_from_alabel", 0, false, eval_localpart_from},
  {"utf8_localpart_to_alabel", 0, false, eval_localpart_to},
  {"utf8clean", 0, false, eval_utf8clean},
  {0},
};
