/* Helpers on addresses that need no full parse: ends of list items, quoting,
splitting. */
#include "base/buf.h"
#include "message/address.h"

/* Behind the quoted string that starts at pos. */
static size_t skip_quoted(struct str text, size_t pos) {
  for (pos++; pos < text.len; pos++) {
    if (text.p[pos] == '\\')
      pos++;
    else if (text.p[pos] == '"')
      return pos + 1;
  }
  return text.len;
}

static size_t skip_spaces(struct str text, size_t pos) {
  while (pos < text.len && (text.p[pos] == ' ' || (text.p[pos] >= '\t' && text.p[pos] <= '\r')))
    pos++;
  return pos;
}

/* Runs over quotes, comments, angle brackets and routes until fn's byte: a comma, or the semicolon if asked. */
static size_t find_end(struct str text, size_t pos, bool semicolon_ends) {
  bool route = false, angle = false;
  pos = skip_spaces(text, pos);
  if (pos < text.len && text.p[pos] == '@')
    route = true;
  while (pos < text.len) {
    char c = text.p[pos];
    if (c == '"') {
      pos = skip_quoted(text, pos);
      continue;
    }
    if (c == '(') {
      pos = address_skip_comment(text, pos);
      continue;
    }
    if (c == '<' && !angle) {
      angle = true;
      size_t next = address_skip_comment(text, pos + 1);
      route = next < text.len && text.p[next] == '@';
    } else if (c == ':' || c == '>') {
      route = false;
    } else if ((c == ',' && !route) || (c == ';' && semicolon_ends)) {
      return pos;
    } else if (c == '\\') {
      pos++;
    }
    pos++;
  }
  return text.len;
}

size_t address_find_end(struct str text, bool semicolon_ends) {
  return find_end(text, 0, semicolon_ends);
}

/* Position behind "name:" if a group starts at pos, else pos. */
static size_t skip_group_name(struct str text, size_t pos) {
  size_t start = pos;
  while (pos < text.len) {
    char c = text.p[pos];
    if (c == '"')
      pos = skip_quoted(text, pos);
    else if (c == '(')
      pos = address_skip_comment(text, pos);
    else if (c == ':')
      return pos + 1;
    else if (memchr(",;<>@[]", c, 7))
      return start;
    else
      pos += c == '\\' ? 2 : 1;
  }
  return start;
}

bool address_walk_next(struct address_walk *w) {
  while (w->next < w->text.len) {
    size_t pos = skip_spaces(w->text, w->next);
    if (pos >= w->text.len)
      break;
    w->shown_from = pos;
    if (!w->in_group) {
      size_t behind = skip_group_name(w->text, pos);
      if (behind > pos) {
        w->in_group = true;
        pos = skip_spaces(w->text, behind);
      }
    }
    size_t end = find_end(w->text, pos, w->in_group);
    w->next = end < w->text.len ? end + 1 : end;
    w->shown_to = end;
    if (w->in_group && end < w->text.len && w->text.p[end] == ';') {
      w->in_group = false;
      w->shown_to = end + 1;
    }
    w->from = pos;
    w->to = end;
    if (address_skip_comment(str_slice(w->text, 0, end), pos) < end)
      return true;
  }
  w->next = w->text.len;
  return false;
}

static bool is_atom_byte(unsigned char c) {
  return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c > 127 ||
    (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

struct str address_quote_local_part(struct arena *a, struct str local_part) {
  bool needed = local_part.len == 0;
  for (size_t i = 0; i < local_part.len && !needed; i++) {
    unsigned char c = (unsigned char)local_part.p[i];
    if (c == '.')
      needed = i == 0 || i + 1 == local_part.len || local_part.p[i + 1] == '.';
    else
      needed = !is_atom_byte(c);
  }
  if (!needed)
    return local_part;
  struct buf out;
  buf_init(&out, a, (size_t)local_part.len * 2 + 2);
  buf_add_byte(&out, '"');
  for (size_t i = 0; i < local_part.len; i++) {
    char c = local_part.p[i];
    if (c == '"' || c == '\\')
      buf_add_byte(&out, '\\');
    buf_add_byte(&out, c);
  }
  buf_add_byte(&out, '"');
  struct str s = buf_str(&out);
  s.taint = local_part.taint;
  return s;
}

struct str address_unquote_local_part(struct arena *a, struct str local_part) {
  if (str_find_byte(local_part, '"') < 0 && str_find_byte(local_part, '\\') < 0)
    return local_part;
  struct buf out;
  buf_init(&out, a, local_part.len);
  for (size_t i = 0; i < local_part.len; i++) {
    char c = local_part.p[i];
    if (c == '"')
      continue;
    if (c == '\\' && i + 1 < local_part.len)
      c = local_part.p[++i];
    buf_add_byte(&out, c);
  }
  struct str s = buf_str(&out);
  s.taint = local_part.taint;
  return s;
}

void address_split(struct str address, struct str *ret_local_part, struct str *ret_domain) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  if (at < 0) {
    *ret_local_part = address;
    *ret_domain = (struct str){"", 0, address.taint};
    return;
  }
  *ret_local_part = str_slice(address, 0, (size_t)at);
  *ret_domain = str_from(address, (size_t)at + 1);
}
