/* Aliases, forward files and routing rules, with hostile text. */

#include "base/arena.h"
#include "base/outcome.h"
#include "route/manualroute.h"
#include "route/redirect_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct str whole;

/* Any file holds the same text: that includes files that include themselves. */
static int read_file(void *arg, struct arena *a, struct str path, struct str *ret, struct str *ret_error) {
  *ret = str_slice(whole, 0, whole.len / 2);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > 4096)
    return 0;
  struct arena *a = arena_new("fuzz");
  whole = str_n((const char *)data + 1, size - 1);
  struct redirect_rules r = {.allow_defer = data[0] & 1, .allow_fail = data[0] & 2, .forbid_blackhole = data[0] & 4,
      .skip_syntax_errors = data[0] & 8, .include_directory = data[0] & 16 ? STR("/a") : STR_UNSET, .items_max = 1000,
      .read_file = data[0] & 32 ? read_file : NULL};
  struct redirect_parsed p;
  redirect_parse(a, whole, &r, &p);
  struct manualroute_rule rule;
  manualroute_parse_rule(a, whole, &rule);
  arena_free(a);
  return 0;
}
