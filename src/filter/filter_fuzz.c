/* Reads and runs any text as a filter: the first byte says whose, and whether it is only tested. What its strings could do to the
machine is forbidden, as an administrator may forbid it. */
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"
#include "core/ctx.h"
#include "expand/expand.h"
#include "expand/expand_test.h"
#include "expand/internal.h"
#include "filter/filter.h"
#include "message/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config *config;
static FILE *null;

static void start(void) {
  static const char text[] = "primary_hostname = h.example\n";
  struct config_source s = {.paths = STR("fuzz"), .text = str_c(text), .expand = expand_config_text};
  struct str errors;
  if (config_read(&s, arena_new("fuzz config"), &config, &errors) != 0 || (null = fopen("/dev/null", "we")) == NULL)
    abort();
  expand_steps_max = 20000;
}

static struct message *new_message(void) {
  struct message *message = message_new("fuzz");
  message->reverse_path = str_tainted(STR("joe@x.example"));
  message->deliver_first_time = true;
  message_add_header(message, 0, str_tainted(STR("Subject: =?utf-8?Q?caf=C3=A9?= x\n")));
  message_add_header(message, 0, str_tainted(STR("From: Joe <joe@x.example>\n")));
  message_add_header(message, 0, str_tainted(STR("To: fred@dom.example, \"a b\"@c.example\n")));
  message_add_recipient(message, STR("fred@dom.example"));
  return message;
}

/* What an outcome promises. */
static void check(const struct filter_result *r) {
  if (r->items.n > FILTER_ITEMS_MAX || (r->outcome == FILTER_ERROR && !str_is_set(r->text)))
    abort();
  for (size_t i = 0; i < r->items.n; i++) {
    const struct filter_item *item = &r->items.v[i];
    if (item->kind > FILTER_REPLY || (item->kind == FILTER_REPLY) != (item->reply != NULL))
      abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const outside[] = {"crypteq", "saslauthd", "ldap", "pam", "radius", "pwcheck", "@mx", "host"};
  if (config == NULL)
    start();
  if (size < 1 || size > 3000)
    return 0;
  struct str text = str_n((const char *)data + 1, size - 1);
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    if (str_find(text, str_c(outside[i])) >= 0)
      return 0;
  if (str_find(text, STR("match_")) >= 0 && str_find_byte(text, '/') >= 0)
    return 0;
  unsigned how = data[0];
  struct filter_rules rules = {.system = how & 1, .allow_defer = how & 2, .allow_fail = how & 2, .allow_freeze = how & 2,
      .testing = !(how & 4), .forbid_logwrite = how & 4, .forbid = ~0u, .out = null};
  struct arena *a = arena_new("fuzz");
  struct ctx *c = ctx_new(a, config);
  c->message = new_message();
  c->client = &c->message->client;
  c->is_test = true;
  c->vars.home = STR("/home/fred");
  c->vars.local_part = str_tainted(STR("fred"));
  c->vars.domain = str_tainted(STR("dom.example"));
  struct filter_result r;
  filter_run(c, text, &rules, &r);
  check(&r);
  if (c->depth != 0)
    abort();
  message_free(c->message);
  filter_cache_clear();
  arena_free(a);
  return 0;
}
