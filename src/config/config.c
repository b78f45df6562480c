#include "config/config.h"

#include "core/module.h"

void *config_block(const struct config *c, const struct module *m) { return c->blocks[module_number(m)]; }

void *config_section_data(const struct config *c, const struct module *m) { return c->section_data[module_number(m)]; }

void config_set_section_data(struct config *c, const struct module *m, void *data) {
  c->section_data[module_number(m)] = data;
}

const struct driver_class_def *config_driver_class(enum driver_class class) {
  for (size_t i = 0; modules[i] != NULL; i++)
    if (modules[i]->driver_class != NULL && modules[i]->driver_class->class == class)
      return modules[i]->driver_class;
  return NULL;
}

const struct driver_def *config_driver_def(enum driver_class class, struct str name) {
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct driver_def *const *d = modules[i]->drivers; d != NULL && *d != NULL; d++)
      if ((*d)->class == class && str_eq_c(name, (*d)->name))
        return *d;
  return NULL;
}

struct named_list *config_list(const struct config *c, enum list_kind kind, struct str name) {
  return c->lists[kind] == NULL ? NULL : map_get(c->lists[kind], name);
}

struct instance *config_driver(const struct config *c, enum driver_class class, struct str name) {
  for (struct instance *i = c->drivers[class]; i != NULL; i = i->next)
    if (str_eq(i->name, name))
      return i;
  return NULL;
}

struct acl *config_acl(const struct config *c, struct str name) {
  return c->acls == NULL ? NULL : map_get(c->acls, name);
}

struct str config_where_text(const struct config *c, struct arena *a, struct config_where w) {
  if (w.file >= c->files.n)
    return STR("the built-in configuration");
  return str_printf(a, "line %u of %.*s", w.line, STRF(c->files.v[w.file]));
}

typedef void each_expr_fn(struct config *c, struct option_expr *e, enum option_type type, enum list_kind list, void *arg);

static void each_in_block(struct config *c, const struct option_def *defs, void *block, each_expr_fn *fn, void *arg) {
  if (block == NULL)
    return;
  for (const struct option_def *d = defs; d != NULL && d->name != NULL; d++) {
    if (d->flags & OPTION_ALIAS)
      continue;
    void *place = (char *)block + d->offset;
    switch (d->type) {
    case OPTION_EXPR:
    case OPTION_LIST:
    case OPTION_EXPR_BOOL: {
      struct option_expr *e = place;
      if (str_is_set(e->text))
        fn(c, e, d->type, d->list, arg);
      break;
    }
    case OPTION_USER:
    case OPTION_GROUP: {
      struct option_user *u = place;
      if (str_is_set(u->expr.text))
        fn(c, &u->expr, d->type, LIST_STRING, arg);
      break;
    }
    default:
      break;
    }
  }
}

static void each_in_instance(struct config *c, struct instance *i, each_expr_fn *fn, void *arg) {
  const struct driver_class_def *class = config_driver_class(i->driver->class);
  each_in_block(c, class->options, i->generic, fn, arg);
  each_in_block(c, i->driver->options, i->options, fn, arg);
  for (size_t m = 0; modules[m] != NULL; m++) {
    const struct module_driver_options *o = modules[m]->driver_options;
    for (; o != NULL && o->options != NULL; o++)
      if (o->class == (int)i->driver->class && (o->driver == NULL || strcmp(o->driver, i->driver->name) == 0))
        each_in_block(c, o->options, i->extra[m], fn, arg);
  }
}

void config_each_expr(struct config *c, each_expr_fn *fn, void *arg) {
  for (size_t m = 0; modules[m] != NULL; m++)
    each_in_block(c, modules[m]->main_options, c->blocks[m], fn, arg);
  for (int class = 0; class < DRIVER_CLASSES; class++)
    for (struct instance *i = c->drivers[class]; i != NULL; i = i->next)
      each_in_instance(c, i, fn, arg);
  for (int kind = 0; kind < 5; kind++) {
    size_t i = 0;
    void *value;
    while (c->lists[kind] != NULL && map_next(c->lists[kind], &i, NULL, &value)) {
      struct named_list *l = value;
      fn(c, &l->value, OPTION_LIST, l->kind, arg);
    }
  }
}
