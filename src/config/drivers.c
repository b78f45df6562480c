/* The sections of drivers: routers, transports, authenticators (Exim manual,
section "Format of driver configurations"). */
#include "base/ascii.h"
#include "config/reader.h"
#include "core/module.h"

const char *const config_class_names[DRIVER_CLASSES] = {"router", "transport", "authenticator"};

/* The instance whose options are being read, and which were seen. */
struct open_instance {
  struct instance *i;
  uint8_t *seen_generic, *seen_private;
  uint8_t **seen_extra; /* by module number */
  uint32_t errors;      /* of the reader before it: after one of its own, checks and further complaints are left out */
  bool bad_driver;      /* its `driver` names none: private options cannot be known */
};

static size_t table_size(const struct option_def *defs) {
  size_t n = 0;
  while (defs != NULL && defs[n].name != NULL)
    n++;
  return n;
}

static void *new_block(struct config_reader *r, const struct option_def *defs, size_t size, uint8_t **ret_seen) {
  void *block = arena_alloc(r->arena, size > 0 ? size : 1);
  *ret_seen = arena_array(r->arena, uint8_t, table_size(defs) + 1);
  config_defaults(r, defs, block);
  return block;
}

/* Exim tells no line of these errors. */
static const struct config_where nowhere = {UINT32_MAX, 0};

static bool is_begin(struct str line) {
  return line.len > 5 && str_ieq_c(str_slice(line, 0, 5), "begin") && ascii_is_space(line.p[5]);
}

/* "name:" */
static bool is_instance_line(struct str line, struct str *ret_name, struct str *ret_rest) {
  size_t n = 0;
  while (n < line.len && (ascii_is_alnum(line.p[n]) || line.p[n] == '_'))
    n++;
  *ret_name = str_slice(line, 0, n);
  *ret_rest = str_ltrim(str_from(line, n));
  return n > 0 && ascii_is_alpha(line.p[0]) && ret_rest->len > 0 && ret_rest->p[0] == ':';
}

static int open_instance(struct config_reader *r, enum driver_class class, struct str name, struct open_instance *o) {
  const char *kind = config_class_names[class];
  if (name.len > CONFIG_NAME_MAX)
    return config_error(r, "exim item name too long (>%d), unable to use \"%.*s\" (truncated)", CONFIG_NAME_MAX,
        CONFIG_NAME_MAX - 1, name.p);
  if (config_driver(r->config, class, name) != NULL)
    return config_error_at(r, nowhere, "there are two %ss called \"%.*s\"", kind, STRF(name));
  const struct driver_class_def *def = config_driver_class(class);
  struct instance *i = arena_new_of(r->arena, struct instance);
  i->name = name;
  i->where = config_reader_where(r);
  i->generic = new_block(r, def->options, def->options_size, &o->seen_generic);
  i->extra = arena_array(r->arena, void *, module_count());
  o->seen_extra = arena_array(r->arena, uint8_t *, module_count());
  struct instance **end = &r->config->drivers[class];
  for (; *end != NULL; end = &(*end)->next)
    i->number++;
  *end = i;
  o->i = i;
  o->errors = r->n_errors;
  o->bad_driver = false;
  return 0;
}

/* Options that other modules add: to all of the class, or to this driver. */
static void add_extra_blocks(struct config_reader *r, enum driver_class class, struct open_instance *o) {
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct module_driver_options *d = modules[m]->driver_options;
    for (; d != NULL && d->options != NULL; d++) {
      if (d->class != (int)class || (d->driver != NULL && strcmp(d->driver, o->i->driver->name) != 0))
        continue;
      o->i->extra[m] = new_block(r, d->options, d->size, &o->seen_extra[m]);
      break; /* one block a module and instance: its first matching entry */
    }
  }
}

static const char *nearest_driver(enum driver_class class, struct str name) {
  const char *names[200];
  size_t n = 0;
  for (size_t m = 0; modules[m] != NULL; m++)
    for (const struct driver_def *const *d = modules[m]->drivers; d != NULL && *d != NULL && n < 200; d++)
      if ((*d)->class == class)
        names[n++] = (*d)->name;
  return config_nearest(name, names, sizeof *names, n);
}

static int set_driver(struct config_reader *r, enum driver_class class, struct open_instance *o,
    const struct option_line *l) {
  const char *kind = config_class_names[class];
  if (o->i->driver != NULL)
    return config_error(r, "\"driver\" option set for the second time");
  if (l->rest.len == 0)
    return config_error(r, "unexpected end of line (data missing) after driver");
  if (l->rest.p[0] != '=')
    return config_error(r, "missing \"=\" after driver");
  struct str name;
  if (config_value(r, str_from(l->rest, 1), &name) < 0)
    return OUTCOME_ERROR;
  const struct driver_def *def = config_driver_def(class, name);
  if (def == NULL) {
    o->bad_driver = true;
    const char *near = nearest_driver(class, name);
    if (near != NULL)
      return config_error(r, "%s %.*s: cannot find %s driver \"%.*s\"\n  (did you mean \"%s\"?)", kind, STRF(o->i->name),
          kind, STRF(name), near);
    return config_error(r, "%s %.*s: cannot find %s driver \"%.*s\"", kind, STRF(o->i->name), kind, STRF(name));
  }
  o->i->driver = def;
  o->i->options = new_block(r, def->options, def->options_size, &o->seen_private);
  add_extra_blocks(r, class, o);
  return 0;
}

static int unknown_option(struct config_reader *r, enum driver_class class, struct open_instance *o, struct str name) {
  if (o->bad_driver)
    return OUTCOME_ERROR;
  if (o->i->driver == NULL)
    return config_error(r, "option \"%.*s\" unknown (\"driver\" must be specified before any private options)", STRF(name));
  const struct option_def *generic = config_driver_class(class)->options, *own = o->i->driver->options;
  const char *near = config_nearest(name, &own->name, sizeof *own, table_size(own));
  if (near == NULL)
    near = config_nearest(name, &generic->name, sizeof *generic, table_size(generic));
  if (near != NULL)
    return config_error(r, "option \"%.*s\" unknown\n  (did you mean \"%s\"?)", STRF(name), near);
  return config_error(r, "option \"%.*s\" unknown", STRF(name));
}

static int set_option(struct config_reader *r, enum driver_class class, struct open_instance *o, struct str line) {
  struct option_line l;
  bool negated;
  if (!config_option_line(line, &l))
    return config_error(r, "option setting expected: %.*s", STRF(line));
  if (str_eq_c(l.name, "driver"))
    return set_driver(r, class, o, &l);
  const struct option_def *defs = config_driver_class(class)->options, *d = config_option_match(defs, &l, &negated);
  if (d != NULL)
    return config_option_set(r, defs, d, o->i->generic, o->seen_generic, &l, negated);
  if (o->i->driver != NULL) {
    defs = o->i->driver->options;
    d = config_option_match(defs, &l, &negated);
    if (d != NULL)
      return config_option_set(r, defs, d, o->i->options, o->seen_private, &l, negated);
  }
  for (size_t m = 0; modules[m] != NULL && o->i->driver != NULL; m++) {
    const struct module_driver_options *x = modules[m]->driver_options;
    for (; x != NULL && x->options != NULL && o->i->extra[m] != NULL; x++) {
      if (x->class != (int)class || (x->driver != NULL && strcmp(x->driver, o->i->driver->name) != 0))
        continue;
      d = config_option_match(x->options, &l, &negated);
      if (d != NULL)
        return config_option_set(r, x->options, d, o->i->extra[m], o->seen_extra[m], &l, negated);
      break;
    }
  }
  return unknown_option(r, class, o, l.name);
}

static void close_instance(struct config_reader *r, enum driver_class class, struct open_instance *o) {
  struct instance *i = o->i;
  o->i = NULL;
  if (i == NULL || r->n_errors > o->errors)
    return;
  if (i->driver == NULL) {
    (void)config_error_at(r, nowhere, "no driver defined for %s \"%.*s\"", config_class_names[class], STRF(i->name));
    return;
  }
  const struct driver_class_def *def = config_driver_class(class);
  r->item_kind = config_class_names[class];
  r->item_name = i->name;
  if (def->init == NULL || def->init(r, i) == 0)
    if (i->driver->init != NULL)
      (void)i->driver->init(r, i);
  r->item_kind = NULL;
}

int config_read_drivers(struct config_reader *r, enum driver_class class) {
  struct open_instance o = {0};
  struct str line, name, rest;
  bool lost = false; /* after a bad name: its options would only add errors */
  while (config_next_line(r, &line)) {
    if (is_begin(line)) {
      config_hold_line(r);
      break;
    }
    if (is_instance_line(line, &name, &rest)) {
      close_instance(r, class, &o);
      lost = open_instance(r, class, name, &o) < 0;
      rest = str_ltrim(str_from(rest, 1));
      if (!lost && rest.len > 0)
        (void)config_error(r, "extra characters follow driver name %.*s", STRF(name));
    } else if (config_is_macro_line(line)) {
      (void)config_macro_line(r, line);
    } else if (o.i != NULL) {
      (void)set_option(r, class, &o, line);
    } else if (!lost) {
      (void)config_error(r, "%s name missing", config_class_names[class]);
      lost = true;
    }
  }
  close_instance(r, class, &o);
  return 0;
}

int config_link_drivers(struct config_reader *r) {
  int rc = 0;
  for (int class = 0; class < DRIVER_CLASSES; class++) {
    const struct driver_class_def *def = config_driver_class(class);
    for (struct instance *i = r->config->drivers[class]; i != NULL; i = i->next) {
      if (i->driver == NULL || def->link == NULL)
        continue;
      r->item_kind = config_class_names[class];
      r->item_name = i->name;
      if (def->link(r, i) < 0)
        rc = OUTCOME_ERROR;
      r->item_kind = NULL;
    }
  }
  return rc;
}
