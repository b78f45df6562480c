/* The first line is a rewriting rule, the rest a header line that it, and qualification, are applied to. */
#include <stdlib.h>
#include "core/module.h"
#include "expand/expand.h"
#include "message/rewrite.h"
#include "message/rewrite_internal.h"
#include "message/rewrite_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config *config;

static void prepare(void) {
  struct str errors;
  struct config_source s = {.paths = STR("fuzz"), .text = STR("primary_hostname = me.test\nqualify_domain = q.test\n")};
  if (config_read(&s, arena_new("config"), &config, &errors))
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!config)
    prepare();
  struct arena *a = arena_new("fuzz");
  struct ctx *c = ctx_new(a, config);
  struct message *m = c->message = message_new("fuzz");
  struct str text = str_tainted(str_n((const char *)data, size));
  struct str line = str_untainted(str_cut(&text, '\n')), error;
  struct rewrite_rule rule = {0};
  /* A pattern or replacement that asks files, commands or databases is no matter of this fuzzer. */
  bool usable = str_find_byte(line, '$') < 0 && str_find_byte(line, '/') < 0 && str_find_byte(line, ';') < 0 &&
    rewrite_parse_rule(a, line, true, &rule, &error) == 0;
  struct rewrite_rules rules = {&rule, 1, rule.flags};
  m->allow_unqualified_sender = m->allow_unqualified_recipient = true;
  if (str_is_set(text) && header_name_length(text)) {
    struct header *h = message_add_header(m, HEADER_TO, text);
    rewrite_message_headers(c, m, usable ? &rules : NULL);
    for (; h; h = h->next)
      if (!h->text.len || h->text.p[h->text.len - 1] != '\n')
        abort();
  }
  message_free(m);
  arena_free(a);
  return 0;
}
