/* Any lines as retry rules; then one address is looked up in what was understood. */
#include <stdlib.h>
#include "core/module.h"
#include "queue/retry_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *a = arena_new("fuzz");
  struct str text = str_n((const char *)data, size), errors;
  struct config *config;
  struct config_source s = {.paths = STR("fuzz")};
  /* No directives, no expansions: those are the configuration's and the expansion's own matter. */
  bool plain = true;
  for (uint32_t i = 0; i < text.len; i++)
    plain &= text.p[i] != '$' && text.p[i] != '/' && text.p[i] != '\0' &&
      !(text.p[i] == '.' && (i == 0 || text.p[i - 1] == '\n'));
  s.text = str_printf(a, "primary_hostname = me.test\nbegin retry\n%.*s\n", STRF(text));
  if (plain && config_read(&s, a, &config, &errors) == 0) {
    struct ctx *c = ctx_new(a, config);
    const struct retry_rule *r = retry_rule_find(c, STR("x@dom.test"), STR("host.test"), 111, 'A', STR("s@q.test"));
    if (r && retry_rule_cutoff(r) < 0)
      abort();
  }
  int basic, more;
  (void)retry_error_parse(a, text, &basic, &more, &errors);
  arena_free(a);
  return 0;
}
