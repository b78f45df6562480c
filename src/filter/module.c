/* The words that filters bring: $n0 … $n9, $sn0 … $sn9, $thisaddress. */

#include "core/module.h"
#include "expand/expand.h"
#include "filter/internal.h"
#include "message/message.h"

struct system_counts {
  int64_t n[10];
};

void filter_set_system_counts(struct message *m, const int64_t n[10]) {
  struct system_counts *s = message_module_state(m, &filter_module);
  memcpy(s->n, n, sizeof s->n);
}

static int get_n(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_printf(c->arena, "%lld", c->filter ? (long long)c->filter->n[def->flags] : 0LL);
  return 0;
}

void filter_system_count(struct ctx *c, int i, struct str *ret) {
  const struct system_counts *s = c->message ? message_module_state(c->message, &filter_module) : NULL;
  *ret = str_printf(c->arena, "%lld", s ? (long long)s->n[i] : 0LL);
}

static int get_sn(struct ctx *c, const struct variable_def *def, struct str *ret) {
  filter_system_count(c, (int)def->flags, ret);
  return 0;
}

static int get_this_address(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->filter)
    *ret = c->filter->this_address;
  return 0;
}

#define COUNT(name, get, i) {name #i, get, 0, i}
#define COUNTS(name, get)                                                                                                \
  COUNT(name, get, 0), COUNT(name, get, 1), COUNT(name, get, 2), COUNT(name, get, 3), COUNT(name, get, 4),               \
      COUNT(name, get, 5), COUNT(name, get, 6), COUNT(name, get, 7), COUNT(name, get, 8), COUNT(name, get, 9)

static const struct variable_def variables[] = {
    COUNTS("n", get_n), COUNTS("sn", get_sn), {"thisaddress", get_this_address}, {0},
};

const struct module filter_module = {
    .name = "filter",
    .summary = "Exim and Sieve filters",
    .support = "Exim_filter Sieve_filter",
    .variables = variables,
    .message_state = {.size = sizeof(struct system_counts)},
};
