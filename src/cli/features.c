/* -bI:features: what each module adds to the language, as JSON, from the tables that the parser uses. */

#include <stdio.h>

#include "acl/acl.h"
#include "cli/process.h"
#include "config/config.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/select.h"
#include "lookup/lookup.h"
#include "smtp/server/server.h"

/* Writes one JSON object; names in the tables need no escapes. */
struct writer {
  FILE *out;
  bool list_open;   /* a list has been begun */
  bool more_lists;  /* in this object */
  const char *kind; /* the list's name: printed with its first element */
};

static void list_begin(struct writer *w, const char *kind) {
  w->kind = kind;
  w->list_open = false;
}

static void list_add(struct writer *w, const char *name, size_t n) {
  if (!w->list_open)
    fprintf(w->out, "%s\n  \"%s\": [", w->more_lists ? "," : "", w->kind);
  fprintf(w->out, "%s\"%.*s\"", w->list_open ? ", " : "", (int)n, name);
  w->list_open = w->more_lists = true;
}

static void list_end(struct writer *w) {
  if (w->list_open)
    fputc(']', w->out);
  w->list_open = false;
}

static void words(struct writer *w, const char *kind, const char *text) {
  list_begin(w, kind);
  for (struct str rest = text ? str_c(text) : STR_UNSET; str_is_set(rest) && rest.len > 0;) {
    struct str word = str_cut(&rest, ' ');
    if (word.len > 0)
      list_add(w, word.p, word.len);
  }
  list_end(w);
}

static void strings(struct writer *w, const char *kind, const char *const *v) {
  list_begin(w, kind);
  for (; v && *v; v++)
    list_add(w, *v, strlen(*v));
  list_end(w);
}

/* Names of a table of `struct type`; `later` says of an entry `d` that it is not there yet. */
#define TABLE(w, type, kind, table, later) \
  do { \
    list_begin(w, kind); \
    for (const struct type *d = (table); d && d->name; d++) \
      if (!(later)) \
        list_add(w, d->name, strlen(d->name)); \
    list_end(w); \
  } while (0)

static const char *const class_names[DRIVER_CLASSES] = {"router", "transport", "authenticator"};

static void drivers(struct writer *w, const struct module *m) {
  for (const struct driver_def *const *d = m->drivers; d && *d; d++) {
    if ((*d)->later)
      continue;
    char kind[120];
    snprintf(kind, sizeof kind, "%s %s", class_names[(*d)->class], (*d)->name);
    list_begin(w, kind);
    list_add(w, "driver", strlen("driver"));
    for (const struct option_def *o = (*d)->options; o && o->name; o++)
      if (!(o->flags & OPTION_LATER))
        list_add(w, o->name, strlen(o->name));
    list_end(w);
  }
  for (const struct module_driver_options *o = m->driver_options; o && o->options; o++) {
    char kind[120];
    snprintf(kind, sizeof kind, "%s%s%s options", class_names[o->class], o->driver ? " " : "", o->driver ? o->driver : "");
    TABLE(w, option_def, kind, o->options, d->flags & OPTION_LATER);
  }
  if (m->driver_class) {
    char kind[120];
    snprintf(kind, sizeof kind, "%s options of the class", class_names[m->driver_class->class]);
    TABLE(w, option_def, kind, m->driver_class->options, d->flags & OPTION_LATER);
  }
}

static void module_features(struct writer *w, const struct module *m) {
  words(w, "support", m->support);
  TABLE(w, option_def, "main options", m->main_options, d->flags & OPTION_LATER);
  TABLE(w, config_section_def, "sections", m->sections, false);
  TABLE(w, acl_condition_def, "ACL conditions", m->acl_conditions, d->flags & ACL_LATER);
  TABLE(w, acl_modifier_def, "ACL modifiers", m->acl_modifiers, d->flags & ACL_LATER);
  TABLE(w, acl_control_def, "ACL controls", m->acl_controls, d->flags & ACL_LATER);
  TABLE(w, acl_verify_def, "ACL verify", m->acl_verifies, false);
  TABLE(w, variable_def, "variables", m->variables, false);
  TABLE(w, expand_item_def, "expansion items", m->items, d->flags & EXPAND_LATER);
  TABLE(w, expand_operator_def, "expansion operators", m->operators, d->flags & EXPAND_LATER);
  TABLE(w, expand_condition_def, "expansion conditions", m->conditions, d->flags & EXPAND_LATER);
  list_begin(w, "lookups");
  for (const struct lookup_def *const *d = m->lookups; d && *d; d++)
    if (!((*d)->flags & LOOKUP_LATER))
      list_add(w, (*d)->name, strlen((*d)->name));
  list_end(w);
  drivers(w, m);
  TABLE(w, log_selector_def, "log selectors", m->log_selectors, false);
  TABLE(w, smtp_verb_def, "SMTP commands", m->smtp_verbs, false);
  TABLE(w, smtp_param_def, "MAIL parameters", m->mail_params, false);
  TABLE(w, smtp_param_def, "RCPT parameters", m->rcpt_params, false);
  strings(w, "scanners", m->scanners);
  strings(w, "macros", m->macros);
}

void print_features(FILE *out) {
  for (size_t i = 0; modules[i]; i++) {
    struct writer w = {.out = out};
    fprintf(out, "%s\"%s\": {", i == 0 ? "{" : ",\n", modules[i]->name);
    module_features(&w, modules[i]);
    fputs("}", out);
  }
  struct writer w = {.out = out};
  fputs(",\n\"log\": {", out);
  TABLE(&w, select_name, "log selectors", log_selector_names(), false);
  fputs("}}\n", out);
}
