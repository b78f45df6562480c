/* From text to items (manual, chapter "Domain, host, address, and local part lists"). */
#include "base/ascii.h"
#include "base/vec.h"
#include "match/list.h"

static void item_error(struct item *i, struct str text) {
  i->type = ITEM_ERROR;
  i->arg = text;
}

static void compile_regex(struct arena *a, unsigned flags, struct item *i) {
  struct str error = STR_EMPTY;
  i->type = ITEM_REGEX;
  if (flags & LIST_TRANSIENT)
    return;
  i->re = pcre_compile(a, i->text, PCRE_CASELESS, &error);
  if (i->re == NULL)
    item_error(i, error);
}

/* "type;data". false: the part before the semicolon is no lookup type (*ret_error says why). */
static bool compile_lookup(struct arena *a, struct item *i, struct str text, size_t semicolon, struct str *ret_error) {
  if (lookup_parse(a, str_slice(text, 0, semicolon), &i->lookup, ret_error) != OUTCOME_OK)
    return false;
  i->type = ITEM_LOOKUP;
  i->arg = str_ltrim(str_from(text, semicolon + 1));
  return true;
}

static bool compile_mx(struct arena *a, struct item *i) {
  static const struct {
    const char *name;
    enum item_type type;
  } names[] = {{"@mx_any", ITEM_MX_ANY}, {"@mx_primary", ITEM_MX_PRIMARY}, {"@mx_secondary", ITEM_MX_SECONDARY}};
  struct str rest = i->text, name = str_cut(&rest, '/');
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    if (!str_ieq_c(name, names[k].name))
      continue;
    if (str_is_set(rest) && !str_istarts(rest, STR("ignore=")))
      return false;
    i->type = names[k].type;
    i->arg = str_is_set(rest) ? str_from(rest, 7) : STR_UNSET;
    return true;
  }
  return false;
}

/* What all kinds but hosts and addresses have in common. */
static void compile_string(struct arena *a, enum list_kind kind, unsigned flags, struct item *i) {
  struct str t = i->text;
  if (t.len > 0 && t.p[0] == '^') {
    compile_regex(a, flags, i);
    return;
  }
  if (str_eq_c(t, "*")) {
    i->type = ITEM_ANY;
    return;
  }
  if (t.len > 0 && t.p[0] == '*') {
    i->type = ITEM_SUFFIX;
    i->arg = str_from(t, 1);
    return;
  }
  if (kind == LIST_DOMAIN && t.len > 0 && t.p[0] == '@') {
    if (t.len == 1)
      i->type = ITEM_PRIMARY;
    else if (str_eq_c(t, "@[]"))
      i->type = ITEM_LOCAL_IP;
    else if (!compile_mx(a, i))
      i->type = ITEM_LITERAL;
    return;
  }
  ptrdiff_t semicolon = str_find_byte(t, ';');
  i->type = ITEM_LITERAL;
  struct str error;
  if (semicolon >= 0 && !compile_lookup(a, i, t, (size_t)semicolon, &error))
    item_error(i, error);
}

static bool looks_like_ip(struct str t) {
  struct str rest = t, ip = str_cut(&rest, '/');
  bool dots = true, any = false;
  for (size_t k = 0; k < ip.len; k++) {
    if (ip.p[k] == ':')
      return true;
    dots &= ascii_is_digit(ip.p[k]) || ip.p[k] == '.';
    any |= ascii_is_digit(ip.p[k]);
  }
  return dots && any;
}

/* Only these are looked up; with other characters an item is compared with the client's name. */
static bool could_be_name(struct str t) {
  for (size_t k = 0; k < t.len; k++)
    if (!ascii_is_alnum(t.p[k]) && t.p[k] != '.' && t.p[k] != '-' && t.p[k] != '_')
      return false;
  return true;
}

/* "net-type;file" and "net24-type;file"; true if it was one. */
static bool compile_net(struct arena *a, struct item *i) {
  struct str t = i->text;
  if (!str_starts(t, STR("net")))
    return false;
  size_t n = 3;
  while (n < t.len && ascii_is_digit(t.p[n]))
    n++;
  ptrdiff_t semicolon = str_find_byte(t, ';');
  if (n >= t.len || t.p[n] != '-' || semicolon < 0)
    return false;
  uint64_t bits = 0;
  if (n > 3 && (!str_to_u64(str_slice(t, 3, n), &bits) || bits > 128)) {
    item_error(i, str_printf(a, "invalid mask in host list item \"%.*s\"", STRF(t)));
    return true;
  }
  struct str error;
  if (!compile_lookup(a, i, str_from(t, n + 1), (size_t)semicolon - n - 1, &error)) {
    item_error(i, error);
    return true;
  }
  i->bits = n > 3 ? (int)bits : -1;
  if (!(i->lookup.def->flags & LOOKUP_QUERY))
    i->type = ITEM_NET_LOOKUP;
  return true;
}

static void compile_host(struct arena *a, unsigned flags, struct item *i) {
  struct str t = i->text;
  if (t.len == 0)
    i->type = ITEM_EMPTY;
  else if (str_eq_c(t, "@"))
    i->type = ITEM_PRIMARY;
  else if (str_eq_c(t, "@[]"))
    i->type = ITEM_LOCAL_IP;
  else if (t.p[0] == '^' || t.p[0] == '*')
    compile_string(a, LIST_HOST, flags, i);
  else if (compile_net(a, i))
    return;
  else if (str_find_byte(t, ';') >= 0)
    compile_string(a, LIST_HOST, flags, i);
  else if (ip_parse_masked(t, &i->ip, &i->bits))
    i->type = ITEM_IP;
  else if (looks_like_ip(t))
    i->type = ITEM_BAD_IP;
  else
    i->type = could_be_name(t) ? ITEM_HOSTNAME : ITEM_LITERAL;
  if (i->type == ITEM_IP && i->bits == ip_bits(&i->ip))
    ip_unmap(&i->ip), i->bits = ip_bits(&i->ip);
}

/* Where the domain begins in "local@domain": the last @, but for the special items that begin with one. */
static ptrdiff_t domain_start(struct str t) {
  ptrdiff_t at = str_rfind_byte(t, '@');
  if (at <= 0 || t.p[at - 1] != '@')
    return at;
  struct str rest = str_from(t, (size_t)at);
  if (rest.len == 1 || str_starts(rest, STR("@[]")) || str_istarts(rest, STR("@mx_")))
    at--;
  return at;
}

static void compile_address(struct arena *a, unsigned flags, struct item *i) {
  struct str t = i->text, error;
  if (t.len == 0) {
    i->type = ITEM_EMPTY;
    return;
  }
  if (t.p[0] == '^') {
    compile_regex(a, flags, i);
    return;
  }
  ptrdiff_t semicolon = str_find_byte(t, ';');
  if (str_starts(t, STR("@@"))) {
    i->type = ITEM_ATAT;
    if (semicolon < 0)
      i->type = ITEM_LITERAL;
    else if (!compile_lookup(a, i, str_from(t, 2), (size_t)semicolon - 2, &error))
      item_error(i, error);
    else
      i->type = ITEM_ATAT;
    if (i->type != ITEM_LITERAL)
      return;
  }
  if (semicolon >= 0 && compile_lookup(a, i, t, (size_t)semicolon, &error))
    return;
  ptrdiff_t at = domain_start(t);
  if (semicolon >= 0 && (at < 0 || at > semicolon)) {
    item_error(i, error);
    return;
  }
  i->type = ITEM_SPLIT;
  i->local = at >= 0 ? str_slice(t, 0, (size_t)at) : STR_UNSET;
  struct item *domain = arena_new_of(a, struct item);
  item_compile(a, LIST_DOMAIN, at >= 0 ? str_from(t, (size_t)at + 1) : t, flags, domain);
  i->domain = domain;
}

/* "+name" and the words that begin with + . */
static bool compile_plus(enum list_kind kind, struct item *i) {
  static const struct {
    const char *name;
    enum item_type type;
  } words[] = {{"+include_unknown", ITEM_INCLUDE_UNKNOWN}, {"+ignore_unknown", ITEM_IGNORE_UNKNOWN},
    {"+include_defer", ITEM_INCLUDE_DEFER}, {"+ignore_defer", ITEM_IGNORE_DEFER}};
  if (i->text.len < 2 || i->text.p[0] != '+' || kind == LIST_STRING)
    return false;
  i->arg = str_from(i->text, 1);
  if (kind == LIST_HOST)
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
      if (str_eq_c(i->text, words[k].name)) {
        i->type = words[k].type;
        return true;
      }
  bool cased = kind == LIST_ADDRESS || kind == LIST_LOCAL_PART;
  i->type = cased && str_eq_c(i->text, "+caseful") ? ITEM_CASEFUL : ITEM_NAMED;
  return true;
}

void item_compile(struct arena *a, enum list_kind kind, struct str text, unsigned flags, struct item *ret) {
  *ret = (struct item){.text = text, .arg = STR_UNSET, .local = STR_UNSET};
  if (!(flags & LIST_IN_FILE)) {
    if (compile_plus(kind, ret))
      return;
    if (text.len > 0 && text.p[0] == '/' && kind != LIST_STRING) {
      ret->type = ITEM_FILE;
      ret->arg = text;
      return;
    }
  }
  if (kind == LIST_HOST)
    compile_host(a, flags, ret);
  else if (kind == LIST_ADDRESS)
    compile_address(a, flags, ret);
  else
    compile_string(a, kind, flags, ret);
}

static struct str take_negation(struct str text, bool *ret) {
  *ret = text.len > 0 && text.p[0] == '!';
  return *ret ? str_ltrim(str_from(text, 1)) : text;
}

#define QUICK_ITEMS 8

static bool is_quick(const struct item *v, size_t n) {
  if (n > QUICK_ITEMS)
    return false;
  for (size_t k = 0; k < n; k++)
    switch (v[k].type) {
    case ITEM_LITERAL: case ITEM_ANY: case ITEM_SUFFIX: case ITEM_CASEFUL: case ITEM_PRIMARY: case ITEM_EMPTY: case ITEM_IP:
      break;
    default:
      return false;
    }
  return true;
}

const struct list *list_compile(struct arena *a, enum list_kind kind, struct str text, unsigned flags) {
  struct list *l = arena_new_of(a, struct list);
  VEC(struct item) items = {0};
  l->kind = kind;
  l->text = text = str_dup(a, text);
  struct list_iter iter;
  struct str s;
  if (flags & MATCH_LITERAL_SEPARATOR)
    list_iter_init_literal(&iter, a, text);
  else
    list_iter_init(&iter, a, text);
  while (list_next(&iter, &s)) {
    struct item i;
    bool negate;
    s = take_negation(s, &negate);
    item_compile(a, kind, s, flags, &i);
    i.negate = negate;
    vec_push(a, &items, i);
  }
  l->v = items.v;
  l->n = items.n;
  l->quick = is_quick(l->v, l->n);
  return l;
}

/* Comments: anywhere in domain and host lists; else only behind a blank, as local parts may hold a #. */
static struct str strip_comment(enum list_kind kind, struct str line) {
  bool anywhere = kind == LIST_DOMAIN || kind == LIST_HOST;
  for (size_t k = 0; k < line.len; k++)
    if (line.p[k] == '#' && (anywhere || k == 0 || ascii_is_space(line.p[k - 1])))
      return str_slice(line, 0, k);
  return line;
}

const struct list *list_compile_lines(struct arena *a, enum list_kind kind, struct str text, struct str name) {
  struct list *l = arena_new_of(a, struct list);
  VEC(struct item) items = {0};
  l->kind = kind;
  l->text = str_dup(a, name);
  struct str rest = text;
  while (str_is_set(rest)) {
    struct str s = str_trim(strip_comment(kind, str_cut(&rest, '\n')));
    if (s.len == 0)
      continue;
    struct item i;
    bool negate;
    s = take_negation(s, &negate);
    item_compile(a, kind, s, LIST_IN_FILE, &i);
    i.negate = negate;
    vec_push(a, &items, i);
  }
  l->v = items.v;
  l->n = items.n;
  return l;
}
