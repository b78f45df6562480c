#include "expand/internal.h"

#include "base/ascii.h"
#include "expand/trace.h"

/* Only the captures in use are kept: most often there are none. */
struct expand_scope {
  struct str item, value;
  int captures;
  struct str capture[];
};

struct expand_scope *expand_scope_begin(struct ctx *c) {
  size_t n = (size_t)c->expand.captures;
  struct expand_scope *s = arena_alloc_raw(c->arena, sizeof *s + n * sizeof *s->capture);
  s->item = c->expand.item;
  s->value = c->expand.value;
  s->captures = (int)n;
  memcpy(s->capture, c->expand.capture, n * sizeof *s->capture);
  return s;
}

void expand_scope_end(struct ctx *c, struct expand_scope *s) {
  c->expand.item = s->item;
  c->expand.value = s->value;
  memcpy(c->expand.capture, s->capture, (size_t)s->captures * sizeof *s->capture);
  c->expand.captures = s->captures;
}

uint32_t expand_steps_max = EXPAND_MAX_STEPS;

int expand_out_of_budget(struct ctx *c) {
  if (c->expand_steps > expand_steps_max)
    return ctx_fail(c, OUTCOME_ERROR, "expansion takes more than %u steps", expand_steps_max);
  return ctx_fail(c, OUTCOME_ERROR, "expansion needs more than %u MiB of memory", EXPAND_MAX_MEMORY >> 20);
}

static void start_budget(struct ctx *c) {
  c->expand_steps = 0;
  c->expand_start = c->arena->below;
}

static __attribute__((noinline, cold)) int eval_error(struct ctx *c, const struct node *n) {
  for (int i = 0; i < n->error.n; i++) {
    struct str ignored;
    int rc = expand_arg(c, n->error.before[i], &ignored);
    if (rc != 0)
      return rc;
  }
  return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(n->error.text));
}

static int eval_item(struct ctx *c, const struct node *n, struct buf *out) {
  const struct expand_item_def *def = n->item.def;
  if (def->flags & EXPAND_LATER)
    return ctx_fail(c, OUTCOME_ERROR, "\"${%s\" is not supported yet", def->name);
  struct expand_args args = n->item.args;
  if (args.n > 0 && !(def->flags & EXPAND_LAZY)) {
    args.value = arena_alloc_raw(c->arena, (size_t)args.n * sizeof *args.value);
    for (int i = 0; i < args.n; i++) {
      int rc = expand_arg(c, args.tree[i], &args.value[i]);
      if (rc != 0)
        return rc;
    }
  }
  return def->eval(c, def, &args, out);
}

static int eval_operator(struct ctx *c, const struct node *n, struct buf *out) {
  const struct expand_operator_def *def = n->op.def;
  if (def->flags & EXPAND_LATER)
    return ctx_fail(c, OUTCOME_ERROR, "expansion operator \"%s\" is not supported yet", def->name);
  struct str subject;
  int rc = expand_arg(c, n->op.subject, &subject);
  if (rc != 0)
    return rc;
  size_t from = out->len;
  rc = def->eval(c, def, n->op.arg, subject, out);
  /* The fingerprint of a certificate is in upper case with each digest. */
  if ((def->flags & EXPAND_DIGEST) && variable_is_certificate(n->op.subject))
    for (; from < out->len; from++)
      out->p[from] = ascii_upper(out->p[from]);
  return rc;
}

/* Nodes that are a value without being built. */
int node_value(struct ctx *c, const struct node *n, struct str *ret) {
  switch (n->kind) {
  case NODE_TEXT:
    *ret = n->text;
    return 0;
  case NODE_CAPTURE: {
    bool is_set = n->capture < c->expand.captures && str_is_set(c->expand.capture[n->capture]);
    *ret = is_set ? c->expand.capture[n->capture] : STR_EMPTY;
    return 0;
  }
  case NODE_VARIABLE: {
    *ret = STR_EMPTY;
    int rc = n->variable->get(c, n->variable, ret);
    if (rc == 0 && !str_is_set(*ret))
      *ret = STR_EMPTY;
    return rc;
  }
  case NODE_ACL_VARIABLE:
    *ret = STR_EMPTY;
    return variable_acl(c, n->text, ret);
  case NODE_ROUTER_VARIABLE:
    *ret = STR_EMPTY;
    return variable_router(c, n->text, ret);
  default:
    *ret = STR_EMPTY;
    return n->kind == NODE_ERROR ? eval_error(c, n) : OUTCOME_FAIL;
  }
}

static int eval_node(struct ctx *c, const struct node *n, struct buf *out) {
  int rc;
  switch (n->kind) {
  case NODE_ITEM:
    rc = eval_item(c, n, out);
    break;
  case NODE_OPERATOR:
    rc = eval_operator(c, n, out);
    break;
  case NODE_HEADER:
    rc = header_expand(c, n->header.form, n->header.name, out);
    break;
  default: {
    struct str value;
    rc = node_value(c, n, &value);
    if (rc == 0)
      buf_add(out, value);
  }
  }
  return rc;
}

static int eval_node_traced(struct ctx *c, const struct node *n, struct buf *out) {
  size_t from = out->len;
  trace_node(c, n);
  int rc = eval_node(c, n, out);
  trace_node_end(c, n, rc, str_n(out->p != NULL ? out->p + from : "", out->len - from));
  return rc;
}

/* As expand_arg, shown; the tree gets a buffer of its own. */
static __attribute__((noinline)) int expand_traced(struct ctx *c, const struct expr *e, struct str *ret) {
  struct buf out;
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  if (c->depth == 0)
    start_budget(c);
  c->depth++;
  trace_begin(c, e);
  int rc = c->depth > EXPAND_MAX_DEPTH ? ctx_fail(c, OUTCOME_ERROR, "expansion is nested too deeply") : expand_step(c);
  for (uint32_t i = 0; i < e->n && rc == 0; i++)
    rc = eval_node_traced(c, &e->nodes[i], &out);
  if (rc == 0 && out.overflow)
    rc = ctx_fail(c, OUTCOME_ERROR, "expansion result is too long");
  *ret = rc == 0 ? buf_str(&out) : STR_EMPTY;
  trace_end(c, e, rc, *ret);
  c->depth--;
  return rc;
}

static int add_nodes(struct ctx *c, const struct expr *e, struct buf *out) {
  if (c->depth >= EXPAND_MAX_DEPTH)
    return ctx_fail(c, OUTCOME_ERROR, "expansion is nested too deeply");
  if (c->depth == 0)
    start_budget(c);
  int rc = expand_step(c);
  if (rc != 0)
    return rc;
  c->depth++;
  for (const struct node *n = e->nodes, *end = n + e->n; n < end && rc == 0; n++) {
    if (n->kind == NODE_TEXT)
      buf_add(out, n->text);
    else
      rc = eval_node(c, n, out);
  }
  c->depth--;
  if (rc == 0 && out->overflow)
    rc = ctx_fail(c, OUTCOME_ERROR, "expansion result is too long");
  return rc;
}

static __attribute__((noinline)) int add_traced(struct ctx *c, const struct expr *e, struct buf *out) {
  struct str value;
  int rc = expand_traced(c, e, &value);
  if (rc == 0)
    buf_add(out, value);
  return rc;
}

int expand_add(struct ctx *c, const struct expr *e, struct buf *out) {
  return __builtin_expect(trace_on(), 0) ? add_traced(c, e, out) : add_nodes(c, e, out);
}

static __attribute__((noinline)) int expand_built(struct ctx *c, const struct expr *e, struct str *ret) {
  *ret = STR_EMPTY;
  if (e->n == 0)
    return 0;
  struct buf out;
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  int rc = add_nodes(c, e, &out);
  if (rc == 0)
    *ret = buf_str(&out);
  return rc;
}

int expand_arg(struct ctx *c, const struct expr *e, struct str *ret) {
  if (__builtin_expect(trace_on(), 0))
    return expand_traced(c, e, ret);
  const struct node *n = e->nodes;
  if (e->n == 1 && n->kind == NODE_TEXT) {
    *ret = n->text;
    return 0;
  }
  return e->n == 1 && n->kind < NODE_HEADER ? node_value(c, n, ret) : expand_built(c, e, ret);
}

int expand(struct ctx *c, const struct expr *e, struct str *ret) {
  struct str value;
  /* Options that are constant are not worth showing. */
  int rc = expr_is_constant(e, &value) ? 0 : expand_arg(c, e, &value);
  if (rc == 0)
    *ret = value;
  return rc;
}

int expand_yes_no(struct ctx *c, const struct expand_args *args, const char *name, bool success, struct str value,
    struct buf *out) {
  const struct expand_branches *b = args->branches;
  if (success) {
    if (b->yes != NULL)
      return expand_add(c, b->yes, out);
    buf_add(out, value);
    return 0;
  }
  if (b->no != NULL)
    return expand_add(c, b->no, out);
  if (b->fail)
    return ctx_fail(c, OUTCOME_FORCED, "\"%s\" failed and \"fail\" requested", name);
  return 0;
}

int expand_option(struct ctx *c, const struct option_expr *o, struct str *ret) {
  if (!str_is_set(o->text)) {
    *ret = STR_UNSET;
    return 0;
  }
  return o->tree != NULL ? expand(c, o->tree, ret) : expand_text(c, o->text, ret);
}
