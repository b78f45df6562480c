/* SPF macro strings (RFC 7208, section 7). */
#include "base/ascii.h"
#include "base/buf.h"
#include "mailauth/spf.h"

#define PARTS_MAX 260 /* a value may be an address in the form of 32 nibbles, or a local part of many dots */

struct macro {
  char letter;
  bool escape, reverse;
  int keep;               /* rightmost parts; 0: all */
  struct str delimiters;  /* empty: "." */
};

static bool is_delimiter(char ch) { return ch != 0 && strchr(".-+,/_=", ch) != NULL; }

/* The text behind "%{"; *ret_used counts the closing brace. */
static bool parse_macro(struct str s, enum spf_macro_place place, struct macro *m, size_t *ret_used) {
  *m = (struct macro){0};
  if (s.len == 0)
    return false;
  m->letter = ascii_lower(s.p[0]);
  m->escape = m->letter != s.p[0];
  if (m->letter == 0 || strchr(place == SPF_EXPLANATION ? "slodiphvcrt" : "slodiphv", m->letter) == NULL)
    return false;
  size_t i = 1;
  bool digits = false;
  for (; i < s.len && ascii_is_digit(s.p[i]); i++) {
    digits = true;
    if (m->keep < PARTS_MAX)
      m->keep = m->keep * 10 + (s.p[i] - '0');
  }
  if (digits && m->keep == 0)
    return false;
  if (i < s.len && ascii_lower(s.p[i]) == 'r') {
    m->reverse = true;
    i++;
  }
  size_t from = i;
  while (i < s.len && is_delimiter(s.p[i]))
    i++;
  m->delimiters = str_slice(s, from, i);
  if (i >= s.len || s.p[i] != '}')
    return false;
  *ret_used = i + 1;
  return true;
}

static struct str address_parts(struct arena *a, const struct ip_addr *ip) {
  if (ip->family != AF_INET6)
    return ip_text(a, ip);
  struct buf b;
  buf_init(&b, a, 64);
  for (int i = 0; i < 16; i++)
    buf_printf(&b, "%s%X.%X", i ? "." : "", ip->bytes[i] >> 4, ip->bytes[i] & 15);
  return buf_str(&b);
}

static struct str value_of(struct arena *a, const struct macro *m, const struct spf_macros *v) {
  switch (m->letter) {
    case 's': return str_cat(a, str_cat(a, v->local_part, STR("@")), v->sender_domain);
    case 'l': return v->local_part;
    case 'o': return v->sender_domain;
    case 'd': return v->domain;
    case 'i': return address_parts(a, &v->ip);
    case 'p': return v->validated;
    case 'v': return v->ip.family == AF_INET6 ? STR("ip6") : STR("in-addr");
    case 'h': return v->helo;
    case 'c': return ip_text(a, &v->ip);
    case 'r': return v->receiver;
    default: return str_printf(a, "%lld", (long long)v->now);
  }
}

static void add_value(struct buf *out, const struct macro *m, struct str value) {
  struct str part[PARTS_MAX];
  int n = 0;
  size_t from = 0;
  for (size_t i = 0; i <= value.len && n < PARTS_MAX; i++) {
    bool end = i == value.len;
    if (!end && (m->delimiters.len > 0 ? str_find_byte(m->delimiters, value.p[i]) < 0 : value.p[i] != '.'))
      continue;
    part[n] = str_slice(value, from, n == PARTS_MAX - 1 ? value.len : i);
    n++;
    from = i + 1;
  }
  int first = m->keep > 0 && m->keep < n ? n - m->keep : 0;
  if (m->reverse) {
    for (int i = 0; i < n / 2; i++) {
      struct str t = part[i];
      part[i] = part[n - 1 - i];
      part[n - 1 - i] = t;
    }
  }
  out->taint = str_taint_join(out->taint, value.taint);
  for (int i = first; i < n; i++) {
    if (i > first)
      buf_add_byte(out, '.');
    for (size_t j = 0; j < part[i].len; j++) {
      char ch = part[i].p[j];
      if (!m->escape || ascii_is_alnum(ch) || (ch != 0 && strchr("-._~", ch) != NULL))
        buf_add_byte(out, ch);
      else
        buf_printf(out, "%%%02X", (unsigned char)ch);
    }
  }
}

/* One walk for checking (out == NULL) and expanding. *ret_ends: the last thing in it is a macro. */
static bool walk(struct str s, enum spf_macro_place place, const struct spf_macros *m, struct buf *out, bool *ret_ends) {
  *ret_ends = false;
  for (size_t i = 0; i < s.len; i++) {
    unsigned char ch = (unsigned char)s.p[i];
    *ret_ends = ch == '%';
    if (ch != '%') {
      if (!(ch > ' ' && ch < 127) && !(ch == ' ' && place == SPF_EXPLANATION))
        return false;
      if (out)
        buf_add_byte(out, (char)ch);
      continue;
    }
    char next = i + 1 < s.len ? s.p[i + 1] : 0;
    struct macro macro;
    size_t used;
    if (next == '{') {
      if (!parse_macro(str_from(s, i + 2), place, &macro, &used))
        return false;
      if (out)
        add_value(out, &macro, value_of(out->arena, &macro, m));
      i += 1 + used;
      continue;
    }
    if (next != '%' && next != '_' && next != '-')
      return false;
    if (out)
      buf_add_c(out, next == '%' ? "%" : next == '_' ? " " : "%20");
    i++;
  }
  return out == NULL || !out->overflow;
}

/* "." toplabel ["."] at the end. */
static bool ends_in_toplabel(struct str s) {
  if (s.len > 0 && s.p[s.len - 1] == '.')
    s.len--;
  ptrdiff_t dot = str_rfind_byte(s, '.');
  if (dot < 0)
    return false;
  struct str top = str_from(s, (size_t)dot + 1);
  bool letter = false, hyphen = false;
  for (size_t i = 0; i < top.len; i++) {
    if (!ascii_is_alnum(top.p[i]) && top.p[i] != '-')
      return false;
    letter = letter || ascii_is_alpha(top.p[i]);
    hyphen = hyphen || top.p[i] == '-';
  }
  return top.len > 0 && (letter || hyphen) && top.p[0] != '-' && top.p[top.len - 1] != '-';
}

bool spf_macro_check(struct str text, enum spf_macro_place place) {
  bool macro;
  return walk(text, place, NULL, NULL, &macro) && (place != SPF_DOMAIN_SPEC || macro || ends_in_toplabel(text));
}

bool spf_macro_uses(struct str s, char letter) {
  for (size_t i = 0; i + 2 < s.len; i++) {
    if (s.p[i] != '%')
      continue;
    if (s.p[i + 1] == '{' && ascii_lower(s.p[i + 2]) == letter)
      return true;
    i++;
  }
  return false;
}

bool spf_macro_expand(struct str text, enum spf_macro_place place, const struct spf_macros *m, struct buf *out) {
  bool macro;
  out->taint = str_taint_join(out->taint, text.taint);
  return walk(text, place, m, out, &macro);
}
