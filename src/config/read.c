/* Reading a configuration: the main section, named lists, the other sections,
and the checks when all is there. */
#include <stdio.h>
#include "base/ascii.h"
#include "config/reader.h"
#include "core/module.h"

/* --- errors --- */

struct config *config_reader_config(struct config_reader *r) { return r->config; }
struct arena *config_reader_arena(struct config_reader *r) { return r->arena; }

struct config_where config_reader_where(struct config_reader *r) {
  if (r->at_end || (r->file == NULL && r->files_read == 0))
    return (struct config_where){UINT32_MAX, 0};
  return r->file != NULL ? (struct config_where){r->file->number, r->file->line}
                         : (struct config_where){r->end_file, r->end_line};
}

__attribute__((format(printf, 3, 0))) static int add_error(struct config_reader *r, struct str place, const char *fmt,
    va_list ap) {
  if (++r->n_errors <= CONFIG_ERRORS_MAX) {
    if (r->n_errors > 1)
      buf_add_byte(&r->errors, '\n');
    buf_printf(&r->errors, "Exim configuration error%.*s:\n  ", STRF(place));
    buf_vprintf(&r->errors, fmt, ap);
  }
  if (r->n_errors == CONFIG_ERRORS_MAX)
    r->stop = true;
  return OUTCOME_ERROR;
}

static struct str place_text(struct config_reader *r, struct config_where w) {
  if (w.file >= r->config->files.n)
    return STR_EMPTY;
  return str_printf(r->arena, " in %.*s", STRF(config_where_text(r->config, r->arena, w)));
}

int config_error(struct config_reader *r, const char *fmt, ...) {
  struct str place = r->item_kind == NULL
                         ? place_text(r, config_reader_where(r))
                         : str_printf(r->arena, " for %.*s %s", STRF(r->item_name), r->item_kind);
  va_list ap;
  va_start(ap, fmt);
  int rc = add_error(r, place, fmt, ap);
  va_end(ap);
  return rc;
}

int config_error_at(struct config_reader *r, struct config_where w, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  /* what the checks of an item find names the item in its text, as in Exim */
  int rc = add_error(r, r->item_kind == NULL ? place_text(r, w) : STR_EMPTY, fmt, ap);
  va_end(ap);
  return rc;
}

void config_warning(struct config_reader *r, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(r->arena, fmt, ap);
  va_end(ap);
  if (r->config->warnings.n >= CONFIG_ERRORS_MAX)
    return;
  struct str where = config_where_text(r->config, r->arena, config_reader_where(r));
  vec_push(r->arena, &r->config->warnings, str_printf(r->arena, "Warning: %.*s (%.*s)", STRF(text), STRF(where)));
}

/* --- the main section --- */

/* What stood before: for "set for the second time", one array a module. */
struct main_seen {
  uint8_t **by_module;
};

static bool begins(struct str line, const char *word, struct str *ret_rest) {
  size_t n = strlen(word);
  if (line.len <= n || !str_ieq_c(str_slice(line, 0, n), word) || !ascii_is_space(line.p[n]))
    return false;
  *ret_rest = str_ltrim(str_from(line, n));
  return true;
}

static const struct {
  const char *word, *name;
  enum list_kind kind;
  bool cache;
} list_words[] = {
  {"domainlist", "domain", LIST_DOMAIN}, {"hostlist", "host", LIST_HOST}, {"addresslist", "address", LIST_ADDRESS},
  {"localpartlist", "local part", LIST_LOCAL_PART}, {"domainlist_cache", "domain", LIST_DOMAIN, true},
  {"hostlist_cache", "host", LIST_HOST, true}, {"addresslist_cache", "address", LIST_ADDRESS, true},
  {"localpartlist_cache", "local part", LIST_LOCAL_PART, true},
};

static int read_list(struct config_reader *r, size_t word, struct str rest, bool hide) {
  enum list_kind kind = list_words[word].kind;
  size_t n = 0;
  while (n < rest.len && (ascii_is_alnum(rest.p[n]) || rest.p[n] == '_'))
    n++;
  struct str name = str_slice(rest, 0, n), value;
  rest = str_ltrim(str_from(rest, n));
  if (name.len == 0)
    return config_error(r, "unrecognized configuration line");
  if (name.len > CONFIG_NAME_MAX)
    return config_error(r, "exim item name too long (>%d), unable to use \"%.*s\" (truncated)", CONFIG_NAME_MAX,
        CONFIG_NAME_MAX - 1, name.p);
  if (rest.len == 0 || rest.p[0] != '=')
    return config_error(r, "missing '=' after \"%.*s\"", STRF(name));
  struct map **lists = &r->config->lists[kind];
  if (*lists == NULL)
    *lists = map_new(r->arena);
  if (map_has(*lists, name))
    return config_error(r, "duplicate name \"%.*s\" for a named %s list", STRF(name), list_words[word].name);
  if (config_named_value(r, name, str_trim(str_from(rest, 1)), &value) < 0)
    return OUTCOME_ERROR;
  struct named_list *l = arena_new_of(r->arena, struct named_list);
  l->name = name;
  l->kind = kind;
  l->value = (struct option_expr){.text = value, .where = config_reader_where(r)};
  l->hide = hide;
  l->cache = list_words[word].cache;
  l->number = (uint32_t)map_count(*lists);
  map_set(*lists, name, l);
  return 0;
}

static const char *nearest_main(struct str name) {
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct option_def *d = modules[m]->main_options;
    size_t n = 0;
    while (d != NULL && d[n].name != NULL)
      n++;
    const char *near = n == 0 ? NULL : config_nearest(name, &d->name, sizeof *d, n);
    if (near != NULL)
      return near;
  }
  return NULL;
}

static int main_option(struct config_reader *r, struct main_seen *seen, struct str line) {
  struct option_line l;
  bool negated;
  if (!config_option_line(line, &l))
    return config_error(r, "option setting expected: %.*s", STRF(line));
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct option_def *d = config_option_match(modules[m]->main_options, &l, &negated);
    if (d != NULL)
      return config_option_set(r, modules[m]->main_options, d, r->config->blocks[m], seen->by_module[m], &l, negated);
  }
  const char *near = nearest_main(l.name);
  if (near != NULL)
    return config_error(r, "main option \"%.*s\" unknown\n  (did you mean \"%s\"?)", STRF(l.name), near);
  return config_error(r, "main option \"%.*s\" unknown", STRF(l.name));
}

static int main_line(struct config_reader *r, struct main_seen *seen, struct str line) {
  struct str rest = line, after;
  bool hide = begins(line, "hide", &rest);
  if (ascii_is_upper(line.p[0]))
    return config_macro_line(r, line);
  for (size_t i = 0; i < sizeof list_words / sizeof *list_words; i++) {
    if (begins(rest, list_words[i].word, &after))
      return read_list(r, i, after, hide);
    if (str_eq_c(rest, list_words[i].word))
      return config_error(r, "unrecognized configuration line");
  }
  return main_option(r, seen, line);
}

/* --- sections --- */

static const struct config_section_def *find_section(struct str name) {
  for (size_t m = 0; modules[m] != NULL; m++)
    for (const struct config_section_def *s = modules[m]->sections; s != NULL && s->name != NULL; s++)
      if (str_ieq_c(name, s->name))
        return s;
  return NULL;
}

static void skip_section(struct config_reader *r) {
  struct str line, rest;
  while (config_next_line(r, &line))
    if (begins(line, "begin", &rest)) {
      config_hold_line(r);
      return;
    }
}

static int read_section_lines(struct config_reader *r, const struct config_section_def *s) {
  struct str line, rest;
  while (config_next_line(r, &line)) {
    if (begins(line, "begin", &rest)) {
      config_hold_line(r);
      break;
    }
    if (config_is_macro_line(line))
      (void)config_macro_line(r, line);
    else
      (void)s->line(r, line);
  }
  return s->end == NULL ? 0 : s->end(r);
}

/* Each section may be there once. */
static bool is_repeated(struct config_reader *r, struct str name) {
  for (size_t i = 0; i < r->sections.n; i++)
    if (str_ieq(r->sections.v[i], name))
      return true;
  vec_push(r->arena, &r->sections, str_dup(r->arena, name));
  return false;
}

static void read_section(struct config_reader *r, struct str name) {
  static const char *const driver_sections[DRIVER_CLASSES] = {"routers", "transports", "authenticators"};
  if (is_repeated(r, name)) {
    (void)config_error(r, "\"%.*s\" section is repeated in the configuration file", STRF(name));
    skip_section(r);
    return;
  }
  for (int class = 0; class < DRIVER_CLASSES; class++) {
    if (!str_ieq_c(name, driver_sections[class]))
      continue;
    if (config_driver_class(class) == NULL) {
      (void)config_error(r, "%s are not supported yet", driver_sections[class]);
      skip_section(r);
    } else {
      (void)config_read_drivers(r, class);
    }
    return;
  }
  const struct config_section_def *s = find_section(name);
  if (s != NULL) {
    (void)read_section_lines(r, s);
    return;
  }
  if (str_ieq_c(name, "local_scan"))
    (void)config_error(r, "local_scan() options not supported: (LOCAL_SCAN_HAS_OPTIONS not defined in Local/Makefile)");
  else
    (void)config_error(r, "\"%.*s\" is not a known configuration section name", STRF(name));
  skip_section(r);
}

/* --- all of it --- */

static void make_blocks(struct config_reader *r, struct main_seen *seen) {
  size_t n = module_count();
  r->config->blocks = arena_array(r->arena, void *, n);
  r->config->section_data = arena_array(r->arena, void *, n);
  seen->by_module = arena_array(r->arena, uint8_t *, n);
  for (size_t m = 0; m < n; m++) {
    size_t options = 0;
    while (modules[m]->main_options != NULL && modules[m]->main_options[options].name != NULL)
      options++;
    seen->by_module[m] = arena_array(r->arena, uint8_t, options + 1);
    if (modules[m]->main_size == 0)
      continue;
    r->config->blocks[m] = arena_alloc(r->arena, modules[m]->main_size);
    config_defaults(r, modules[m]->main_options, r->config->blocks[m]);
    if (modules[m]->main_defaults != NULL)
      modules[m]->main_defaults(r->config->blocks[m], r->arena);
  }
}

static void read_all(struct config_reader *r, struct main_seen *seen) {
  struct str line, name;
  bool in_main = true;
  while (config_next_line(r, &line)) {
    if (begins(line, "begin", &name)) {
      in_main = false;
      read_section(r, name);
    } else if (in_main) {
      (void)main_line(r, seen, line);
    }
  }
}

static void check_all(struct config_reader *r) {
  r->at_end = true;
  (void)config_options_early(r);
  for (size_t m = 0; modules[m] != NULL; m++)
    if (modules[m]->main_check != NULL)
      (void)modules[m]->main_check(r, r->config->blocks[m]);
  (void)config_link_drivers(r);
}

int config_read(const struct config_source *source, struct arena *arena, struct config **ret, struct str *ret_errors) {
  struct config_reader r = {.arena = arena, .source = source};
  struct main_seen seen;
  r.config = arena_new_of(arena, struct config);
  r.config->arena = arena;
  buf_init(&r.errors, arena, 64u << 10);
  make_blocks(&r, &seen);
  config_macros_builtin(&r);
  config_macros_command_line(&r);
  if (config_open(&r) == 0)
    read_all(&r, &seen);
  if (r.n_errors == 0)
    check_all(&r);
  *ret = r.config;
  if (r.n_errors > 0) {
    config_options_unfinished(&r);
    if (r.n_errors > CONFIG_ERRORS_MAX)
      buf_add(&r.errors, STR("\n(more errors follow)"));
    *ret_errors = buf_str(&r.errors);
    return OUTCOME_ERROR;
  }
  return 0;
}

void config_free(struct config *c) {
  if (c != NULL)
    arena_free(c->arena);
}
