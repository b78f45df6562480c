/* The environment that libraries and children see (Exim manual, keep_environment
and add_environment). */
#include <stdlib.h>
#include <string.h>

#include "cli/process.h"
#include "core/build.h"
#include "core/main_options.h"
#include "dns/dns.h"
#include "match/match.h"

extern char **environ;

/* TZ belongs to the option `timezone`. */
static bool is_kept(struct ctx *c, struct str list, struct str name) {
  return str_eq_c(name, "TZ") || (str_is_set(list) && match_string(c, list, name, true, NULL) == OUTCOME_OK);
}

void environment_clean(struct process *p) {
  const struct main_options *o = main_options(p->config);
  struct ctx *c = ctx_new(p->arena, p->config);
  VEC(struct str) gone = {0};
  const char *server = build.dns_server_env ? getenv(build.dns_server_env) : NULL;
  if (server)
    dns_use_server(server);
  for (char **e = environ; e != NULL && *e != NULL; e++) {
    struct str rest = str_dup(p->arena, str_c(*e)), name = str_cut(&rest, '=');
    if (!is_kept(c, o->keep_environment, name))
      vec_push(p->arena, &gone, name);
  }
  for (size_t i = 0; i < gone.n; i++)
    unsetenv(str_dup_c(p->arena, gone.v[i]));
  struct list_iter items;
  struct str item;
  list_iter_init(&items, p->arena, str_is_set(o->add_environment) ? o->add_environment : STR_EMPTY);
  while (list_next(&items, &item)) {
    struct str value = item, name = str_cut(&value, '=');
    if (name.len > 0 && str_is_set(value))
      setenv(str_dup_c(p->arena, name), str_dup_c(p->arena, value), 1);
  }
}
