#include "log/select.h"

#include <ctype.h>
#include <stdlib.h>
#include "base/arena.h"
#include "core/module.h"
#include "log/log.h"

static const struct select_name *find(const struct select_name *names, struct str name) {
  for (; names->name != NULL; names++)
    if (str_eq_c(name, names->name))
      return names;
  return NULL;
}

/* "=number", octal, decimal or hexadecimal: sets all bits at once. */
static size_t parse_number(struct str text, uint64_t *mask) {
  char digits[32] = "";
  size_t n = 0;
  while (n + 1 < text.len && n < sizeof digits - 1 && isalnum((unsigned char)text.p[n + 1])) {
    digits[n] = text.p[n + 1];
    n++;
  }
  char *end;
  uint64_t value = strtoull(digits, &end, 0);
  if (n == 0 || *end != 0)
    return 0;
  *mask = value;
  return n + 1;
}

int select_parse(struct arena *a, struct str text, const struct select_name *names, const char *what, uint64_t *mask,
    struct str *ret_error) {
  for (;;) {
    text = str_ltrim(text);
    if (str_is_empty(text))
      return 0;
    if (text.p[0] == '=') {
      size_t used = parse_number(text, mask);
      if (used == 0) {
        *ret_error = str_printf(a, "malformed numeric %s setting: %.*s", what, STRF(text));
        return -1;
      }
      text = str_from(text, used);
      continue;
    }
    if (text.p[0] != '+' && text.p[0] != '-') {
      *ret_error = str_printf(a, "malformed %s setting: + or - expected but found \"%.*s\"", what, STRF(text));
      return -1;
    }
    size_t n = 1;
    while (n < text.len && (isalnum((unsigned char)text.p[n]) || text.p[n] == '_'))
      n++;
    const struct select_name *name = find(names, str_slice(text, 1, n));
    if (name == NULL) {
      *ret_error = str_printf(a, "unknown %s setting: %.*s", what, STRF(str_slice(text, 0, n)));
      return -1;
    }
    if (text.p[0] == '-')
      *mask &= ~name->bits;
    else
      *mask |= name->add_bits != 0 ? name->add_bits : name->bits;
    text = str_from(text, n);
  }
}

#define SELECTORS_MAX 64

static struct select_name selector_names[SELECTORS_MAX + 2];
static uint64_t selector_defaults;

static void add_selector(size_t *n, const char *name, bool on) {
  if (*n >= SELECTORS_MAX)
    abort(); /* the mask is full: widen it together with selectors.def */
  selector_names[*n] = (struct select_name){.name = name, .bits = 1ull << *n};
  if (on)
    selector_defaults |= 1ull << *n;
  (*n)++;
}

const struct select_name *log_selector_names(void) {
  if (selector_names[0].name != NULL)
    return selector_names;
  size_t n = 0;
#define X(name, on) add_selector(&n, #name, on);
#include "log/selectors.def"
#undef X
  for (size_t i = 0; modules[i] != NULL; i++)
    for (const struct log_selector_def *d = modules[i]->log_selectors; d != NULL && d->name != NULL; d++)
      add_selector(&n, d->name, d->on_by_default);
  selector_names[n] = (struct select_name){.name = "all", .bits = UINT64_MAX};
  return selector_names;
}

uint64_t log_selector_mask;

bool log_selected(enum log_selector s) { return (log_selector_mask >> s) & 1; }

bool log_selected_name(struct str name) {
  const struct select_name *n = find(log_selector_names(), name);
  return n != NULL && (log_selector_mask & n->bits) == n->bits;
}

uint64_t log_selector_defaults(void) {
  log_selector_names();
  return selector_defaults;
}
