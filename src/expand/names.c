#include "expand/internal.h"

#include "base/map.h"

/* The words of all modules by name. Made at first use and never changed: the tables are constants. */
struct names {
  struct map *variables, *items, *operators, *conditions;
};

static void add_all(struct map *m, const void *table, size_t stride) {
  if (table == NULL)
    return;
  /* Each of the four kinds of entry begins with its name. */
  for (const char *p = table;; p += stride) {
    const char *name;
    memcpy(&name, p, sizeof name);
    if (name == NULL)
      return;
    map_set(m, str_c(name), (void *)p);
  }
}

static const struct names *names(void) {
  static struct names n;
  if (n.variables != NULL)
    return &n;
  struct arena *a = arena_new("expansion names");
  n = (struct names){map_new(a), map_new(a), map_new(a), map_new(a)};
  for (size_t i = 0; modules[i] != NULL; i++) {
    const struct module *m = modules[i];
    add_all(n.variables, m->variables, sizeof *m->variables);
    add_all(n.items, m->items, sizeof *m->items);
    add_all(n.operators, m->operators, sizeof *m->operators);
    add_all(n.conditions, m->conditions, sizeof *m->conditions);
  }
  return &n;
}

const struct variable_def *find_variable(struct str name) { return map_get(names()->variables, name); }

const struct variable_def *variable_settable(struct str name) {
  const struct variable_def *v = find_variable(name);
  return v != NULL && v->set != NULL ? v : NULL;
}
const struct expand_item_def *find_item(struct str name) { return map_get(names()->items, name); }
const struct expand_operator_def *find_operator(struct str name) { return map_get(names()->operators, name); }
const struct expand_condition_def *find_condition(struct str name) { return map_get(names()->conditions, name); }
