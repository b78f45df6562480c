/* match_domain and its kin. */
#include "expand/conditions.h"

#include "base/ip.h"
#include "expand/internal.h"
#include "match/match.h"

/* The list is not expanded (manual, match_local_part); it is kept as an option is, so that it is compiled once. */
struct match_list {
  const struct expr *subject;
  struct option_expr list;
};

static enum list_kind kind_of(const struct expand_condition_def *def) {
  switch (def->name[strlen("match_")]) {
  case 'a':
    return LIST_ADDRESS;
  case 'd':
    return LIST_DOMAIN;
  case 'i':
    return LIST_HOST;
  default:
    return LIST_LOCAL_PART;
  }
}

static const void *compile_match_list(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct match_list *m = arena_new_of(k->arena, struct match_list);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"%s\"", def->name);
  if ((m->subject = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing 2nd string in {} after \"%s\"", def->name);
  m->list.tree = expand_compile_plain(k);
  if (m->list.tree == NULL)
    return NULL;
  if (!expr_is_constant(m->list.tree, &m->list.text))
    return NULL;
  /* A list of IP addresses is a host list, and those are expanded when they are looked at. */
  enum list_kind kind = kind_of(def);
  if (kind == LIST_HOST)
    m->list.tree = expr_compile(k->arena, m->list.text, NULL);
  if (kind != LIST_HOST || (str_find_byte(m->list.text, '$') < 0 && str_find_byte(m->list.text, '\\') < 0))
    match_compile(k->arena, kind, &m->list);
  return m;
}

static int eval_match_list(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct match_list *m = args->custom;
  struct str subject, data = STR_UNSET;
  int rc = expand_arg(c, m->subject, &subject);
  if (rc != 0)
    return rc;
  switch (kind_of(def)) {
  case LIST_ADDRESS:
    rc = match_address(c, &m->list, subject, false, &data);
    break;
  case LIST_DOMAIN:
    rc = match_domain(c, &m->list, subject, &data);
    break;
  case LIST_HOST: {
    struct ip_addr ip;
    if (subject.len > 0 && !ip_parse(subject, &ip))
      return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not an IP address", STRF(subject));
    rc = match_ip(c, &m->list, subject, &data);
    break;
  }
  default:
    rc = match_local_part(c, &m->list, subject, false, &data);
  }
  if (rc == OUTCOME_DEFER || rc == OUTCOME_ERROR)
    return ctx_fail(
        c, rc, "unable to complete match against \"%.*s\": %.*s", STRF(m->list.text), STRF(c->error));
  *ret = rc == OUTCOME_OK;
  if (*ret)
    c->expand.value = str_is_set(data) ? data : STR_EMPTY;
  return 0;
}

const struct expand_condition_def match_conditions[] = {
  {"match_address", 0, 0, EXPAND_LAZY, compile_match_list, eval_match_list},
  {"match_domain", 0, 0, EXPAND_LAZY, compile_match_list, eval_match_list},
  {"match_ip", 0, 0, EXPAND_LAZY, compile_match_list, eval_match_list},
  {"match_local_part", 0, 0, EXPAND_LAZY, compile_match_list, eval_match_list},
  {0},
};
