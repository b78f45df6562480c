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

static void make_words(const struct maker *m, const struct module *mod) {
  for (const struct acl_condition_def *d = mod->acl_conditions; d != NULL && d->name != NULL; d++)
    if (!(d->flags & ACL_LATER))
      make(m, "_ACL_COND_", "", d->name);
  for (const struct acl_modifier_def *d = mod->acl_modifiers; d != NULL && d->name != NULL; d++)
    if (!(d->flags & ACL_LATER))
      make(m, "_ACL_MOD_", "", d->name);
  for (const struct expand_condition_def *d = mod->conditions; d != NULL && d->name != NULL; d++)
    if (!(d->flags & EXPAND_LATER))
      make(m, "_EXP_COND_", "", d->name);
  for (const struct expand_item_def *d = mod->items; d != NULL && d->name != NULL; d++)
    if (!(d->flags & EXPAND_LATER))
      make(m, "_EXP_ITEM_", "", d->name);
  for (const struct expand_operator_def *d = mod->operators; d != NULL && d->name != NULL; d++)
    make(m, "_EXP_OP_", "", d->name);
  for (const struct variable_def *d = mod->variables; d != NULL && d->name != NULL; d++)
    make(m, "_EXP_VAR_", "", d->name);
  for (const struct lookup_def *const *d = mod->lookups; d != NULL && *d != NULL; d++)
    if (!((*d)->flags & LOOKUP_LATER))
      make(m, "_HAVE_LOOKUP_", "", (*d)->name);
}

static void make_own(const struct maker *m, const struct module *mod) {
  for (const char *const *name = mod->macros; name != NULL && *name != NULL; name++) {
    char text[120];
    const char *equals = strchr(*name, '=');
    size_t n = equals == NULL ? strlen(*name) : (size_t)(equals - *name);
    if (n >= sizeof text)
      continue;
    memcpy(text, *name, n);
    text[n] = 0;
    m->add(m->arg, text, equals == NULL ? "y" : equals + 1);
  }
}

/* By kinds, in the order in which Exim's -bP macro shows them. */
void module_builtin_macros(void (*add)(void *arg, const char *name, const char *value), void *arg) {
  const struct maker m = {add, arg};
  for (const struct select_name *s = log_selector_names(); s->name != NULL; s++)
    make(&m, "_LOG_", "", s->name);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_words(&m, modules[i]);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_drivers(&m, modules[i]);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_options(&m, "_OPT_MAIN_", "", modules[i]->main_options, NULL);
  for (size_t i = 0; modules[i] != NULL; i++)
    make_own(&m, modules[i]);
}
