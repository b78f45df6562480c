#include <stdio.h>
#include <stdlib.h>
#include "acl/acl.h"
#include "base/ascii.h"
#include "config/config.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/select.h"
#include "lookup/lookup.h"

#define OPTIONS_MAX 1000 /* of one table */

struct maker {
  void (*add)(void *arg, const char *name, const char *value);
  void *arg;
};

/* prefix + middle + "_" + name, in upper case, with value "y". */
static void make(const struct maker *m, const char *prefix, const char *middle, const char *name) {
  char text[200];
  int n = snprintf(text, sizeof text, "%s%s%s%s", prefix, middle, *middle != 0 ? "_" : "", name);
  if (n < 0 || (size_t)n >= sizeof text)
    return;
  for (char *p = text; *p != 0; p++)
    *p = *p == '-' ? '_' : ascii_upper(*p);
  m->add(m->arg, text, "y");
}

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)b, *(const char *const *)a); }

/* The last first: the order in which -bP shows them everywhere. `extra`: one that no table has, or NULL. */
static void make_options(const struct maker *m, const char *prefix, const char *driver, const struct option_def *o, const char *extra) {
  const char *names[OPTIONS_MAX];
  size_t n = 0;
  if (extra)
    names[n++] = extra;
  for (; o != NULL && o->name != NULL && n < OPTIONS_MAX; o++)
    if (!(o->flags & OPTION_LATER))
      names[n++] = o->name;
  qsort(names, n, sizeof *names, compare_names);
  for (size_t i = 0; i < n; i++)
    make(m, prefix, driver, names[i]);
}

static const char *const class_prefix[DRIVER_CLASSES] = {"_OPT_ROUTER_", "_OPT_TRANSPORT_", "_OPT_AUTHENTICATOR_"};
static const char *const classes_prefix[DRIVER_CLASSES] = {"_OPT_ROUTERS_", "_OPT_TRANSPORTS_", "_OPT_AUTHENTICATORS_"};
static const char *const driver_prefix[DRIVER_CLASSES] = {"_DRIVER_ROUTER_", "_DRIVER_TRANSPORT_", "_DRIVER_AUTHENTICATOR_"};

static void make_drivers(const struct maker *m, const struct module *mod) {
  for (const struct driver_def *const *d = mod->drivers; d != NULL && *d != NULL; d++) {
    if ((*d)->later)
      continue;
    make_options(m, class_prefix[(*d)->class], (*d)->name, (*d)->options, NULL);
    make(m, driver_prefix[(*d)->class], "", (*d)->name);
  }
  for (const struct module_driver_options *o = mod->driver_options; o != NULL && o->options != NULL; o++) {
    bool generic = o->driver == NULL;
    make_options(m, generic ? classes_prefix[o->class] : class_prefix[o->class], generic ? "" : o->driver, o->options, NULL);
  }
  if (mod->driver_class != NULL)
    make_options(m, classes_prefix[mod->driver_class->class], "", mod->driver_class->options, "driver");
}

/* Names of one kind of all modules. */
struct names {
  const char *v[OPTIONS_MAX];
  size_t n;
};

static void note(struct names *all, const char *name) {
  if (all->n < OPTIONS_MAX)
    all->v[all->n++] = name;
}

static void make_names(const struct maker *m, const char *prefix, struct names *all) {
  qsort(all->v, all->n, sizeof *all->v, compare_names);
  for (size_t i = 0; i < all->n; i++)
    make(m, prefix, "", all->v[i]);
  all->n = 0;
}

/* All of one table of each module. */
#define MAKE_ALL(m, type, table, prefix, wanted)                                                                       \
  do {                                                                                                                 \
    struct names all = {.n = 0};                                                                                       \
    for (size_t i = 0; modules[i] != NULL; i++)                                                                        \
      for (const type *d = modules[i]->table; d != NULL && d->name != NULL; d++)                                       \
        if (wanted)                                                                                                    \
          note(&all, d->name);                                                                                         \
    make_names(m, prefix, &all);                                                                                       \
  } while (0)

static void make_log_selectors(const struct maker *m) {
  struct names all = {.n = 0};
  for (const struct select_name *s = log_selector_names(); s->name != NULL; s++)
    note(&all, s->name);
  make_names(m, "_LOG_", &all);
}

static void make_lookups(const struct maker *m) {
  struct names all = {.n = 0};
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct lookup_def *const *d = modules[i]->lookups; d != NULL && *d != NULL; d++)
      if (!((*d)->flags & LOOKUP_LATER))
        note(&all, (*d)->name);
  make_names(m, "_HAVE_LOOKUP_", &all);
}

/* Those that say that there is something ("_HAVE_X"), or the others. */
static void make_own(const struct maker *m, const struct module *mod, bool have) {
  for (const char *const *name = mod->macros; name != NULL && *name != NULL; name++) {
    char text[120];
    const char *equals = strchr(*name, '=');
    size_t n = equals == NULL ? strlen(*name) : (size_t)(equals - *name);
    if (n >= sizeof text || (strncmp(*name, "_HAVE_", 6) == 0 || strncmp(*name, "_EXP_", 5) == 0) != have)
      continue;
    memcpy(text, *name, n);
    text[n] = 0;
    m->add(m->arg, text, equals == NULL ? "y" : equals + 1);
  }
}

/* By kinds, in the order in which Exim's -bP macro shows them. */
void module_builtin_macros(void (*add)(void *arg, const char *name, const char *value), void *arg) {
  const struct maker m = {add, arg};
  for (size_t i = 0; modules[i] != NULL; i++)
    make_own(&m, modules[i], false);
  MAKE_ALL(&m, struct expand_operator_def, operators, "_EXP_OP_", true);
  MAKE_ALL(&m, struct expand_item_def, items, "_EXP_ITEM_", !(d->flags & EXPAND_LATER));
  MAKE_ALL(&m, struct expand_condition_def, conditions, "_EXP_COND_", !(d->flags & EXPAND_LATER));
  MAKE_ALL(&m, struct variable_def, variables, "_EXP_VAR_", true);
  make_log_selectors(&m);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_drivers(&m, modules[i]);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_options(&m, "_OPT_MAIN_", "", modules[i]->main_options, NULL);
  MAKE_ALL(&m, struct acl_modifier_def, acl_modifiers, "_ACL_MOD_", !(d->flags & ACL_LATER));
  MAKE_ALL(&m, struct acl_condition_def, acl_conditions, "_ACL_COND_", !(d->flags & ACL_LATER));
  make_lookups(&m);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_own(&m, modules[i], true);
}
