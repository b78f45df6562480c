#include "config/print.h"

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include "base/ascii.h"
#include "config/reader.h"
#include "core/build.h"
#include "core/module.h"
#include "log/log.h"

extern char **environ;

/* --- one value --- */

static struct str ids_text(struct arena *a, const struct option_ids *ids, bool users) {
  struct buf b;
  buf_init(&b, a, 64u << 10);
  for (size_t i = 0; i < ids->n; i++) {
    const struct passwd *pw = users ? getpwuid(ids->v[i]) : NULL;
    const struct group *gr = users ? NULL : getgrgid(ids->v[i]);
    const char *name = pw != NULL ? pw->pw_name : gr != NULL ? gr->gr_name : NULL;
    if (i > 0)
      buf_add_byte(&b, ':');
    if (name != NULL)
      buf_add_c(&b, name);
    else
      buf_printf(&b, "%u", ids->v[i]);
  }
  return buf_str(&b);
}

static struct str user_text(struct arena *a, const struct option_user *u, bool user) {
  if (str_is_set(u->expr.text))
    return u->expr.text;
  if (!u->set)
    return u->text;
  return ids_text(a, &(struct option_ids){.v = (uint32_t *)(uintptr_t)&u->id, .n = 1}, user);
}

static struct str times_text(struct arena *a, const struct option_times *t) {
  struct buf b;
  buf_init(&b, a, 64u << 10);
  for (size_t i = 0; i < t->n; i++) {
    if (i > 0)
      buf_add_byte(&b, ':');
    buf_add(&b, value_time_text(a, t->v[i]));
  }
  return buf_str(&b);
}

static struct str custom_text(const struct config *c, struct arena *a, const struct option_def *d, const void *block) {
  if (d->print != NULL)
    return d->print(a, d, block);
  for (size_t i = c->written.n; i-- > 0;)
    if (c->written.v[i].def == d && c->written.v[i].block == block)
      return c->written.v[i].text;
  return str_c(d->default_text);
}

/* The value's text; *ret_bool is -1, or the truth of an option printed as `name` or `no_name`. */
static struct str value_text(const struct config *c, struct arena *a, const struct option_def *d, const void *block,
    int *ret_bool) {
  const void *place = (const char *)block + d->offset;
  const int64_t *number = place;
  bool truth;
  *ret_bool = -1;
  switch (d->type) {
  case OPTION_STRING: return *(const struct str *)place;
  case OPTION_EXPR:
  case OPTION_LIST: return ((const struct option_expr *)place)->text;
  case OPTION_BOOL:
    *ret_bool = d->flags & OPTION_TRISTATE ? *(const int *)place > 0 : *(const bool *)place;
    return STR_EMPTY;
  case OPTION_EXPR_BOOL: {
    struct str text = ((const struct option_expr *)place)->text;
    if (str_is_empty(text))
      *ret_bool = 0;
    else if (value_bool(text, &truth) == VALUE_OK)
      *ret_bool = truth;
    return text;
  }
  case OPTION_INT: return str_printf(a, "%" PRId64, *number);
  case OPTION_OCTAL: return str_printf(a, "%s%" PRIo64, *number == 0 ? "" : "0", (uint64_t)*number);
  case OPTION_SIZE: return value_size_text(a, *number);
  case OPTION_FIXED: return value_fixed_text(a, *number);
  case OPTION_TIME: return value_time_text(a, *number);
  case OPTION_TIME_LIST: return times_text(a, place);
  case OPTION_USER:
  case OPTION_GROUP: return user_text(a, place, d->type == OPTION_USER);
  case OPTION_USER_LIST:
  case OPTION_GROUP_LIST: return ids_text(a, place, d->type == OPTION_USER_LIST);
  case OPTION_CUSTOM: return custom_text(c, a, d, block);
  }
  return STR_EMPTY;
}

static struct str without_tabs(struct arena *a, struct str value) {
  struct buf b;
  if (str_find_byte(value, '\t') < 0)
    return value;
  buf_init(&b, a, (size_t)value.len * 2);
  for (size_t i = 0; i < value.len; i++)
    if (value.p[i] == '\t')
      buf_add(&b, STR("\\t"));
    else
      buf_add_byte(&b, value.p[i]);
  return buf_str(&b);
}

static void print_value(const struct config_print *p, struct arena *a, const char *name, struct str value) {
  if (!p->no_names)
    fprintf(p->out, "%s = ", name);
  value = without_tabs(a, log_printable(a, value));
  fprintf(p->out, "%.*s\n", STRF(value));
}

static void print_option(const struct config_print *p, const struct config *c, const struct option_def *d,
    const void *block) {
  struct arena *a = arena_new("print");
  int truth;
  struct str text = value_text(c, a, d, block, &truth);
  if (!p->admin && config_is_hidden(c, d))
    print_value(p, a, d->name, STR("<value not displayable>"));
  else if (truth >= 0)
    fprintf(p->out, "%s%s\n", truth ? "" : "no_", d->name);
  else if (!text.len && !p->no_names && (d->type == OPTION_USER_LIST || d->type == OPTION_GROUP_LIST))
    fprintf(p->out, "%s =\n", d->name);
  else
    print_value(p, a, d->name, text);
  arena_free(a);
}

/* --- groups of options, in order of their names --- */

struct entry {
  const struct option_def *def; /* NULL: the driver's name */
  const void *block;
};

struct entries {
  struct entry v[1000];
  size_t n;
};

/* Hidden options, which few know, are told of when they are set. */
static bool is_told(const struct option_def *d, const void *block) {
  const char *place = (const char *)block + d->offset;
  if (d->flags & OPTION_ALIAS)
    return false;
  if (!(d->flags & OPTION_HIDDEN))
    return true;
  return d->type == OPTION_BOOL ? *(const bool *)place :
         d->type == OPTION_EXPR && str_is_set(((const struct option_expr *)place)->text);
}

static void add_entries(struct entries *e, const struct option_def *defs, const void *block) {
  for (const struct option_def *d = defs; d != NULL && d->name != NULL; d++)
    if (is_told(d, block) && e->n < sizeof e->v / sizeof *e->v)
      e->v[e->n++] = (struct entry){d, block};
}

static const char *entry_name(const struct entry *e) { return e->def == NULL ? "driver" : e->def->name; }

static int compare_entries(const void *a, const void *b) { return strcmp(entry_name(a), entry_name(b)); }

static void print_entries(const struct config_print *p, const struct config *c, struct entries *e, const char *driver) {
  qsort(e->v, e->n, sizeof *e->v, compare_entries);
  for (size_t i = 0; i < e->n; i++) {
    if (e->v[i].def != NULL)
      print_option(p, c, e->v[i].def, e->v[i].block);
    else
      fprintf(p->out, "%s%s\n", p->no_names ? "" : "driver = ", driver != NULL ? driver : "");
  }
}

static void print_main(const struct config_print *p, const struct config *c) {
  struct entries *e = xcalloc(1, sizeof *e);
  for (size_t m = 0; modules[m] != NULL; m++)
    add_entries(e, modules[m]->main_options, c->blocks[m]);
  print_entries(p, c, e, "");
  free(e);
}

static bool print_main_option(const struct config_print *p, const struct config *c, struct str name) {
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct option_def *d = config_option_find(modules[m]->main_options, name);
    if (d == NULL)
      continue;
    print_option(p, c, d, c->blocks[m]);
    return true;
  }
  return false;
}

/* --- drivers --- */

static void print_instance(const struct config_print *p, const struct config *c, const struct instance *i) {
  struct entries *generic = xcalloc(2, sizeof *generic), *own = generic + 1;
  enum driver_class class = i->driver->class;
  generic->v[generic->n++] = (struct entry){NULL, NULL};
  add_entries(generic, config_driver_class(class)->options, i->generic);
  add_entries(own, i->driver->options, i->options);
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct module_driver_options *d = modules[m]->driver_options;
    for (; d != NULL && d->options != NULL && i->extra[m] != NULL; d++) {
      if (d->class != (int)class || (d->driver != NULL && strcmp(d->driver, i->driver->name) != 0))
        continue;
      add_entries(d->driver == NULL ? generic : own, d->options, i->extra[m]);
      break;
    }
  }
  print_entries(p, c, generic, i->driver->name);
  print_entries(p, c, own, NULL);
  free(generic);
}

static void print_all_instances(const struct config_print *p, const struct config *c, int class) {
  for (const struct instance *i = c->drivers[class]; i != NULL; i = i->next) {
    fprintf(p->out, "\n%.*s %s:\n", STRF(i->name), config_class_names[class]);
    print_instance(p, c, i);
  }
}

/* "router NAME", "routers", "router_list". The number of arguments used; 0: it is something else. */
static int print_drivers(const struct config_print *p, const struct config *c, const struct str *args, size_t n,
    bool *ret_found) {
  for (int class = 0; class < DRIVER_CLASSES; class++) {
    struct str kind = str_c(config_class_names[class]);
    if (!str_starts(args[0], kind))
      continue;
    struct str rest = str_from(args[0], kind.len);
    if (str_eq_c(rest, "s")) {
      print_all_instances(p, c, class);
      return 1;
    }
    if (str_eq_c(rest, "_list")) {
      for (const struct instance *i = c->drivers[class]; i != NULL; i = i->next)
        fprintf(p->out, "%.*s\n", STRF(i->name));
      return 1;
    }
    if (rest.len > 0 || n < 2)
      return 0;
    const struct instance *i = config_driver(c, class, args[1]);
    if (i == NULL) {
      fprintf(p->out, "%s %.*s not found\n", kind.p, STRF(args[1]));
      *ret_found = false;
    } else {
      print_instance(p, c, i);
    }
    return 2;
  }
  return 0;
}

/* --- macros, lists, the environment, the text --- */

static void print_macro(const struct config_print *p, const struct config_macro *m, bool value) {
  if (value && p->no_names)
    fprintf(p->out, "%.*s\n", STRF(m->value));
  else if (value)
    fprintf(p->out, "%.*s=%.*s\n", STRF(m->name), STRF(m->value));
  else
    fprintf(p->out, "%.*s\n", STRF(m->name));
}

/* The number of arguments used; 0: it is something else; -1: not for this user. */
static int print_macros(const struct config_print *p, const struct config *c, const struct str *args, size_t n,
    bool *ret_found) {
  bool one = str_eq_c(args[0], "macro") && n > 1, list = str_eq_c(args[0], "macro_list");
  if (!one && !list && !str_eq_c(args[0], "macros"))
    return 0;
  if (!p->admin)
    return -1;
  for (size_t i = 0; i < c->macros.n; i++) {
    if (one && !str_eq(c->macros.v[i].name, args[1]))
      continue;
    print_macro(p, &c->macros.v[i], !list);
    if (one)
      return 2;
  }
  if (one) {
    fprintf(p->out, "macro %.*s not found\n", STRF(args[1]));
    *ret_found = false;
  }
  return one ? 2 : 1;
}

/* Was there one? */
static bool print_list(const struct config_print *p, const struct config *c, struct str name) {
  static const char *const words[] = {
    [LIST_DOMAIN] = "domainlist", [LIST_HOST] = "hostlist", [LIST_ADDRESS] = "addresslist",
    [LIST_LOCAL_PART] = "localpartlist",
  };
  static const enum list_kind order[] = {LIST_ADDRESS, LIST_DOMAIN, LIST_HOST, LIST_LOCAL_PART};
  bool found = false;
  for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
    const struct named_list *l = config_list(c, order[i], name);
    if (l == NULL)
      continue;
    found = true;
    if (!p->no_names)
      fprintf(p->out, "%s %.*s = ", words[l->kind], STRF(name));
    if (l->hide && !p->admin)
      fputs("<value not displayable>\n", p->out);
    else
      fprintf(p->out, "%.*s\n", STRF(l->value.text));
  }
  if (!found)
    fprintf(p->out, "no address, domain, host, or local part list called \"%.*s\" exists\n", STRF(name));
  return found;
}

static int compare_strings(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void print_environment(const struct config_print *p) {
  size_t n = 0;
  while (environ != NULL && environ[n] != NULL)
    n++;
  char **sorted = xcalloc(n + 1, sizeof *sorted);
  for (size_t i = 0; i < n; i++)
    sorted[i] = environ[i];
  qsort(sorted, n, sizeof *sorted, compare_strings);
  for (size_t i = 0; i < n; i++)
    fprintf(p->out, "%.*s\n", p->no_names ? (int)strcspn(sorted[i], "=") : (int)strlen(sorted[i]), sorted[i]);
  free(sorted);
}

/* A line of the form `name:` opens an item. */
static bool is_item_line(struct str line) {
  size_t n = 0;
  while (n < line.len && (ascii_is_alnum(line.p[n]) || line.p[n] == '_'))
    n++;
  return n > 0 && n + 1 == line.len && line.p[n] == ':';
}

/* As it was read: files included, macros replaced, comments gone; with our own indentation. */
static void print_text(const struct config_print *p, const struct config *c) {
  int indent = 0;
  bool items = false;
  fprintf(p->out, "# Exim Configuration (%s)\n", build.version);
  for (size_t i = 0; i < c->text.n; i++) {
    struct str line = c->text.v[i];
    bool begin = str_istarts(line, STR("begin ")) || str_istarts(line, STR("begin\t"));
    if (line.p[0] == '#') {
      fprintf(p->out, "%.*s\n", STRF(line));
      continue;
    }
    if (begin) {
      struct str section = str_trim(str_from(line, 5));
      items = !str_ieq_c(section, "retry") && !str_ieq_c(section, "rewrite");
      indent = 2;
      fprintf(p->out, "\nbegin %.*s\n", STRF(section));
    } else if (indent > 0 && items && is_item_line(line)) {
      fprintf(p->out, "\n  %.*s\n", STRF(line));
    } else {
      fprintf(p->out, "%*s%.*s\n", indent == 0 ? 0 : items ? 4 : 2, "", STRF(line));
    }
  }
}

/* --- all forms --- */

static struct str config_file_name(const struct config *c) { return c->files.n > 0 ? c->files.v[0] : STR_EMPTY; }

/* The number of arguments used; -1: refused. */
static int print_one(const struct config_print *p, const struct config *c, const struct str *args, size_t n,
    bool *ret_found) {
  struct str name = args[0];
  *ret_found = true;
  int used = print_drivers(p, c, args, n, ret_found);
  if (used == 0)
    used = print_macros(p, c, args, n, ret_found);
  if (used != 0)
    return used;
  if (name.len && name.p[0] == '+') {
    *ret_found = print_list(p, c, str_from(name, 1));
  } else if (str_eq_c(name, "all")) {
    print_main(p, c);
  } else if (str_eq_c(name, "config")) {
    if (p->admin)
      print_text(p, c);
  } else if (str_eq_c(name, "config_file") || str_eq_c(name, "configure_file")) {
    fprintf(p->out, "%.*s\n", STRF(config_file_name(c)));
  } else if (str_eq_c(name, "environment")) {
    print_environment(p);
  } else if (str_eq_c(name, "local_scan")) {
    fputs("local_scan() options are not supported\n", p->out);
    *ret_found = false;
  } else if (!print_main_option(p, c, name)) {
    fprintf(p->out, "%.*s is not a known option\n", STRF(name));
    *ret_found = false;
  }
  return 1;
}

int config_print(const struct config_print *p, const struct config *c, const struct str *args, size_t n) {
  bool found = true;
  if (n == 0)
    print_main(p, c);
  for (size_t i = 0; i < n;) {
    int used = print_one(p, c, args + i, n - i, &found);
    if (used < 0) {
      fflush(p->out);
      fputs("exim: permission denied\n", stderr);
      return EXIT_FAILURE;
    }
    i += (size_t)used;
  }
  return found ? EXIT_SUCCESS : EXIT_FAILURE; /* as in Exim, the last name decides */
}
