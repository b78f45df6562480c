/* Conditions on one or two strings: eq, lt, =, <, bool, def, exists, isip, match and and/or. */
#include "expand/conditions.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/ip.h"
#include "base/pcre.h"
#include "expand/internal.h"
#include "expand/values.h"
#include "loop/fiber.h"
#include "message/message.h"

/* The operator in the name: "<", "lei", "==" … */
enum comparison { LESS = 1, EQUAL = 2, GREATER = 4 };

static bool holds(unsigned wanted, int cmp) { return wanted & (cmp < 0 ? LESS : cmp == 0 ? EQUAL : GREATER); }

static int eval_text(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  size_t len = strlen(def->name);
  bool caseless = len == 3;
  unsigned wanted = def->name[0] == 'l' ? LESS : def->name[0] == 'g' ? GREATER : 0;
  if (def->name[0] == 'e' || def->name[1] == 'e')
    wanted |= EQUAL;
  if (wanted == EQUAL)
    *ret = caseless ? str_ieq(args->value[0], args->value[1]) : str_eq(args->value[0], args->value[1]);
  else
    *ret = holds(wanted, caseless ? str_icmp(args->value[0], args->value[1]) : str_cmp(args->value[0], args->value[1]));
  return 0;
}

static int eval_number(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  unsigned wanted = def->name[0] == '<' ? LESS : def->name[0] == '>' ? GREATER : EQUAL;
  if (def->name[1] == '=')
    wanted |= EQUAL;
  int64_t a, b;
  int rc = expand_to_int(c, args->value[0], &a);
  if (rc == 0)
    rc = expand_to_int(c, args->value[1], &b);
  if (rc == 0)
    *ret = holds(wanted, a < b ? -1 : a > b);
  return rc;
}

static int eval_bool(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  if (expand_truth(args->value[0], ret))
    return 0;
  return ctx_fail(c, OUTCOME_ERROR, "unrecognised boolean value \"%.*s\"", STRF(str_trim(args->value[0])));
}

static int eval_bool_lax(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  *ret = expand_truth_lax(args->value[0]);
  return 0;
}

static const void *compile_def(struct expand_compiler *k, const struct expand_condition_def *def) {
  if (k->p == k->end || *k->p != ':')
    return expand_compile_error(k, "\":\" expected after \"def\"");
  k->p++;
  struct node *n = arena_new_of(k->arena, struct node);
  const char *why;
  struct str name = compile_name(k, "_");
  if (name.len == 0)
    return expand_compile_error(k, "variable name omitted after \"def:\"");
  if (compile_header(k, name, n) || compile_reference(k, name, n, &why))
    return n;
  return expand_compile_error(k, "unknown variable \"%.*s\" after \"def:\"%s", STRF(name), why);
}

static int eval_def(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct node *n = args->custom;
  if (n->kind == NODE_HEADER) {
    *ret = header_exists(c, n->header.name);
    return 0;
  }
  struct str value;
  int rc = node_value(c, n, &value);
  if (rc == 0)
    *ret = value.len > 0;
  return rc;
}

struct exists_call {
  const char *path;
  bool found;
};

static int exists_offloaded(void *arg) {
  struct exists_call *call = arg;
  struct stat st;
  call->found = stat(call->path, &st) == 0;
  return 0;
}

static int eval_exists(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  if (expand_forbidden(c, EXPAND_FORBID_EXISTS, "File existence tests are not permitted"))
    return OUTCOME_ERROR;
  struct str name = args->value[0];
  if (name.len == 0 || name.p[0] != '/' || str_find_byte(name, '\0') >= 0)
    return 0;
  struct exists_call call = {.path = str_dup_c(c->arena, name)};
  fiber_offload(exists_offloaded, &call);
  *ret = call.found;
  return 0;
}

static int eval_isip(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  struct ip_addr ip;
  *ret = ip_parse(args->value[0], &ip);
  if (*ret && def->name[4] != '\0')
    *ret = (ip.family == AF_INET) == (def->name[4] == '4');
  return 0;
}

static int eval_queue_running(
    struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  *ret = c->queue_running;
  return 0;
}

static int eval_first_delivery(
    struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  *ret = c->message != NULL && c->message->deliver_first_time;
  return 0;
}

/* The pattern, if it is known; NULL also when it does not compile, which is told when it is used. */
static const void *prepare_match(struct arena *a, const struct expand_args *args) {
  struct str pattern;
  return expr_is_constant(args->tree[1], &pattern) ? pcre_compile(a, pattern, 0, NULL) : NULL;
}

static int eval_match(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  struct str error, groups[CAPTURES_MAX];
  const struct pcre *re = args->custom ? args->custom : pcre_get(c->arena, args->value[1], 0, &error);
  if (re == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  int n = pcre_match(re, args->value[0], groups, CAPTURES_MAX);
  *ret = n > 0;
  if (n < 0)
    return regex_limit_error(c, args->value[1]);
  if (n > 0)
    captures_set(&c->expand, groups, n);
  return 0;
}

/* {{cond}{cond}…} of and, or. */
struct condition_list {
  VEC(const struct expand_condition *) v;
};

static const void *compile_group(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct condition_list *list = arena_new_of(k->arena, struct condition_list);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"%s\"", def->name);
  while (!expand_accept(k, '}')) {
    if (!expand_accept(k, '{'))
      return expand_compile_error(
          k, "each subcondition inside an \"%s{...}\" condition must be in its own {}", def->name);
    const struct expand_condition *cond = expand_compile_condition(k);
    if (cond == NULL)
      return expand_compile_inside(k, "inside \"%s{...}\" condition", def->name);
    if (!expand_accept(k, '}'))
      return expand_compile_error(k, "missing } at end of condition inside \"%s\" group", def->name);
    vec_push(k->arena, &list->v, cond);
  }
  return list;
}

static int eval_group(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct condition_list *list = args->custom;
  bool stop_at = def->name[0] == 'o';
  *ret = !stop_at;
  for (size_t i = 0; i < list->v.n && *ret != stop_at; i++) {
    int rc = expand_condition(c, list->v.v[i], ret);
    if (rc != 0)
      return ctx_fail(c, rc, "%.*s inside \"%s{...}\" condition", STRF(c->error), def->name);
  }
  return 0;
}

const struct expand_condition_def compare_conditions[] = {
  {"<", 2, 2, 0, NULL, eval_number},
  {"<=", 2, 2, 0, NULL, eval_number},
  {"=", 2, 2, 0, NULL, eval_number},
  {"==", 2, 2, 0, NULL, eval_number},
  {">", 2, 2, 0, NULL, eval_number},
  {">=", 2, 2, 0, NULL, eval_number},
  {"and", 0, 0, EXPAND_LAZY, compile_group, eval_group},
  {"bool", 1, 1, 0, NULL, eval_bool},
  {"bool_lax", 1, 1, 0, NULL, eval_bool_lax},
  {"def", 0, 0, EXPAND_LAZY, compile_def, eval_def},
  {"eq", 2, 2, 0, NULL, eval_text},
  {"eqi", 2, 2, 0, NULL, eval_text},
  {"exists", 1, 1, 0, NULL, eval_exists},
  {"first_delivery", 0, 0, 0, NULL, eval_first_delivery},
  {"ge", 2, 2, 0, NULL, eval_text},
  {"gei", 2, 2, 0, NULL, eval_text},
  {"gt", 2, 2, 0, NULL, eval_text},
  {"gti", 2, 2, 0, NULL, eval_text},
  {"isip", 1, 1, 0, NULL, eval_isip},
  {"isip4", 1, 1, 0, NULL, eval_isip},
  {"isip6", 1, 1, 0, NULL, eval_isip},
  {"le", 2, 2, 0, NULL, eval_text},
  {"lei", 2, 2, 0, NULL, eval_text},
  {"lt", 2, 2, 0, NULL, eval_text},
  {"lti", 2, 2, 0, NULL, eval_text},
  {"match", 2, 2, 0, NULL, eval_match, prepare_match},
  {"or", 0, 0, EXPAND_LAZY, compile_group, eval_group},
  {"queue_running", 0, 0, 0, NULL, eval_queue_running},
  {0},
};
