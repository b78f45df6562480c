/* Options: from a line to its place in a block, by the tables' types (Exim
manual, sections 6.11 to 6.22). */
#include <inttypes.h>
#include "base/ascii.h"
#include "config/reader.h"

/* --- finding --- */

static size_t word_length(struct str s) {
  size_t n = 0;
  while (n < s.len && (ascii_is_alnum(s.p[n]) || s.p[n] == '_'))
    n++;
  return n;
}

bool config_option_line(struct str line, struct option_line *ret) {
  *ret = (struct option_line){0};
  size_t n = word_length(line);
  if (str_eq_c(str_slice(line, 0, n), "hide") && (n == line.len || ascii_is_space(line.p[n]))) {
    ret->hide = true;
    line = str_ltrim(str_from(line, n));
    n = word_length(line);
  }
  if (n == 0 || !ascii_is_alpha(line.p[0]))
    return ret->hide && n == 0;
  ret->name = str_slice(line, 0, n);
  ret->rest = str_ltrim(str_from(line, n));
  return true;
}

const struct option_def *config_option_find(const struct option_def *defs, struct str name) {
  for (const struct option_def *d = defs; d != NULL && d->name != NULL; d++)
    if (str_eq_c(name, d->name))
      return d;
  return NULL;
}

const struct option_def *config_option_match(const struct option_def *defs, const struct option_line *l, bool *ret_negated) {
  const struct option_def *d = config_option_find(defs, l->name);
  *ret_negated = false;
  for (size_t cut = 3; d == NULL && cut <= 4; cut++) {
    if (!str_starts(l->name, cut == 3 ? STR("no_") : STR("not_")))
      continue;
    d = config_option_find(defs, str_from(l->name, cut));
    *ret_negated = d != NULL;
  }
  return d;
}

void config_hide(struct config *c, const struct option_def *def) {
  if (!config_is_hidden(c, def))
    vec_push(c->arena, &c->hidden, def);
}

bool config_is_hidden(const struct config *c, const struct option_def *def) {
  for (size_t i = 0; i < c->hidden.n; i++)
    if (c->hidden.v[i] == def)
      return true;
  return false;
}

/* --- values --- */

static void *place_of(const struct option_def *def, void *block) { return (char *)block + def->offset; }

static void put_expr(struct config_reader *r, struct option_expr *e, struct str text) {
  *e = (struct option_expr){.text = text, .where = config_reader_where(r)};
}

static bool has_expansion(struct str s) { return str_find_byte(s, '$') >= 0 || str_find_byte(s, '\\') >= 0; }

static void put_bool(const struct option_def *def, void *place, bool value) {
  if (def->flags & OPTION_TRISTATE)
    *(int *)place = value;
  else
    *(bool *)place = value;
}

/* A comment behind a value is what many expect to work. */
static const char *comment_hint(struct str rest) {
  return rest.len > 0 && rest.p[0] == '#' ? " (# is comment only at line start)" : "";
}

/* What stands behind the digits, the unit and blanks. */
static struct str behind_number(struct str text) {
  size_t i = 0;
  while (i < text.len && (ascii_is_alnum(text.p[i]) || text.p[i] == '.' || text.p[i] == '-' || text.p[i] == '+'))
    i++;
  return str_ltrim(str_from(text, i));
}

static int number_error(struct config_reader *r, enum value_result rc, const char *what, const char *name, struct str text) {
  if (rc == VALUE_OVERFLOW)
    return config_error(r, "%sinteger \"%.*s\" is too large (overflow)", *what == 'i' ? "absolute value of " : "", STRF(text));
  if (rc == VALUE_EXTRA)
    return config_error(r, "extra characters follow %s value for %s%s", what, name, comment_hint(behind_number(text)));
  const char *a = *what == 'f' ? " number" : "";
  return config_error(r, "%s%s expected for %s", what, a, name);
}

static int set_number(struct config_reader *r, const struct option_def *def, void *place, const char *name, struct str text) {
  int64_t n;
  enum value_result rc;
  const char *what = "integer";
  switch (def->type) {
  case OPTION_INT: rc = value_int_limited(text, false, &n); break;
  case OPTION_SIZE: rc = value_int_limited(text, true, &n); break;
  case OPTION_OCTAL: rc = value_octal(text, &n), what = "octal integer"; break;
  default: rc = value_fixed(text, &n), what = "fixed-point"; break;
  }
  if (rc == VALUE_OK && def->flags & OPTION_KILO && text.len > 0 && ascii_is_digit(text.p[text.len - 1]) &&
      __builtin_mul_overflow(n, INT64_C(1024), &n))
    rc = VALUE_OVERFLOW;
  if (rc != VALUE_OK)
    return number_error(r, rc, what, name, text);
  *(int64_t *)place = n;
  return 0;
}

static int set_time(struct config_reader *r, const struct option_def *def, void *place, const char *name, struct str text) {
  int64_t t;
  if (value_time(text, &t) != VALUE_OK &&
      (!(def->flags & OPTION_SECONDS) || value_int_limited(text, false, &t) != VALUE_OK))
    return config_error(r, "invalid time value for %s", name);
  *(int64_t *)place = t;
  return 0;
}

static int set_time_list(struct config_reader *r, void *place, const char *name, struct str text) {
  VEC(int64_t) times = {0};
  struct str item;
  char sep = 0;
  while (value_list_next(r->arena, &text, &sep, &item)) {
    int64_t t;
    if (value_time(item, &t) != VALUE_OK)
      return config_error(r, "invalid time value for %s", name);
    if (times.n > 0 && t <= times.v[times.n - 1])
      return config_error(r, "time value out of order for %s", name);
    vec_push(r->arena, &times, t);
  }
  *(struct option_times *)place = (struct option_times){times.v, times.n};
  return 0;
}

static int set_user(struct config_reader *r, const struct option_def *def, void *place, struct str text) {
  struct option_user *u = place;
  bool user = def->type == OPTION_USER;
  *u = (struct option_user){.text = text, .set = true};
  if (str_is_empty(text)) {
    u->set = false;
    return 0;
  }
  if (str_find_byte(text, '$') >= 0) {
    put_expr(r, &u->expr, text);
    return 0;
  }
  int64_t gid = -1;
  if (user ? !value_user(text, &u->id, &gid) : !value_group(text, &u->id))
    return config_error(r, "%s %.*s was not found", user ? "user" : "group", STRF(text));
  u->gid_set = gid >= 0;
  u->gid = gid < 0 ? 0 : (uint32_t)gid;
  return 0;
}

static int set_id_list(struct config_reader *r, const struct option_def *def, void *place, struct str text) {
  VEC(uint32_t) ids = {0};
  struct str item;
  char sep = 0;
  bool users = def->type == OPTION_USER_LIST;
  while (value_list_next(r->arena, &text, &sep, &item)) {
    uint32_t id;
    if (users ? !value_user(item, &id, NULL) : !value_group(item, &id))
      return config_error(r, "%s %.*s was not found", users ? "user" : "group", STRF(item));
    vec_push(r->arena, &ids, id);
  }
  *(struct option_ids *)place = (struct option_ids){ids.v, ids.n};
  return 0;
}

/* Adds to what is there, for options that may be given several times. */
static struct str joined(struct config_reader *r, const struct option_def *def, struct str old, struct str text, bool again) {
  if (!again || !(def->flags & OPTION_REPEATS) || !str_is_set(old))
    return text;
  const char *between = "\n";
  if (def->flags & OPTION_JOIN_COLON) /* two colons would be one as data */
    between = old.len && old.p[old.len - 1] == ':' ? " " : ":";
  return str_printf(r->arena, "%.*s%s%.*s", STRF(old), between, STRF(text));
}

/* What will be expanded to a time or a number, but needs no expansion. */
static int check_constant(struct config_reader *r, const struct option_def *def, struct str text) {
  int64_t n;
  if (def->flags & OPTION_AS_TIME && !str_is_empty(text) && value_time(text, &n) != VALUE_OK)
    return config_error(r, "invalid time value for %s", def->name);
  if (def->flags & OPTION_AS_INT && !str_is_empty(text)) {
    enum value_result rc = value_int_limited(text, true, &n);
    if (rc != VALUE_OK)
      return number_error(r, rc, "integer", def->name, text);
  }
  return 0;
}

static int set_text(struct config_reader *r, const struct option_def *def, void *block, struct str text, bool again) {
  void *place = place_of(def, block);
  bool wait = has_expansion(text);
  switch (def->type) {
  case OPTION_STRING:
    *(struct str *)place = joined(r, def, *(struct str *)place, text, again);
    wait = wait && def->flags & OPTION_EARLY;
    break;
  case OPTION_EXPR:
    if (!wait && check_constant(r, def, text) < 0)
      return OUTCOME_ERROR;
    put_expr(r, place, joined(r, def, ((struct option_expr *)place)->text, text, again));
    return 0;
  case OPTION_LIST:
    put_expr(r, place, joined(r, def, ((struct option_expr *)place)->text, text, again));
    return 0;
  case OPTION_EXPR_BOOL:
    put_expr(r, place, text);
    return 0;
  case OPTION_TIME_LIST:
    return set_time_list(r, place, def->name, text);
  case OPTION_USER:
  case OPTION_GROUP:
    return set_user(r, def, place, text);
  case OPTION_USER_LIST:
  case OPTION_GROUP_LIST:
    if (!wait)
      return set_id_list(r, def, place, text);
    break;
  default:
    return 0;
  }
  if (wait) {
    struct early_option e = {.def = def, .block = block, .text = text, .where = config_reader_where(r)};
    vec_push(r->arena, &r->early, e);
  }
  return 0;
}

/* --- defaults --- */

void config_defaults(struct config_reader *r, const struct option_def *defs, void *block) {
  for (const struct option_def *d = defs; d != NULL && d->name != NULL; d++) {
    void *place = place_of(d, block);
    struct str text = str_c(d->default_text);
    bool truth = false;
    if (d->flags & OPTION_ALIAS)
      continue;
    if (d->flags & OPTION_TRISTATE)
      *(int *)place = -1;
    if (d->type == OPTION_FIXED)
      *(int64_t *)place = -1;
    if (d->default_text == NULL)
      continue;
    switch (d->type) {
    case OPTION_BOOL:
      (void)value_bool(text, &truth);
      put_bool(d, place, truth);
      break;
    case OPTION_INT:
    case OPTION_SIZE:
    case OPTION_OCTAL:
    case OPTION_FIXED:
      (void)set_number(r, d, place, d->name, text);
      break;
    case OPTION_TIME:
      (void)set_time(r, d, place, d->name, text);
      break;
    case OPTION_CUSTOM:
      (void)d->parse(r, d, block, text);
      break;
    default:
      (void)set_text(r, d, block, text, false);
    }
  }
}

/* --- one setting --- */

static int string_value(struct config_reader *r, const char *name, struct str text, struct str *ret) {
  struct str rest;
  *ret = text;
  if (str_is_empty(text) || text.p[0] != '"')
    return 0;
  if (value_unquote(r->arena, text, ret, &rest) != VALUE_OK)
    return config_error(r, "missing quote at end of string value for %s", name);
  if (str_ltrim(rest).len > 0)
    return config_error(r, "extra characters follow string value for %s%s", name, comment_hint(rest));
  return 0;
}

int config_value(struct config_reader *r, struct str text, struct str *ret) {
  return string_value(r, "this item", str_trim(text), ret);
}

int config_named_value(struct config_reader *r, struct str name, struct str text, struct str *ret) {
  return string_value(r, str_dup_c(r->arena, name), text, ret);
}

static struct str leading_word(struct str text) {
  size_t n = 0;
  while (n < text.len && (ascii_is_alpha(text.p[n]) || (n > 0 && (ascii_is_digit(text.p[n]) || text.p[n] == '_'))))
    n++;
  return str_slice(text, 0, n);
}

/* x, no_x, x = yes. 1 when the value is to be expanded. */
static int bool_value(struct config_reader *r, const struct option_def *def, const struct option_line *l, bool negated, bool *ret,
    struct str *ret_text) {
  *ret = !negated;
  if (str_is_empty(l->rest))
    return 0;
  if (l->rest.p[0] != '=' || negated)
    return config_error(r, "extra characters follow boolean option %.*s%s", STRF(l->name), comment_hint(l->rest));
  *ret_text = str_trim(str_from(l->rest, 1));
  if (def->type == OPTION_EXPR_BOOL && str_find_byte(*ret_text, '$') >= 0)
    return 1;
  struct str word = leading_word(*ret_text), rest = str_ltrim(str_from(*ret_text, word.len));
  if (str_is_empty(*ret_text))
    return 0;
  if (value_bool(word, ret) != VALUE_OK)
    return config_error(r, "\"%.*s\" is not a valid value for the \"%s\" option", STRF(word), def->name);
  if (rest.len > 0)
    return config_error(r, "extra characters follow \"%.*s\" for boolean option %s%s", STRF(word), def->name, comment_hint(rest));
  return 0;
}

/* Known, but its behaviour is not there. */
static int not_supported(struct config_reader *r, const struct option_def *def) {
  if (!(def->flags & OPTION_OFFER))
    return config_error(r, "option \"%s\" is not supported yet", def->name);
  config_warning(r, "option \"%s\" is not supported yet: it has no effect", def->name);
  return 0;
}

static int set_bool(struct config_reader *r, const struct option_def *def, void *block, const struct option_line *l,
    bool negated) {
  bool value;
  struct str text = STR_EMPTY;
  int rc = bool_value(r, def, l, negated, &value, &text);
  if (rc < 0)
    return rc;
  if (rc == 0 && value && def->flags & OPTION_LATER && (def->default_text == NULL || strcmp(def->default_text, "true") != 0) &&
      not_supported(r, def) < 0)
    return OUTCOME_ERROR;
  if (def->type == OPTION_BOOL) {
    put_bool(def, place_of(def, block), value);
    return 0;
  }
  if (def->type == OPTION_CUSTOM)
    return def->parse(r, def, block, value ? STR("true") : STR("false"));
  if (rc > 0 && string_value(r, def->name, text, &text) < 0)
    return OUTCOME_ERROR;
  if (rc > 0 && def->flags & OPTION_LATER && not_supported(r, def) < 0)
    return OUTCOME_ERROR;
  return set_text(r, def, block, rc > 0 ? text : value ? STR("true") : STR("false"), false);
}

/* ":" and the like: a list without items. */
static bool is_empty_list(struct str text) {
  for (size_t i = 0; i < text.len; i++)
    if (text.p[i] != ':' && !ascii_is_space(text.p[i]))
      return false;
  return true;
}

/* A value that switches nothing on may be given for what is not supported yet. */
static bool is_off(const struct option_def *def, struct str text) {
  return str_is_empty(text) || (def->type == OPTION_LIST && is_empty_list(text)) || str_eq_c(text, "\"\"") ||
         (def->default_text == NULL ? str_eq_c(text, "0") || str_eq_c(text, "0s") : str_eq_c(text, def->default_text));
}

static int set_value(struct config_reader *r, const struct option_def *def, void *block, struct str text, bool again) {
  switch (def->type) {
  case OPTION_INT:
  case OPTION_OCTAL:
  case OPTION_SIZE:
  case OPTION_FIXED:
    return set_number(r, def, place_of(def, block), def->name, text);
  case OPTION_TIME:
    return set_time(r, def, place_of(def, block), def->name, text);
  case OPTION_CUSTOM:
    if (def->print == NULL) {
      struct config_written w = {.def = def, .block = block, .text = text};
      vec_push(r->arena, &r->config->written, w);
    }
    return def->parse(r, def, block, text);
  default:
    if (string_value(r, def->name, text, &text) < 0)
      return OUTCOME_ERROR;
    return set_text(r, def, block, text, again);
  }
}

/* An alias gives its warning, and its option. */
static const struct option_def *follow_alias(struct config_reader *r, const struct option_def *defs,
    const struct option_def *def) {
  if (!(def->flags & OPTION_ALIAS))
    return def;
  const struct option_def *target = config_option_find(defs, str_c(def->alias_of));
  if (!(def->flags & OPTION_HIDDEN))
    config_warning(r, "\"%s\" is a deprecated name for \"%s\"", def->name, def->alias_of);
  return target;
}

int config_option_set(struct config_reader *r, const struct option_def *defs, const struct option_def *def, void *block,
    uint8_t *seen, const struct option_line *l, bool negated) {
  const struct option_def *written = def;
  def = follow_alias(r, defs, def);
  if (def == NULL)
    return config_error(r, "option \"%s\" is not supported", written->name);
  if (l->hide)
    config_hide(r->config, def);
  bool again = seen[def - defs];
  if (again && !(def->flags & OPTION_REPEATS))
    return config_error(r, "\"%.*s\" option set for the second time", STRF(l->name));
  seen[def - defs] = 1;
  if (def->type == OPTION_BOOL || def->type == OPTION_EXPR_BOOL || def->flags & OPTION_BOOLEAN)
    return set_bool(r, def, block, l, negated);
  if (negated)
    return config_error(r, "negation prefix applied to a non-boolean option");
  if (str_is_empty(l->rest))
    return config_error(r, "unexpected end of line (data missing) after %.*s", STRF(l->name));
  if (l->rest.p[0] != '=')
    return config_error(r, "missing \"=\" after %.*s", STRF(l->name));
  struct str text = str_trim(str_from(l->rest, 1));
  if (def->flags & OPTION_LATER && !is_off(def, text) && not_supported(r, def) < 0)
    return OUTCOME_ERROR;
  return set_value(r, def, block, text, again);
}

/* --- what waits for the end --- */

int config_options_early(struct config_reader *r) {
  int rc = 0;
  for (size_t i = 0; i < r->early.n; i++) {
    const struct early_option *e = &r->early.v[i];
    struct str value, error = STR("expansion is not possible here");
    if (r->source->expand == NULL || r->source->expand(r->config, r->arena, e->text, &value, &error) != 0) {
      rc = config_error_at(r, e->where, "failed to expand %s: %.*s", e->def->name, STRF(error));
      continue;
    }
    if (e->def->type == OPTION_STRING)
      *(struct str *)place_of(e->def, e->block) = value;
    else if (set_id_list(r, e->def, place_of(e->def, e->block), value) < 0)
      rc = OUTCOME_ERROR;
  }
  return rc;
}

void config_options_unfinished(struct config_reader *r) {
  for (size_t i = 0; i < r->early.n; i++) {
    const struct early_option *e = &r->early.v[i];
    struct str value = STR_UNSET, error;
    if (e->def->type != OPTION_STRING)
      continue;
    if (r->source->expand == NULL || r->source->expand(r->config, r->arena, e->text, &value, &error) != 0)
      value = STR_UNSET;
    *(struct str *)place_of(e->def, e->block) = value;
  }
}
