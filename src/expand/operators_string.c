/* Operators that quote, escape, measure and cut text. */
#include "expand/items.h"

#include "base/ascii.h"
#include "core/main_options.h"
#include "expand/internal.h"
#include "lookup/lookup.h"

static void add_like(struct buf *out, struct str piece, uint32_t taint) {
  piece.taint = taint;
  buf_add(out, piece);
}

static void add_octal(struct buf *out, char byte) { buf_printf(out, "\\%03o", (unsigned char)byte); }

static int eval_escape(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  bool top = c->config != NULL && main_options(c->config)->print_topbitchars;
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++) {
    char ch = s.p[i];
    if (ascii_is_print(ch) || ch == '\t' || ((ch & 0x80) && top))
      buf_add_byte(out, ch);
    else if (ch == '\n' || ch == '\r')
      buf_add_c(out, ch == '\n' ? "\\n" : "\\r");
    else if (ch == '\b' || ch == '\v' || ch == '\f')
      buf_add_c(out, ch == '\b' ? "\\b" : ch == '\v' ? "\\v" : "\\f");
    else
      add_octal(out, ch);
  }
  return 0;
}

static int eval_escape8bit(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++)
    if ((s.p[i] & 0x80) || s.p[i] == 127 || s.p[i] == '\\')
      add_octal(out, s.p[i]);
    else
      buf_add_byte(out, s.p[i]);
  return 0;
}

static int eval_case(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str r = def->name[0] == 'l' ? str_lower(c->arena, s) : str_upper(c->arena, s);
  add_like(out, r, s.taint);
  return 0;
}

/* Puts the text into quotes; newlines and returns as \n and \r. */
static void add_quoted(struct buf *out, struct str s) {
  buf_add_byte(out, '"');
  for (size_t i = 0; i < s.len; i++) {
    char ch = s.p[i];
    if (ch == '\n' || ch == '\r') {
      buf_add_c(out, ch == '\n' ? "\\n" : "\\r");
      continue;
    }
    if (ch == '\\' || ch == '"')
      buf_add_byte(out, '\\');
    buf_add_byte(out, ch);
  }
  buf_add_byte(out, '"');
  out->taint = str_taint_join(out->taint, s.taint);
}

/* ${quote_TYPE:…} or ${quote_TYPE_option:…}; a type's own name may hold an underscore. */
static int quote_for_lookup(struct ctx *c, struct str arg, struct str s, struct buf *out) {
  const struct lookup_def *def = lookup_by_name(arg);
  struct str option = STR_UNSET;
  ptrdiff_t under = str_rfind_byte(arg, '_');
  if (def == NULL && under >= 0) {
    def = lookup_by_name(str_slice(arg, 0, (size_t)under));
    option = str_from(arg, (size_t)under + 1);
  }
  if (def == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "unknown lookup type \"%.*s\"", STRF(arg));
  return lookup_quote(c, def, s, option, out);
}

static int eval_quote(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  if (str_is_set(arg))
    return quote_for_lookup(c, arg, s, out);
  bool plain = s.len > 0;
  for (size_t i = 0; i < s.len && plain; i++)
    plain = ascii_is_alnum(s.p[i]) || (s.p[i] != '\0' && strchr("_-.", s.p[i]) != NULL);
  if (plain)
    buf_add(out, s);
  else
    add_quoted(out, s);
  return 0;
}

static int eval_quote_local_part(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  bool plain = s.len > 0;
  for (size_t i = 0; i < s.len && plain; i++) {
    char ch = s.p[i];
    plain = ascii_is_alnum(ch) || (ch != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", ch) != NULL) ||
            (ch == '.' && i > 0 && i + 1 < s.len);
  }
  if (plain)
    buf_add(out, s);
  else
    add_quoted(out, s);
  return 0;
}

static int eval_rxquote(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++) {
    if (!ascii_is_alnum(s.p[i]))
      buf_add_byte(out, '\\');
    buf_add_byte(out, s.p[i]);
  }
  return 0;
}

static int eval_hexquote(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++)
    if (s.p[i] > 32 && s.p[i] < 127)
      buf_add_byte(out, s.p[i]);
    else
      buf_printf(out, "\\x%02x", (unsigned char)s.p[i]);
  return 0;
}

static int eval_strlen(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  buf_printf(out, "%u", s.len);
  return 0;
}

static int eval_expand(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct str value;
  int rc = expand_text(c, s, &value);
  if (rc != 0)
    return ctx_fail(c, rc, "internal expansion of \"%.*s\" failed: %.*s", STRF(s), STRF(c->error));
  buf_add(out, value);
  return 0;
}

/* The numbers of substr_3_2 and the like; absent ones stay. False: other characters. */
static bool parse_numbers(struct str arg, bool sign, int64_t *first, int64_t *second) {
  struct str rest = arg, part = str_cut(&rest, '_');
  bool negative = sign && part.len > 0 && part.p[0] == '-';
  uint64_t v = 0;
  if (negative)
    part = str_from(part, 1);
  if (part.len == 0 && str_is_set(rest))
    return false;
  for (size_t i = 0; i < part.len; i++) {
    if (!ascii_is_digit(part.p[i]))
      return false;
    v = v > INT32_MAX ? v : v * 10 + (uint64_t)(part.p[i] - '0');
  }
  *first = v > INT32_MAX ? INT32_MAX : (int64_t)v;
  if (negative)
    *first = -*first;
  if (!str_is_set(rest))
    return true;
  v = 0;
  for (size_t i = 0; i < rest.len; i++) {
    if (!ascii_is_digit(rest.p[i]))
      return false;
    v = v > INT32_MAX ? v : v * 10 + (uint64_t)(rest.p[i] - '0');
  }
  *second = v > INT32_MAX ? INT32_MAX : (int64_t)v;
  return rest.len > 0;
}

static int eval_measure(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  int64_t first = 0, second = -1;
  if (!str_is_set(arg))
    return ctx_fail(c, OUTCOME_ERROR, "missing values after %s", def->name);
  if (!parse_numbers(arg, def->name[0] == 's', &first, &second) || (def->name[0] == 'l' && second >= 0))
    return ctx_fail(c, OUTCOME_ERROR, "non-digit after underscore in \"%s_%.*s\"", def->name, STRF(arg));
  switch (def->name[0]) {
  case 'h':
    return string_hash(c, s, first, second, out);
  case 'l':
    buf_add(out, str_slice(s, 0, (size_t)first));
    return 0;
  case 'n':
    string_nhash(s, first, second, out);
    return 0;
  default:
    string_substr(s, first, second, out);
    return 0;
  }
}

static int eval_xtextd(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++) {
    int high = i + 2 < s.len ? ascii_hex_value(s.p[i + 1]) : -1, low = high < 0 ? -1 : ascii_hex_value(s.p[i + 2]);
    if (s.p[i] == '+' && low >= 0) {
      buf_add_byte(out, (char)(high << 4 | low));
      i += 2;
    } else {
      buf_add_byte(out, s.p[i]);
    }
  }
  return 0;
}

/* Folds at a space before the column, else at the column; a fold is newline and tab, and the tab counts as 8. */
static int eval_headerwrap(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  int64_t columns = 80, limit = 998;
  if (str_is_set(arg) && !parse_numbers(arg, false, &columns, &limit))
    return ctx_fail(c, OUTCOME_ERROR, "non-digit after underscore in \"%s_%.*s\"", def->name, STRF(arg));
  if (columns < 9)
    columns = 9;
  size_t left = limit < 0 ? 0 : (size_t)limit;
  size_t room = (size_t)columns;
  while (s.len > 0 && left > 0) {
    size_t n = s.len < room ? s.len : room;
    if (s.len > room) {
      size_t space = n;
      while (space > 0 && !ascii_is_space(s.p[space]))
        space--;
      if (space > 0)
        n = space;
    }
    struct str line = n < s.len ? str_rtrim(str_slice(s, 0, n)) : s;
    buf_add(out, str_slice(line, 0, left));
    left -= line.len < left ? line.len : left;
    s = n < s.len ? str_ltrim(str_from(s, n)) : STR_EMPTY;
    if (s.len > 0 && left > 2) {
      buf_add_c(out, "\n\t");
      left -= 2;
    } else if (s.len > 0) {
      break;
    }
    room = (size_t)columns - 8;
  }
  return 0;
}

const struct expand_operator_def string_operators[] = {
  {"escape", 0, false, eval_escape},
  {"escape8bit", 0, false, eval_escape8bit},
  {"expand", 0, false, eval_expand},
  {"h", 0, true, eval_measure},
  {"hash", 0, true, eval_measure},
  {"headerwrap", 0, true, eval_headerwrap},
  {"hexquote", 0, false, eval_hexquote},
  {"l", 0, true, eval_measure},
  {"lc", 0, false, eval_case},
  {"length", 0, true, eval_measure},
  {"nhash", 0, true, eval_measure},
  {"quote", 0, true, eval_quote},
  {"quote_local_part", 0, false, eval_quote_local_part},
  {"rxquote", 0, false, eval_rxquote},
  {"s", 0, true, eval_measure},
  {"strlen", 0, false, eval_strlen},
  {"substr", 0, true, eval_measure},
  {"uc", 0, false, eval_case},
  {"xtextd", 0, false, eval_xtextd},
  {0},
};
