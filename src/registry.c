#include "core/main_options.h"
#include "core/module.h"

/* All modules. A module's number is its place here; the order decides the order
of words in -bV and of calls at each moment (module_hooks). */
const struct module *const modules[] = {
  &core_module,
  NULL,
};
