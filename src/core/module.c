#include "core/module.h"

#include <stdlib.h>

size_t module_count(void) {
  static size_t n;
  if (n == 0)
    while (modules[n] != NULL)
      n++;
  return n;
}

size_t module_number(const struct module *m) {
  for (size_t i = 0; modules[i] != NULL; i++)
    if (modules[i] == m)
      return i;
  abort(); /* a module that src/registry.c does not list */
}
