/* "did you mean" for the ACL language's words, for errors of the configuration. */
#include "acl/internal.h"
#include "config/config.h"
#include "core/module.h"

#define NAMES_MAX 300

struct names {
  const char *v[NAMES_MAX];
  size_t n;
};

static void add(struct names *w, const char *name) {
  if (w->n < NAMES_MAX)
    w->v[w->n++] = name;
}

static void add_conditions(struct names *w, const struct acl_condition_def *d) {
  for (; d && d->name; d++)
    if (!(d->flags & ACL_LATER))
      add(w, d->name);
}

static void add_modifiers(struct names *w, const struct acl_modifier_def *d) {
  for (; d && d->name; d++)
    if (!(d->flags & ACL_LATER))
      add(w, d->name);
}

static void add_controls(struct names *w, const struct acl_control_def *d) {
  for (; d && d->name; d++)
    if (!(d->flags & (ACL_LATER | ACL_ALIAS)))
      add(w, d->name);
}

/* "" when no name is near. */
static struct str suggestion(struct arena *a, struct str word, const struct names *w) {
  const char *near = config_nearest(word, w->v, sizeof *w->v, w->n);
  return near == NULL ? STR_EMPTY : str_printf(a, "\n  (did you mean \"%s\"?)", near);
}

struct str acl_suggest_word(struct arena *a, struct str word, bool conditions, bool verbs) {
  struct names w = {.n = 0};
  for (int v = 0; verbs && v < VERB_COUNT; v++)
    add(&w, acl_verbs[v]);
  if (conditions) {
    add_conditions(&w, acl_core_conditions);
    add_modifiers(&w, acl_core_modifiers);
    for (size_t m = 0; modules[m]; m++) {
      add_conditions(&w, modules[m]->acl_conditions);
      add_modifiers(&w, modules[m]->acl_modifiers);
    }
  }
  return suggestion(a, word, &w);
}

struct str acl_suggest_control(struct arena *a, struct str word) {
  struct names w = {.n = 0};
  add_controls(&w, acl_core_controls);
  for (size_t m = 0; modules[m]; m++)
    add_controls(&w, modules[m]->acl_controls);
  return suggestion(a, word, &w);
}
