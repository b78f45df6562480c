/* SPF records (RFC 7208, sections 4.5, 4.6.1, 5, 6 and 12): the whole record is
taken apart before anything of it is used, since an error anywhere in it
decides. */
#include "base/ascii.h"
#include "base/buf.h"
#include "mailauth/spf.h"

#define TERMS_MAX 1024

const char *spf_result_name(enum spf_result r) {
  static const char *const names[] = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"};
  return names[r];
}

bool spf_is_record(struct str text) {
  return str_istarts(text, STR("v=spf1")) && (text.len == 6 || text.p[6] == ' ');
}

static bool is_name_byte(char ch) { return ascii_is_alnum(ch) || ch == '-' || ch == '_' || ch == '.'; }

/* A prefix length: no leading zeros, at most `max`. */
static bool parse_bits(struct str s, int max, int *ret) {
  uint64_t n;
  if (s.len == 0 || s.len > 3 || (s.p[0] == '0' && s.len > 1) || !str_to_u64(s, &n) || n > (uint64_t)max)
    return false;
  *ret = (int)n;
  return true;
}

/* Cuts "/digits" off the end; false: there is none. */
static bool cut_bits(struct str *s, struct str *ret) {
  size_t i = s->len;
  while (i > 0 && ascii_is_digit(s->p[i - 1]))
    i--;
  if (i == s->len || i == 0 || s->p[i - 1] != '/')
    return false;
  *ret = str_from(*s, i);
  s->len = (uint32_t)i - 1;
  return true;
}

/* [ip4-cidr-length] [ "/" ip6-cidr-length ] at the end of what stands behind "a" or "mx". */
static bool parse_dual(struct str *s, struct spf_directive *d) {
  struct str six = *s, bits;
  if (cut_bits(&six, &bits) && six.len > 0 && six.p[six.len - 1] == '/') {
    if (!parse_bits(bits, 128, &d->bits6))
      return false;
    *s = six;
    s->len--;
  }
  if (cut_bits(s, &bits) && !parse_bits(bits, 32, &d->bits4))
    return false;
  return true;
}

/* ":" domain-spec; nothing at all only where `optional`. */
static bool parse_domain(struct str s, bool optional, struct spf_directive *d) {
  d->domain = STR_UNSET;
  if (s.len == 0)
    return optional;
  d->domain = str_from(s, 1);
  return s.p[0] == ':' && spf_macro_check(d->domain, SPF_DOMAIN_SPEC);
}

static bool parse_network(struct str s, int family, struct spf_directive *d) {
  if (s.len < 2 || s.p[0] != ':')
    return false;
  int *bits = family == AF_INET ? &d->bits4 : &d->bits6;
  struct str address = str_from(s, 1), length;
  ptrdiff_t slash = str_find_byte(address, '/');
  if (slash >= 0) {
    length = str_from(address, (size_t)slash + 1);
    address = str_slice(address, 0, (size_t)slash);
    if (!parse_bits(length, family == AF_INET ? 32 : 128, bits))
      return false;
  }
  return str_find_byte(address, '%') < 0 && ip_parse(address, &d->net) && d->net.family == family;
}

static const struct {
  struct str name;
  enum spf_mechanism mechanism;
} mechanisms[] = {
  {{"all", 3, 0}, SPF_ALL}, {{"include", 7, 0}, SPF_INCLUDE}, {{"a", 1, 0}, SPF_A}, {{"mx", 2, 0}, SPF_MX},
  {{"ptr", 3, 0}, SPF_PTR}, {{"ip4", 3, 0}, SPF_IP4}, {{"ip6", 3, 0}, SPF_IP6}, {{"exists", 6, 0}, SPF_EXISTS},
};

static bool parse_directive(struct str term, struct spf_directive *d) {
  *d = (struct spf_directive){.qualifier = SPF_PASS, .bits4 = 32, .bits6 = 128, .text = term};
  if (term.p[0] == '+' || term.p[0] == '-' || term.p[0] == '?' || term.p[0] == '~') {
    d->qualifier = term.p[0] == '-' ? SPF_FAIL : term.p[0] == '?' ? SPF_NEUTRAL : term.p[0] == '~' ? SPF_SOFTFAIL : SPF_PASS;
    term = str_from(term, 1);
  }
  size_t n = 0;
  while (n < term.len && ascii_is_alnum(term.p[n]))
    n++;
  struct str name = str_slice(term, 0, n), rest = str_from(term, n);
  for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
    if (!str_ieq(name, mechanisms[i].name))
      continue;
    switch (d->mechanism = mechanisms[i].mechanism) {
      case SPF_ALL: return rest.len == 0;
      case SPF_INCLUDE: case SPF_EXISTS: return parse_domain(rest, false, d);
      case SPF_PTR: return parse_domain(rest, true, d);
      case SPF_A: case SPF_MX: return parse_dual(&rest, d) && parse_domain(rest, true, d);
      case SPF_IP4: return parse_network(rest, AF_INET, d);
      case SPF_IP6: return parse_network(rest, AF_INET6, d);
    }
  }
  return false;
}

/* name "=" macro-string, where it is one. */
static bool is_modifier(struct str term, struct str *name, struct str *value) {
  size_t n = 0;
  while (n < term.len && is_name_byte(term.p[n]))
    n++;
  if (n >= term.len || term.p[n] != '=')
    return false;
  *name = str_slice(term, 0, n);
  *value = str_from(term, n + 1);
  return true;
}

static bool parse_modifier(struct str name, struct str value, struct spf_record *ret) {
  struct str *known = str_ieq_c(name, "redirect") ? &ret->redirect : str_ieq_c(name, "exp") ? &ret->explanation : NULL;
  if (known == NULL)
    return name.len > 0 && ascii_is_alpha(name.p[0]) && spf_macro_check(value, SPF_MODIFIER_VALUE);
  if (str_is_set(*known) || !spf_macro_check(value, SPF_DOMAIN_SPEC))
    return false;
  *known = value;
  return true;
}

bool spf_parse(struct arena *a, struct str text, struct spf_record *ret, struct str *ret_error) {
  struct spf_directive **tail = &ret->first;
  int terms = 0;
  *ret = (struct spf_record){.redirect = STR_UNSET, .explanation = STR_UNSET};
  if (text.len > SPF_RECORD_MAX) {
    *ret_error = str_printf(a, "the record is longer than %d bytes", SPF_RECORD_MAX);
    return false;
  }
  for (size_t i = 0; i < text.len; i++) {
    if ((unsigned char)text.p[i] < ' ' || (unsigned char)text.p[i] > 126) {
      *ret_error = STR("the record holds a character that is not printable ASCII");
      return false;
    }
  }
  struct str rest = str_from(text, 6);
  while (str_is_set(rest) && rest.len > 0) {
    struct str term = str_cut(&rest, ' '), name, value;
    if (term.len == 0)
      continue;
    bool good;
    if (is_modifier(term, &name, &value)) {
      good = parse_modifier(name, value, ret);
    } else {
      struct spf_directive *d = arena_new_of(a, struct spf_directive);
      good = parse_directive(term, d);
      *tail = d;
      tail = &d->next;
    }
    if (!good || ++terms > TERMS_MAX) {
      *ret_error = str_tainted(str_printf(a, good ? "more than 1024 terms" : "bad term \"%.*s\"", STRF(str_slice(term, 0, 200))));
      return false;
    }
  }
  return true;
}
