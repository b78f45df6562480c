/* Macros (Exim manual, sections 6.4 to 6.9). */
#include "base/ascii.h"
#include "config/reader.h"
#include "core/module.h"

static bool is_name_byte(char c) { return ascii_is_alnum(c) || c == '_'; }

static size_t name_length(struct str s) {
  size_t n = 0;
  while (n < s.len && is_name_byte(s.p[n]))
    n++;
  return n;
}

/* Those of the program: the same for each configuration that it reads, so they are made once. There are some 1,500. */
static struct {
  struct arena *arena;
  struct map *by_name;
  VEC(struct config_macro) all;
} builtin;

static void add_builtin(void *arg, const char *name, const char *value) {
  struct str key = str_dup(builtin.arena, str_c(name));
  if (map_has(builtin.by_name, key))
    return;
  struct config_macro m = {.name = key, .value = str_dup(builtin.arena, str_c(value)), .builtin = true};
  vec_push(builtin.arena, &builtin.all, m);
  map_set(builtin.by_name, key, arena_memdup(builtin.arena, &m, sizeof m));
}

void config_macros_builtin(struct config_reader *r) {
  if (!builtin.arena) {
    builtin.arena = arena_new("builtin macros");
    builtin.by_name = map_new(builtin.arena);
    module_builtin_macros(add_builtin, NULL);
  }
  r->builtin = builtin.by_name;
  for (size_t i = 0; i < builtin.all.n; i++)
    vec_push(r->arena, &r->config->macros, builtin.all.v[i]);
  r->first_macro = r->config->macros.n;
}

static struct config_macro *find(struct config_reader *r, struct str name) {
  for (size_t i = r->first_macro; i < r->config->macros.n; i++)
    if (str_eq(r->config->macros.v[i].name, name))
      return &r->config->macros.v[i];
  return NULL;
}

void config_macros_command_line(struct config_reader *r) {
  for (size_t i = 0; i < r->source->macros.n; i++) {
    struct config_macro m = r->source->macros.v[i];
    m.name = str_dup(r->arena, m.name);
    m.value = str_untainted(str_dup(r->arena, m.value)); /* who may give -D was decided by the command line */
    m.from_command_line = true;
    if (m.name.len > 0 && find(r, m.name) == NULL)
      vec_push(r->arena, &r->config->macros, m);
  }
}

/* A macro definition's own name is not replaced: "ABC == ABC and more". */
static size_t defined_name_length(struct str line) {
  if (line.len == 0 || (!ascii_is_upper(line.p[0]) && line.p[0] != '_'))
    return 0;
  size_t n = name_length(line), i = n;
  while (i < line.len && ascii_is_space(line.p[i]))
    i++;
  return i < line.len && line.p[i] == '=' ? n : 0;
}

bool config_is_macro_line(struct str line) { return defined_name_length(line) > 0 && line.p[0] != '_'; }

static int too_long(struct config_reader *r) {
  return config_error(r, "line too long after macro substitution");
}

/* Builtin macros are found as whole words. */
static int replace_builtin(struct config_reader *r, struct str *line, size_t from, bool *changed) {
  struct buf b;
  size_t copied = 0;
  bool any = false;
  for (size_t i = from; i < line->len;) {
    if (!is_name_byte(line->p[i])) {
      i++;
      continue;
    }
    struct str word = str_slice(*line, i, i + name_length(str_from(*line, i)));
    const struct config_macro *m = word.p[0] == '_' ? map_get(r->builtin, word) : NULL;
    if (m != NULL) {
      if (!any)
        buf_init(&b, r->arena, CONFIG_LINE_MAX);
      any = true;
      buf_add(&b, str_slice(*line, copied, i));
      buf_add(&b, m->value);
      copied = i + word.len;
    }
    i += word.len;
  }
  if (!any)
    return 0;
  buf_add(&b, str_from(*line, copied));
  if (b.overflow)
    return too_long(r);
  *line = buf_str(&b);
  r->text_read += b.len;
  *changed = true;
  return 0;
}

/* All occurrences of one macro; what was put in is not looked at again. */
static int replace_one(struct config_reader *r, const struct config_macro *m, struct str *line, size_t from, bool *changed) {
  ptrdiff_t at = str_find(str_from(*line, from), m->name);
  if (at < 0)
    return 0;
  struct buf b;
  buf_init(&b, r->arena, CONFIG_LINE_MAX);
  buf_add(&b, str_slice(*line, 0, from));
  struct str rest = str_from(*line, from);
  for (; at >= 0; at = str_find(rest, m->name)) {
    buf_add(&b, str_slice(rest, 0, (size_t)at));
    buf_add(&b, m->value);
    rest = str_from(rest, (size_t)at + m->name.len);
  }
  buf_add(&b, rest);
  if (b.overflow)
    return too_long(r);
  *line = buf_str(&b);
  r->text_read += b.len;
  *changed = true;
  return 0;
}

int config_macros_replace(struct config_reader *r, struct str line, struct str *ret, bool *ret_changed) {
  size_t from = defined_name_length(line);
  *ret_changed = false;
  *ret = line;
  if (r->text_read > CONFIG_TEXT_MAX) {
    r->stop = true;
    return config_error(r, "the configuration is too large");
  }
  if (str_find_byte(line, '_') >= 0 && replace_builtin(r, ret, from, ret_changed) < 0)
    return OUTCOME_ERROR;
  for (size_t i = r->first_macro; i < r->config->macros.n; i++)
    if (replace_one(r, &r->config->macros.v[i], ret, from, ret_changed) < 0)
      return OUTCOME_ERROR;
  return 0;
}

static int check_new_name(struct config_reader *r, struct str name) {
  if (name.len > CONFIG_NAME_MAX)
    return config_error(r, "exim item name too long (>%d), unable to use \"%.*s\" (truncated)", CONFIG_NAME_MAX,
        CONFIG_NAME_MAX - 1, name.p);
  for (size_t i = r->first_macro; i < r->config->macros.n; i++)
    if (str_find(name, r->config->macros.v[i].name) >= 0)
      return config_error(r, "\"%.*s\" cannot be defined as a macro because previously defined macro \"%.*s\" is a substring",
          STRF(name), STRF(r->config->macros.v[i].name));
  return 0;
}

int config_macro_line(struct config_reader *r, struct str line) {
  struct str name = str_slice(line, 0, name_length(line)), rest = str_ltrim(str_from(line, name.len));
  if (str_is_empty(rest) || rest.p[0] != '=')
    return config_error(r, "malformed macro definition");
  bool redefine = rest.len > 1 && rest.p[1] == '=';
  struct str value = str_trim(str_from(rest, redefine ? 2 : 1));
  struct config_macro *m = find(r, name);
  if (m != NULL && m->from_command_line)
    return 0;
  if (m != NULL && !redefine)
    return config_error(r, "macro \"%.*s\" is already defined (use \"==\" if you want to redefine it)", STRF(name));
  if (m != NULL) {
    m->value = value;
    return 0;
  }
  if (redefine)
    return config_error(r, "can't redefine an undefined macro \"%.*s\"", STRF(name));
  if (check_new_name(r, name) < 0)
    return OUTCOME_ERROR;
  struct config_macro made = {.name = name, .value = value};
  vec_push(r->arena, &r->config->macros, made);
  return 0;
}
