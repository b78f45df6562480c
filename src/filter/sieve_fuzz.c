/* Any text as a Sieve script, run for a message. A first line that begins with "To: " and the like gives more of the message's
header; the script begins behind the first empty line, if the text has such lines. */

#include <stdlib.h>

#include "config/config.h"
#include "expand/expand.h"
#include "filter/sieve.h"
#include "message/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

/* Header lines in front of the script. */
static struct str take_header(struct message *m, struct str text) {
  struct str rest = text;
  while (str_is_set(rest)) {
    struct str line = str_cut(&rest, '\n');
    if (!line.len && m->headers)
      return str_is_set(rest) ? rest : STR_EMPTY;
    if (!header_name_length(line))
      break;
    message_add_header(m, 0, str_tainted(str_dup(m->arena, str_cat(m->arena, line, STR("\n")))));
  }
  return text;
}

/* What comes out can be logged, mailed and handed on. */
static void check_items(const struct filter_result *r) {
  check(r->outcome == FILTER_DELIVERED);
  check(r->keep == str_is_set(r->text));
  for (size_t i = 0; i < r->items.n; i++) {
    const struct filter_item *item = &r->items.v[i];
    check(item->text.len > 0 && item->kind != FILTER_PIPE);
    check((item->kind >= FILTER_REPLY) == (item->reply != NULL));
    check(item->kind != FILTER_ADDRESS || str_find_byte(item->text, '@') > 0);
    for (uint32_t k = 0; k < item->text.len && item->kind <= FILTER_FILE; k++)
      check((unsigned char)item->text.p[k] >= 32);
    if (!item->reply)
      continue;
    const struct str lines[] = {item->reply->from, item->reply->subject};
    for (size_t k = 0; k < 2; k++)
      for (uint32_t j = 0; str_is_set(lines[k]) && j < lines[k].len; j++)
        check(lines[k].p[j] != '\n' || (j + 1 < lines[k].len && (lines[k].p[j + 1] == ' ' || lines[k].p[j + 1] == '\t')));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct arena *forever;
  static struct config *config;
  if (!forever) {
    struct str errors;
    struct config_source s = {.paths = STR("fuzz"), .text = STR("primary_hostname = host.test\n")};
    forever = arena_new("fuzz");
    check(!config_read(&s, forever, &config, &errors));
  }
  struct filter_rules rules = {.sieve_subaddress = STR("ext"), .sieve_useraddress = STR_UNSET, .sieve_inbox = STR("inbox"),
      .sieve_vacation_directory = STR("/v"), .sieve_enotify_owner = STR("owner@host.test")};
  struct arena *a = arena_new("fuzz run");
  struct ctx *c = ctx_new(a, config);
  struct filter_result r;
  struct message *m = c->message = message_new("fuzz");
  m->reverse_path = str_tainted(STR("joe@x.test"));
  m->size = size;
  c->client = &m->client;
  c->vars.local_part = STR("fred");
  c->vars.local_part_prefix = STR_EMPTY;
  c->vars.local_part_suffix = STR("-ext");
  c->vars.domain = STR("test.ex");
  /* An exact copy, so that reads behind the end are seen. */
  char *copy = malloc(size ? size : 1);
  memcpy(copy, data, size);
  struct str script = take_header(m, str_n(copy, size));
  struct str whole = str_cat(a, STR("# Sieve filter\n"), script);
  filter_run(c, whole, &rules, &r);
  check_items(&r);
  struct sieve_program *p = sieve_compile(a, str_n(copy, size), &rules);
  check(p != NULL);
  free(copy);
  filter_cache_clear();
  message_free(m);
  arena_free(a);
  return 0;
}
