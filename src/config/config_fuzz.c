/* The reader on arbitrary text; what it accepts is printed back too. */
#include <stdio.h>
#include "base/arena.h"
#include "config/config.h"
#include "config/print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FILE *null;
  if (null == NULL)
    null = fopen("/dev/null", "w");
  struct arena *a = arena_new("fuzz");
  /* A copy of its own, so that reading past the end is noticed. */
  struct str text = {arena_memdup(a, data, size), (uint32_t)size, 0};
  struct config_source source = {.paths = STR("fuzz"), .text = text, .no_files = true};
  struct config *c;
  struct str errors = STR_EMPTY;
  if (config_read(&source, a, &c, &errors) == 0) {
    const struct config_print p = {.out = null, .admin = true};
    const struct str names[] = {STR("all"), STR("config"), STR("routers"), STR("transports"), STR("macros")};
    (void)config_print(&p, c, names, sizeof names / sizeof *names);
  }
  arena_free(a);
  return 0;
}
