/* The grammar is RFC 5322's with the relaxations Exim's users rely on: dots
anywhere in a local part, phrases of dotted words, backslashes in atoms. The
parser has two ways: a bare address (or the phrase before "<"), and the route
address inside of "<>", which is stricter. */
#include "message/address.h"

#include "base/buf.h"
#include "base/idn.h"
#include "base/outcome.h"

struct parser {
  struct arena *arena;
  struct str text;
  size_t pos;
  unsigned flags;
  const char *error; /* a literal, or NULL */
};

static int peek(const struct parser *p) {
  return p->pos < p->text.len ? (unsigned char)p->text.p[p->pos] : -1;
}

static bool is_space(int c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t address_skip_comment(struct str text, size_t pos) {
  while (pos < text.len) {
    if (is_space((unsigned char)text.p[pos])) {
      pos++;
      continue;
    }
    if (text.p[pos] != '(')
      return pos;
    int depth = 0;
    for (; pos < text.len; pos++) {
      char c = text.p[pos];
      if (c == '\\' && pos + 1 < text.len)
        pos++;
      else if (c == '(')
        depth++;
      else if (c == ')' && --depth == 0)
        break;
    }
    if (pos < text.len)
      pos++;
  }
  return pos;
}

static void skip(struct parser *p) {
  p->pos = address_skip_comment(p->text, p->pos);
}

/* A byte that may stand unquoted in a word. */
static bool is_word_byte(int c) {
  return c > ' ' && c != 127 && !memchr("()<>@,;:\".[]\\", c, 13);
}

/* A quoted string, with its quotes; folding is undone. */
static bool read_quoted(struct parser *p, struct buf *out) {
  buf_add_byte(out, '"');
  for (p->pos++; p->pos < p->text.len; p->pos++) {
    char c = p->text.p[p->pos];
    if (c == '"') {
      p->pos++;
      buf_add_byte(out, '"');
      return true;
    }
    if (c == '\r' || c == '\n')
      continue;
    if (c == '\0')
      break;
    if (c == '\\') {
      char next = p->pos + 1 < p->text.len ? p->text.p[p->pos + 1] : '\0';
      if (next == '\0')
        break;
      p->pos++;
      if (next == '\r' || next == '\n')
        continue;
      buf_add_byte(out, '\\');
      c = next;
    }
    buf_add_byte(out, c);
  }
  p->error = "unmatched doublequote in local part";
  return false;
}

static void read_atom(struct parser *p, struct buf *out) {
  for (int c; (c = peek(p)) >= 0;) {
    if (c == '\\') {
      int next = p->pos + 1 < p->text.len ? (unsigned char)p->text.p[p->pos + 1] : ' ';
      if (next < ' ')
        return;
      buf_add_byte(out, '\\');
      p->pos++;
      if (p->pos < p->text.len)
        buf_add_byte(out, p->text.p[p->pos++]);
      continue;
    }
    if (!is_word_byte(c))
      return;
    buf_add_byte(out, (char)c);
    p->pos++;
  }
}

/* Words and dots. Empty when there is none; p->error for an open quote. */
static struct str read_local_part(struct parser *p) {
  struct buf out;
  buf_init(&out, p->arena, ADDRESS_MAX_TEXT * 2);
  skip(p);
  for (;;) {
    if (peek(p) == '"') {
      if (!read_quoted(p, &out))
        return STR_EMPTY;
    } else {
      read_atom(p, &out);
    }
    skip(p);
    if (peek(p) != '.')
      break;
    while (peek(p) == '.') {
      buf_add_byte(&out, '.');
      p->pos++;
      skip(p);
    }
  }
  struct str s = buf_str(&out);
  s.taint = p->text.taint;
  return s;
}

static bool is_literal_byte(int c, bool strict) {
  if (strict)
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '.' || c == ':';
  return c > ' ' && c != 127 && c != '[' && c != ']' && c != '\\';
}

/* [1.2.3.4], [IPv6:…]. */
static void read_literal(struct parser *p, struct buf *out, bool strict) {
  if (strict && !(p->flags & ADDRESS_ALLOW_DOMAIN_LITERAL)) {
    p->error = "domain literals not allowed";
    return;
  }
  buf_add_byte(out, '[');
  p->pos++;
  if (strict && str_istarts(str_from(p->text, p->pos), STR("IPv6:"))) {
    buf_add_n(out, p->text.p + p->pos, 5);
    p->pos += 5;
  }
  while (is_literal_byte(peek(p), strict))
    buf_add_byte(out, p->text.p[p->pos++]);
  if (peek(p) != ']') {
    p->error = "malformed domain literal";
    return;
  }
  p->pos++;
  buf_add_byte(out, ']');
  skip(p);
}

static bool is_domain_byte(const struct parser *p, int c) {
  return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
    (c > 127 && (p->flags & ADDRESS_ALLOW_UTF8));
}

/* A domain behind its @. `strict`: inside of <> or in a route. */
static struct str read_domain(struct parser *p, bool strict) {
  struct buf out;
  buf_init(&out, p->arena, ADDRESS_MAX_TEXT);
  skip(p);
  if (peek(p) == '[') {
    read_literal(p, &out, strict);
  } else {
    for (;;) {
      size_t before = out.len;
      while (is_domain_byte(p, peek(p)) || (peek(p) == '-' && out.len > before))
        buf_add_byte(&out, p->text.p[p->pos++]);
      skip(p);
      if (out.len == before) {
        if (out.len && (p->flags & ADDRESS_STRIP_TRAILING_DOT) && peek(p) != '.' && peek(p) != '-' && peek(p) != '_')
          buf_truncate(&out, out.len - 1);
        else
          p->error = "domain missing or malformed";
        break;
      }
      if (peek(p) != '.')
        break;
      buf_add_byte(&out, '.');
      p->pos++;
      skip(p);
    }
  }
  struct str s = buf_str(&out);
  s.taint = p->text.taint;
  if (!p->error && !utf8_valid(s)) /* only where 8-bit bytes are let in at all */
    p->error = "invalid UTF-8 byte sequence";
  return s;
}

/* @a,@b: — read and forgotten (RFC 5321 4.1.2). True if there was one. */
static bool read_route(struct parser *p) {
  bool comma = false;
  skip(p);
  if (peek(p) != '@')
    return false;
  while (peek(p) == '@') {
    p->pos++;
    read_domain(p, true);
    if (p->error)
      return false;
    if (peek(p) != ',')
      break;
    comma = true;
    while (peek(p) == ',') {
      p->pos++;
      skip(p);
    }
  }
  if (peek(p) != ':') {
    p->error = comma ? "colon expected after route list" : "no local part";
    return false;
  }
  p->pos++;
  return true;
}

static int fail(struct parser *p, struct str *ret_error) {
  *ret_error = str_c(p->error);
  return OUTCOME_FAIL;
}

static int fail_trailing(struct parser *p, struct str *ret_error) {
  struct str rest = str_slice(p->text, p->pos, p->pos + 32);
  struct str before = str_slice(p->text, 0, p->pos);
  *ret_error = str_tainted(
    str_printf(p->arena, "malformed address: %.*s may not follow %.*s", STRF(rest), STRF(before)));
  return OUTCOME_FAIL;
}

static void set_result(struct parser *p, struct str local_part, struct str domain, struct mail_address *ret) {
  struct buf out;
  buf_init(&out, p->arena, ADDRESS_MAX_TEXT * 4);
  buf_add(&out, local_part);
  if (domain.len) {
    buf_add_byte(&out, '@');
    buf_add(&out, domain);
  }
  struct str whole = buf_str(&out);
  whole.taint = p->text.taint;
  ret->address = whole;
  ret->local_part = str_slice(whole, 0, local_part.len);
  ret->domain = domain.len ? str_from(whole, local_part.len + 1) : (struct str){"", 0, whole.taint};
}

/* The end of the working part, without comments and white space behind it: where pos was before skip(). */
static size_t working_end(const struct parser *p, size_t from) {
  size_t end = from;
  for (size_t i = from; i < p->pos;) {
    size_t next = address_skip_comment(p->text, i);
    if (next > i) {
      i = next;
      continue;
    }
    if (p->text.p[i] == '"') {
      for (i++; i < p->pos && p->text.p[i] != '"'; i++)
        if (p->text.p[i] == '\\')
          i++;
    } else if (p->text.p[i] == '\\') {
      i++;
    }
    end = ++i;
  }
  return end < p->pos ? end : p->pos;
}

/* [route] local-part ["@" domain] with `strict` as for read_domain. */
static int read_addr_spec(struct parser *p, bool strict, bool route, struct mail_address *ret, struct str *ret_error) {
  skip(p);
  ret->start = p->pos;
  struct str local_part = read_local_part(p), domain = STR_EMPTY;
  if (p->error)
    return fail(p, ret_error);
  if (!local_part.len) {
    if (strict && !route && peek(p) == '>' && (p->flags & ADDRESS_ALLOW_EMPTY)) {
      ret->end = ret->start;
      set_result(p, local_part, domain, ret);
      return OUTCOME_OK;
    }
    p->error = "missing or malformed local part";
    return fail(p, ret_error);
  }
  if (peek(p) == '@') {
    p->pos++;
    domain = read_domain(p, strict);
    if (p->error)
      return fail(p, ret_error);
  } else if (route) {
    p->error = "domain missing in source-routed address";
    return fail(p, ret_error);
  } else if (strict && peek(p) != '>') {
    *ret_error = str_tainted(str_printf(p->arena, "\"@\" or \".\" expected after \"%.*s\"", STRF(local_part)));
    return OUTCOME_FAIL;
  }
  ret->end = working_end(p, ret->start);
  set_result(p, local_part, domain, ret);
  return OUTCOME_OK;
}

/* Behind "<". */
static int read_route_address(struct parser *p, struct mail_address *ret, struct str *ret_error) {
  bool route = read_route(p);
  if (p->error)
    return fail(p, ret_error);
  int rc = read_addr_spec(p, true, route, ret, ret_error);
  if (rc)
    return rc;
  if (peek(p) != '>') {
    if (peek(p) >= 0)
      return fail_trailing(p, ret_error);
    p->error = "'>' missing at end of address";
    return fail(p, ret_error);
  }
  p->pos++;
  skip(p);
  return OUTCOME_OK;
}

/* From the "<" on. */
static int read_bracketed(struct parser *p, struct mail_address *ret, struct str *ret_error) {
  size_t more = 0;
  p->pos++;
  while ((p->flags & ADDRESS_STRIP_BRACKETS) && peek(p) == '<') {
    p->pos++;
    more++;
  }
  int rc = read_route_address(p, ret, ret_error);
  for (; !rc && more > 0; more--) {
    if (p->text.p[p->pos - 1] != '>') /* a blank: what follows is too much */
      return OUTCOME_OK;
    if (peek(p) != '>') {
      p->error = "'>' missing at end of address";
      return fail(p, ret_error);
    }
    p->pos++;
    skip(p);
  }
  return rc;
}

/* Words up to "<". */
static int skip_phrase(struct parser *p, struct str *ret_error) {
  while (peek(p) != '<') {
    struct str word = read_local_part(p);
    if (word.len && !p->error)
      continue;
    const char *error = p->error ? p->error : "missing or malformed local part";
    *ret_error = str_printf(p->arena, "%s (expected word or \"<\")", error);
    return OUTCOME_FAIL;
  }
  return OUTCOME_OK;
}

/* Not (yet) in "<>": a bare address or the phrase in front of one. */
static int read_bare(struct parser *p, struct mail_address *ret, struct str *ret_error) {
  bool route = read_route(p);
  if (p->error)
    return fail(p, ret_error);
  if (route)
    return read_addr_spec(p, false, true, ret, ret_error);
  size_t start = p->pos;
  struct str local_part = read_local_part(p);
  if (p->error)
    return fail(p, ret_error);
  int c = peek(p);
  if (c != '@' && c >= 0 && c != ',' && c != ';') {
    int rc = skip_phrase(p, ret_error);
    if (rc)
      return rc;
    return read_bracketed(p, ret, ret_error);
  }
  if (!local_part.len) {
    p->error = c == '@' ? "no local part" : "empty address";
    return fail(p, ret_error);
  }
  p->pos = start;
  return read_addr_spec(p, false, false, ret, ret_error);
}

int address_parse(struct arena *a, struct str text, unsigned flags, struct mail_address *ret, struct str *ret_error) {
  struct parser p = {.arena = a, .text = text, .flags = flags};
  struct mail_address parsed = {0};
  if (text.len > ADDRESS_MAX_TEXT) {
    *ret_error = STR("malformed address: too long");
    return OUTCOME_FAIL;
  }
  skip(&p);
  int rc;
  if (peek(&p) == '<') {
    rc = read_bracketed(&p, &parsed, ret_error);
  } else {
    rc = read_bare(&p, &parsed, ret_error);
  }
  if (rc)
    return rc;
  if (p.pos < text.len)
    return fail_trailing(&p, ret_error);
  if (parsed.address.len > ADDRESS_MAX) {
    struct str start = str_slice(parsed.address, 0, 64);
    *ret_error = str_tainted(str_printf(a, "address is ridiculously long: %.*s...", STRF(start)));
    return OUTCOME_FAIL;
  }
  *ret = parsed;
  return OUTCOME_OK;
}
