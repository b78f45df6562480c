/* Compiles and evaluates any text. What would touch the machine is left out; lookups see a file in memory, as $home. */
#include "base/map.h"
#include "config/config.h"
#include "core/ctx.h"
#include "expand/expand.h"
#include "expand/expand_test.h"
#include "expand/internal.h"
#include "expand/trace.h"
#include "message/message.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct trace_view view = {.colour = true};
static struct config *config;
static struct message *message;
static struct map *variables;
static char file_name[64];

static void make_file(void) {
  static const char lines[] = "a: x=1 y=\"two words\" z=3\nb: a : b : c\n# no\n*: default\n\"q u\": 1\n  2\n192.0.2.0/24: net\n"
                              "^[0-9]+: $1\n*.example: wild\n{\"k\": [1, \"v\"]}\n";
  int fd = memfd_create("fuzz", 0);
  if (fd < 0 || write(fd, lines, sizeof lines - 1) != (ssize_t)(sizeof lines - 1))
    abort();
  snprintf(file_name, sizeof file_name, "/proc/self/fd/%d", fd);
}

static void start(void) {
  static const char text[] = "primary_hostname = h.example\ndomainlist d = a : *.b : ^c\naddresslist a = *@b : ^x.*@y\n"
                             "hostlist h = 192.0.2.0/24 : 2001:db8::/32\nlocalpartlist l = a* : ^b\n"
                             "begin acl\nyes:\n accept message = $acl_arg1/$acl_narg\nno:\n deny message = n\nlater:\n defer\n";
  struct config_source s = {.paths = STR("fuzz"), .text = str_c(text), .expand = expand_config_text};
  struct str errors;
  if (config_read(&s, arena_new("fuzz config"), &config, &errors) != 0)
    abort();
  if ((view.out = fopen("/dev/null", "we")) == NULL)
    abort();
  make_file();
  expand_steps_max = 20000;
  static struct str value = {"one:two::three", 14, STR_TAINTED};
  variables = map_new(arena_new("fuzz variables"));
  map_set(variables, STR("acl_m0"), &value);
  map_set(variables, STR("acl_c_x"), &value);
  map_set(variables, STR("r_x"), &value);
  message = message_new("fuzz");
  message->reverse_path = str_tainted(STR("a@b.example"));
  message_add_header(message, 0, str_tainted(STR("Subject: =?utf-8?Q?caf=C3=A9?= x\n")));
  message_add_header(message, 0, str_tainted(STR("To: a@b, c@d\n")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const outside[] = {"run", "readsocket", "readfile", "stat", "exists", "crypteq", "dlfunc", "saslauthd",
      "ldap", "perl", "pam", "radius", "pwcheck", "@mx", "dnsdb", "mysql", "pgsql", "sqlite", "redis", "passwd", "spf", "host"};
  struct str text = str_n((const char *)data, size), value;
  if (config == NULL)
    start();
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    if (str_find(text, str_c(outside[i])) >= 0)
      return 0;
  /* Neither names of files of the machine nor long detours through them. */
  bool opens = str_find(text, STR("lookup")) >= 0 || str_find(text, STR("match_")) >= 0;
  if (size > 2000 || (opens && str_find_byte(text, '/') >= 0))
    return 0;
  trace_view = size % 4 == 0 ? &view : NULL;
  struct arena *a = arena_new("fuzz");
  struct ctx *c = ctx_new(a, config);
  c->message = message;
  c->is_test = true;
  c->acl_m = c->router_vars = variables;
  c->vars.home = str_c(file_name);
  c->vars.local_part = str_tainted(STR("a.b+c"));
  c->vars.domain = str_tainted(STR("dom.example"));
  capture_set(&c->expand, 1, STR("one"));
  struct str error;
  const struct expr *e = expr_compile(a, text, &error);
  int rc = expand(c, e, &value);
  if (rc == 0 && str_is_set(error))
    abort(); /* an error node that was passed over */
  if (c->depth != 0)
    abort();
  arena_free(a);
  return 0;
}
