#include "expand/internal.h"

#include "base/ascii.h"

static bool at_end(const struct expand_compiler *k) { return k->p == k->end; }

bool expand_compiler_skipping(struct expand_compiler *k, bool set) {
  bool old = k->skipping;
  k->skipping = set;
  return old;
}

void *expand_compile_error(struct expand_compiler *k, const char *fmt, ...) {
  if (str_is_set(k->error))
    return NULL;
  va_list ap;
  va_start(ap, fmt);
  k->error = str_vprintf(k->arena, fmt, ap);
  va_end(ap);
  return NULL;
}

void *expand_compile_inside(struct expand_compiler *k, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str inside = str_vprintf(k->arena, fmt, ap);
  va_end(ap);
  k->error = str_printf(k->arena, "%.*s %.*s", STRF(k->error), STRF(inside));
  return NULL;
}

void compile_skip_space(struct expand_compiler *k) {
  while (!at_end(k) && ascii_is_space(*k->p))
    k->p++;
}

char expand_peek(struct expand_compiler *k) {
  compile_skip_space(k);
  return at_end(k) ? '\0' : *k->p;
}

bool expand_accept(struct expand_compiler *k, char c) {
  if (expand_peek(k) != c || at_end(k))
    return false;
  k->p++;
  return true;
}

struct str expand_rest(struct expand_compiler *k) { return str_n(k->p, k->end - k->p); }

void expand_advance(struct expand_compiler *k, size_t n) {
  k->p += n < (size_t)(k->end - k->p) ? n : (size_t)(k->end - k->p);
}

struct str compile_name(struct expand_compiler *k, const char *extra) {
  const char *from = k->p;
  while (!at_end(k) && (ascii_is_alnum(*k->p) || (*k->p != '\0' && strchr(extra, *k->p) != NULL)))
    k->p++;
  struct str name = str_n(from, k->p - from);
  return str_slice(name, 0, EXPAND_MAX_NAME);
}

/* Header names end at a colon, which is taken, or at white space, which is not. */
static struct str compile_header_name(struct expand_compiler *k) {
  const char *from = k->p;
  while (!at_end(k) && *k->p > 32 && *k->p < 127 && *k->p != ':')
    k->p++;
  struct str name = str_dup(k->arena, str_n(from, k->p - from));
  if (!at_end(k) && *k->p == ':')
    k->p++;
  else if (str_find_byte(name, '}') >= 0)
    k->malformed_header = true;
  return name;
}

static bool header_prefix(struct str *name, enum header_form *ret) {
  static const struct {
    const char *prefix;
    enum header_form form;
  } prefixes[] = {
    {"h_", HEADER_DECODED},      {"header_", HEADER_DECODED}, {"rh_", HEADER_RAW},  {"rheader_", HEADER_RAW},
    {"bh_", HEADER_BASIC},       {"bheader_", HEADER_BASIC},  {"lh_", HEADER_LIST}, {"lheader_", HEADER_LIST},
  };
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
    if (str_starts(*name, str_c(prefixes[i].prefix))) {
      *name = str_from(*name, strlen(prefixes[i].prefix));
      *ret = prefixes[i].form;
      return true;
    }
  return false;
}

bool compile_reference(struct expand_compiler *k, struct str name, struct node *ret, const char **ret_why) {
  *ret_why = "";
  const struct variable_def *def = find_variable(name);
  if (def != NULL) {
    *ret = (struct node){.kind = NODE_VARIABLE, .variable = def};
    return true;
  }
  if (str_starts(name, STR("acl_"))) {
    struct str rest = str_from(name, 4);
    if (rest.len == 0 || (rest.p[0] != 'c' && rest.p[0] != 'm')) {
      *ret_why = " (user-defined ACL variables must start acl_c or acl_m)";
      return false;
    }
    if (rest.len > 1 && !ascii_is_digit(rest.p[1]) && rest.p[1] != '_') {
      *ret_why = " (6th character of a user-defined ACL variable must be a digit or underscore)";
      return false;
    }
    *ret = (struct node){.kind = NODE_ACL_VARIABLE, .text = str_dup(k->arena, name)};
    return true;
  }
  if (str_starts(name, STR("r_"))) {
    *ret = (struct node){.kind = NODE_ROUTER_VARIABLE, .text = str_dup(k->arena, name)};
    return true;
  }
  return false;
}

bool compile_header(struct expand_compiler *k, struct str name, struct node *ret) {
  struct str rest = name;
  enum header_form form;
  if (!header_prefix(&rest, &form))
    return false;
  k->p = rest.p;
  *ret = (struct node){.kind = NODE_HEADER, .header = {form, compile_header_name(k)}};
  return true;
}

/* Behind `$` and a letter. */
static bool compile_variable(struct expand_compiler *k, struct node *ret) {
  struct str name = compile_name(k, "_");
  const char *why;
  if (compile_header(k, name, ret) || compile_reference(k, name, ret, &why))
    return true;
  expand_compile_error(k, "unknown variable name \"%.*s\"%s", STRF(name), why);
  return false;
}

static int compile_number(struct expand_compiler *k) {
  int n = 0;
  while (!at_end(k) && ascii_is_digit(*k->p)) {
    n = n > 1000 ? n : n * 10 + (*k->p - '0');
    k->p++;
  }
  return n;
}

/* Behind `$`. */
static bool compile_dollar(struct expand_compiler *k, struct node *ret) {
  if (!at_end(k) && ascii_is_alpha(*k->p))
    return compile_variable(k, ret);
  if (!at_end(k) && ascii_is_digit(*k->p)) {
    *ret = (struct node){.kind = NODE_CAPTURE, .capture = compile_number(k)};
    return true;
  }
  if (at_end(k) || *k->p != '{') {
    expand_compile_error(k, "$ not followed by letter, digit, or {");
    return false;
  }
  k->p++;
  if (!at_end(k) && ascii_is_digit(*k->p)) {
    *ret = (struct node){.kind = NODE_CAPTURE, .capture = compile_number(k)};
    if (!at_end(k) && *k->p == '}') {
      k->p++;
      return true;
    }
    expand_compile_error(k, "} expected after number");
    return false;
  }
  return compile_braced(k, ret);
}

static char compile_digits(struct expand_compiler *k, int base, int max) {
  int v = 0;
  for (int i = 0; i < max && !at_end(k); i++) {
    int d = ascii_hex_value(*k->p);
    if (d < 0 || d >= base)
      break;
    v = v * base + d;
    k->p++;
  }
  return (char)v;
}

/* Behind a backslash: adds what the escape stands for. False at the end of the text. */
static bool compile_escape(struct expand_compiler *k, struct buf *text) {
  if (at_end(k)) {
    expand_compile_error(k, "\\ at end of string");
    return false;
  }
  char c = *k->p++;
  if (c == 'N') {
    struct str rest = expand_rest(k);
    ptrdiff_t close = str_find(rest, STR("\\N"));
    buf_add(text, str_slice(rest, 0, close < 0 ? rest.len : (size_t)close));
    k->p = close < 0 ? k->end : k->p + close + 2;
  } else if (c == 'n') {
    buf_add_byte(text, '\n');
  } else if (c == 'r') {
    buf_add_byte(text, '\r');
  } else if (c == 't') {
    buf_add_byte(text, '\t');
  } else if (c == 'b') {
    buf_add_byte(text, '\b');
  } else if (c == 'f') {
    buf_add_byte(text, '\f');
  } else if (c == 'v') {
    buf_add_byte(text, '\v');
  } else if (c == 'x') {
    buf_add_byte(text, compile_digits(k, 16, 2));
  } else if (c >= '0' && c <= '7') {
    k->p--;
    buf_add_byte(text, compile_digits(k, 8, 3));
  } else {
    buf_add_byte(text, c);
  }
  return true;
}

typedef VEC(struct node) node_list;

static void flush_text(struct expand_compiler *k, node_list *list, struct buf *text) {
  if (text->len == 0)
    return;
  struct node n = {.kind = NODE_TEXT, .text = str_untainted(buf_str(text))};
  vec_push(k->arena, list, n);
  buf_init(text, k->arena, BUF_MAX_EXPANSION);
}

const struct expr *compile_sequence(struct expand_compiler *k, bool to_brace, bool plain) {
  struct expr *e = arena_new_of(k->arena, struct expr);
  const char *from = k->p;
  node_list list = {0};
  struct buf text;
  buf_init(&text, k->arena, BUF_MAX_EXPANSION);
  if (++k->depth > EXPAND_MAX_DEPTH)
    expand_compile_error(k, "expansion is nested too deeply");
  while (!str_is_set(k->error) && !at_end(k)) {
    char c = *k->p;
    if (to_brace && c == '}')
      break;
    k->p++;
    if (c == '\\') {
      compile_escape(k, &text);
    } else if (c == '$' && !plain) {
      struct node n = {.kind = NODE_TEXT};
      flush_text(k, &list, &text);
      if (compile_dollar(k, &n) || n.kind == NODE_ERROR)
        vec_push(k->arena, &list, n);
    } else {
      buf_add_byte(&text, c);
    }
  }
  flush_text(k, &list, &text);
  k->depth--;
  e->source = str_n(from, k->p - from);
  if (to_brace && at_end(k))
    expand_compile_error(k, "missing } at end of string%s",
        k->malformed_header ? " - could be header name not terminated by colon" : "");
  /* The text of an error may still get additions on the way out; the outermost tree gets it all (expr_compile). */
  e->nodes = list.v;
  e->n = list.n;
  return e;
}

const struct expr *expand_compile_string(struct expand_compiler *k) {
  const struct expr *e = compile_sequence(k, true, false);
  if (str_is_set(k->error))
    return NULL;
  k->p++;
  return e;
}

const struct expr *expand_compile_plain(struct expand_compiler *k) {
  const struct expr *e = compile_sequence(k, true, true);
  if (str_is_set(k->error))
    return NULL;
  k->p++;
  return e;
}

const struct expr *expr_compile(struct arena *a, struct str text, struct str *ret_error) {
  struct str copy = str_untainted(str_dup(a, text));
  struct expand_compiler k = {.arena = a, .p = copy.p, .end = copy.p + copy.len};
  struct expr *e = (struct expr *)compile_sequence(&k, false, false);
  if (ret_error != NULL)
    *ret_error = k.error;
  if (!str_is_set(k.error))
    return e;
  /* The error takes the place of what could not be read; an item that got as far as its first arguments is there already. */
  if (e->n == 0 || e->nodes[e->n - 1].kind != NODE_ERROR) {
    node_list list = {0};
    for (uint32_t i = 0; i < e->n; i++)
      vec_push(a, &list, e->nodes[i]);
    vec_push(a, &list, (struct node){.kind = NODE_ERROR});
    e->nodes = list.v;
    e->n = list.n;
  }
  e->nodes[e->n - 1].error.text = k.error;
  return e;
}

bool expr_is_constant(const struct expr *e, struct str *ret) {
  if (e->n > 1 || (e->n == 1 && e->nodes[0].kind != NODE_TEXT))
    return false;
  if (ret != NULL)
    *ret = e->n == 0 ? STR_EMPTY : e->nodes[0].text;
  return true;
}
