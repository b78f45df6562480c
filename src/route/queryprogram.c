/* The queryprogram router: an external command says what to do with an address
(Exim manual, chapter "The queryprogram router"). It runs as command_user where
that is possible, by the same means as local deliveries. */

#include <errno.h>
#include <sys/wait.h>

#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "message/address.h"
#include "route/manualroute.h"
#include "route/router.h"
#include "route/user.h"
#include "transport/command.h"
#include "transport/identity.h"
#include "transport/plan.h"
#include "transport/transport.h"

#define LINE_LENGTH_MAX 1023
#define OUTPUT_MAX (64 << 10)

struct queryprogram {
  struct option_expr command;
  struct option_user user, group;
  struct str current_directory;
  int64_t timeout;
};

#define OFF(f) offsetof(struct queryprogram, f)
static const struct option_def options[] = {
    {"command", OPTION_EXPR, OFF(command)},
    {"command_group", OPTION_GROUP, OFF(group)},
    {"command_user", OPTION_USER, OFF(user)},
    {"current_directory", OPTION_STRING, OFF(current_directory), "/"},
    {"timeout", OPTION_TIME, OFF(timeout), "1h"},
    OPTIONS_END,
};

static int queryprogram_init(struct config_reader *cr, struct instance *i) {
  const struct queryprogram *o = i->options;
  if (!str_is_set(o->command.text))
    return config_error(cr, "a command specification is required");
  if (!o->user.set)
    return config_error(cr, "command_user must be specified");
  if (!o->group.set && !o->user.gid_set)
    return config_error(cr, "command_user set without command_group");
  return 0;
}

/* --- the command --- */

static enum route_result prepare(struct ctx *c, const struct instance *r, struct address *a, struct plan *p) {
  const struct queryprogram *o = r->options;
  struct command made;
  int e = command_build(c, o->command.text, true, NULL, STR_UNSET, STR("queryprogram router"), &made);
  if (e)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s", STRF(c->error));
  if (str_is_tainted(made.argv[0]) || !str_starts(made.argv[0], STR("/")))
    return router_defer(c, a, ERROR_UNKNOWN, "\"%.*s\" (command of %.*s router) is %s", STRF(made.argv[0]), STRF(r->name),
        str_is_tainted(made.argv[0]) ? "tainted" : "no absolute path");
  *p = (struct plan){.kind = PLAN_PIPE, .uid = -1, .gid = -1, .initgroups_user = STR_UNSET, .transport = r->name, .home = STR_UNSET,
      .cwd = o->current_directory, .head = STR_EMPTY, .tail = STR_EMPTY, .argv = made.argv, .argv_n = (int64_t)made.n,
      .temp_errors = STR_EMPTY, .ignore_status = true, .timeout = o->timeout, .max_output = OUTPUT_MAX, .umask = 077};
  static char *none[] = {NULL};
  char **env = environ ? environ : none;
  size_t n = 0;
  while (env[n] && n < PLAN_ARGS_MAX)
    n++;
  p->environment = arena_array(c->arena, struct str, n + 1);
  for (size_t i = 0; i < n; i++)
    p->environment[p->environment_n++] = str_c(env[i]);
  if (identity_can_switch()) {
    p->uid = o->user.id;
    p->gid = o->group.set ? o->group.id : o->user.gid;
  }
  return ROUTE_OK;
}

static enum route_result run_command(struct ctx *c, const struct instance *r, struct address *a, struct str *ret_line) {
  struct plan p;
  struct plan_result result;
  enum route_result rc = prepare(c, r, a, &p);
  if (rc)
    return rc;
  plan_run(c->arena, &p, -1, &result);
  if (str_eq_c(result.message, PLAN_PIPE_TIMED_OUT)) {
    a->special_action_freeze = true;
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: command timed out", STRF(r->name));
  }
  if (result.outcome != OUTCOME_OK && WIFEXITED((int)result.status) && WEXITSTATUS((int)result.status) == 127)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: command returned non-zero code 127", STRF(r->name));
  if (result.outcome != OUTCOME_OK)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: %.*s", STRF(r->name), STRF(result.message));
  if (!WIFEXITED((int)result.status) || WEXITSTATUS((int)result.status)) {
    int status = (int)result.status;
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: command %s %d", STRF(r->name),
        WIFEXITED(status) ? "returned non-zero code" : "terminated by signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  }
  struct str rest = str_is_set(result.output) ? result.output : STR_EMPTY;
  /* What a command of the administrator prints is the administrator's word. */
  *ret_line = str_untainted(str_trim(str_slice(str_cut(&rest, '\n'), 0, LINE_LENGTH_MAX)));
  if (!ret_line->len)
    return router_defer(c, a, ERROR_UNKNOWN, "%.*s router: command generated no output", STRF(r->name));
  return ROUTE_OK;
}

/* --- its answer --- */

/* The value of NAME=VALUE in the line; unset if it is not there. */
static struct str field(struct ctx *c, struct str line, const char *wanted) {
  struct str rest = line;
  while ((rest = str_ltrim(rest)).len) {
    size_t n = 0;
    while (n < rest.len && rest.p[n] != '=' && rest.p[n] != ' ' && rest.p[n] != '\t')
      n++;
    struct str name = str_slice(rest, 0, n);
    rest = str_ltrim(str_from(rest, n));
    if (!str_starts(rest, STR("=")))
      continue;
    rest = str_ltrim(str_from(rest, 1));
    struct str value = manualroute_word(c->arena, &rest);
    if (str_ieq_c(name, wanted))
      return value;
  }
  return STR_UNSET;
}

static enum route_result set_hosts(struct ctx *c, const struct instance *r, struct address *a, struct str line, struct instance *transport,
    struct route_lists *lists) {
  struct str hosts = field(c, line, "hosts"), word = field(c, line, "lookup");
  enum host_lookup lookup = HOST_LOOKUP_DEFAULT;
  bool local = transport && ((const struct transport_def *)transport->driver)->local;
  if (!str_is_set(hosts) || !hosts.len)
    return ROUTE_OK;
  if (local) {
    a->hosts = arena_new_of(c->arena, struct host);
    a->hosts->name = hosts;
    a->hosts->mx = -1;
    return ROUTE_OK;
  }
  if (str_is_set(word) && !str_ieq_c(word, "byname") && !str_ieq_c(word, "bydns"))
    return router_defer(c, a, ERROR_UNKNOWN, "bad lookup type \"%.*s\" yielded by command", STRF(word));
  if (str_is_set(word))
    lookup = str_ieq_c(word, "byname") ? HOST_LOOKUP_BYNAME : HOST_LOOKUP_BYDNS;
  a->hosts = router_host_list(c, hosts, false);
  struct host *first = a->hosts;
  if (!first)
    return router_defer(c, a, ERROR_UNKNOWN, "bad list of hosts \"%.*s\" yielded by command", STRF(hosts));
  enum route_result rc = router_find_hosts(c, r, a, lookup, 0, HFF_DEFER, lists);
  if (rc)
    return rc;
  if (!a->hosts)
    return router_defer(c, a, ERROR_UNKNOWN_HOST, "lookup of host \"%.*s\" failed in %.*s router", STRF(first->name), STRF(r->name));
  return router_translate_hosts(c, r, a);
}

static enum route_result take(struct ctx *c, const struct instance *r, struct address *a, struct str line, struct route_lists *lists) {
  struct str name = field(c, line, "transport"), data = field(c, line, "data");
  struct instance *transport = NULL;
  enum route_result rc;
  if (str_is_set(name) && name.len) {
    transport = config_driver(c->config, DRIVER_TRANSPORT, name);
    if (!transport)
      return router_defer(c, a, ERROR_UNKNOWN, "unknown transport name %.*s yielded by command", STRF(name));
  } else if ((rc = router_transport(c, r, a, &router_options(r)->transport, NULL, &transport))) {
    return rc;
  }
  if ((rc = set_hosts(c, r, a, line, transport, lists)))
    return rc;
  if (str_is_set(data))
    a->prop.address_data = data;
  return router_accept(c, r, a, transport, lists);
}

/* A list of addresses, each routed from the start or from redirect_router. */
static enum route_result redirect(struct ctx *c, const struct instance *r, struct address *a, struct str list, struct route_lists *lists) {
  struct address_props props = a->prop;
  struct address *first = NULL, **tail = &first;
  enum route_result rc = router_props(c, r, a, &props);
  if (rc)
    return rc;
  while (str_is_set(list) && list.len) {
    struct mail_address m;
    struct str error;
    size_t end = address_find_end(list, false);
    struct str item = str_trim(str_slice(list, 0, end));
    list = end < list.len ? str_from(list, end + 1) : STR_EMPTY;
    if (!item.len)
      continue;
    if (address_parse(c->arena, item, 0, &m, &error) || !m.domain.len)
      return router_defer(c, a, ERROR_BAD_REDIRECT, "error in redirect data: %.*s", m.address.len ? (int)item.len : (int)error.len,
          m.address.len ? item.p : error.p);
    struct address *child = address_child(c->arena, a, m.address);
    child->dsn_ended = true;
    child->start_router = router_options(r)->redirect_router;
    child->prop.errors_address = props.errors_address;
    child->prop.extra_headers = props.extra_headers;
    child->prop.remove_headers = props.remove_headers;
    *tail = child;
    tail = &child->next;
  }
  if (!first)
    return router_defer(c, a, ERROR_BAD_REDIRECT, "no addresses yielded by command");
  *tail = lists->children;
  lists->children = first;
  a->router = (struct instance *)r;
  a->result = OUTCOME_OK;
  return ROUTE_REROUTED;
}

static enum route_result queryprogram_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  struct str line, rest;
  enum route_result rc = run_command(c, r, a, &line);
  if (rc)
    return rc;
  size_t n = 0;
  while (n < line.len && line.p[n] != ' ' && line.p[n] != '\t')
    n++;
  struct str word = str_slice(line, 0, n);
  rest = str_trim(str_from(line, n));
  if (str_ieq_c(word, "accept"))
    return take(c, r, a, rest, lists);
  if (str_ieq_c(word, "decline"))
    return ROUTE_DECLINE;
  if (str_ieq_c(word, "pass"))
    return ROUTE_PASS;
  if (str_ieq_c(word, "redirect"))
    return redirect(c, r, a, rest, lists);
  if (str_ieq_c(word, "fail")) {
    rc = router_fail(c, a, "%.*s", STRF(rest));
    a->user_message = rest;
    a->pass_message = true;
    return rc;
  }
  bool freeze = str_ieq_c(word, "freeze");
  if (!freeze && !str_ieq_c(word, "defer"))
    return router_defer(c, a, ERROR_UNKNOWN, "bad command yield: %.*s %.*s", STRF(word), STRF(rest));
  a->special_action_freeze = freeze;
  return router_defer(c, a, ERROR_UNKNOWN, "%.*s", STRF(rest));
}

const struct router_def router_queryprogram_def = {
    .driver = {.name = "queryprogram", .class = DRIVER_ROUTER, .options = options, .options_size = sizeof(struct queryprogram),
        .summary = "routes by the output of a command", .init = queryprogram_init},
    .route = queryprogram_route,
};
