#include "filter/internal.h"

void filter_run_sieve(struct ctx *c, struct str text, const struct filter_rules *rules, struct filter_result *ret) {
  ret->outcome = FILTER_ERROR;
  ret->text = STR("Sieve filters are not supported yet");
}
