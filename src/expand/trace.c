#include "expand/trace.h"

#include "base/buf.h"
#include "log/mask.h"

#define TRACE_MAX_LINE 4096
#define LABEL_WIDTH 11
#define ERROR_WIDTH 16

const struct trace_view *trace_view;

/* The corner that a line begins with, and how a view colours its text. */
enum corner { CORNER_TOP, CORNER_MIDDLE, CORNER_END };
enum tint { TINT_NONE, TINT_RESULT, TINT_ERROR };

static const char *const utf8_corner[] = {"╭", "├", "╰"};
static const char *const ascii_corner[] = {"/", "|", "\\"};
static const char *const tint_start[] = {"", "\033[32m", "\033[31m"};

/* Line ends and other control characters would break the tree. */
static void add_text(struct buf *b, struct str text, bool utf8) {
  for (size_t i = 0; i < text.len && b->len < TRACE_MAX_LINE; i++) {
    unsigned char ch = (unsigned char)text.p[i];
    if (ch == '\n')
      buf_add_c(b, utf8 ? "↩" : "\\n");
    else if (ch < 32 || ch == 127)
      buf_printf(b, "\\%03o", ch);
    else
      buf_add_byte(b, (char)ch);
  }
  if (b->len >= TRACE_MAX_LINE)
    buf_add_c(b, " ...");
}

/* While a client authenticates every value may be a password, or hold one. */
static struct str secret(const struct ctx *c, struct str value) { return c->authenticator != NULL ? STR("****") : value; }

static void line(struct ctx *c, enum corner corner, int width, const char *label, enum tint tint, struct str text) {
  bool utf8 = !debug_on(DEBUG_noutf8), colour = trace_view != NULL && trace_view->colour;
  struct buf b;
  buf_init(&b, c->arena, 4 * TRACE_MAX_LINE);
  buf_printf(&b, "%*s%s%s", c->depth, "", colour ? "\033[2m" : "", (utf8 ? utf8_corner : ascii_corner)[corner]);
  for (int i = (int)strlen(label); i < width; i++)
    buf_add_c(&b, utf8 ? "─" : "-");
  buf_add_c(&b, label);
  if (str_is_set(text)) {
    buf_printf(&b, ": %s%s", colour ? "\033[0m" : "", colour ? tint_start[tint] : "");
    add_text(&b, log_masked(c->arena, text), utf8);
  }
  buf_add_c(&b, colour ? "\033[0m\n" : "\n");
  struct str s = buf_str(&b);
  if (trace_view != NULL)
    fwrite(s.p, 1, s.len, trace_view->out);
  else
    debug_print(DEBUG_expand, "%.*s", STRF(s));
}

void trace_begin(struct ctx *c, const struct expr *e) { line(c, CORNER_TOP, LABEL_WIDTH, "considering", TINT_NONE, secret(c, e->source)); }

void trace_end(struct ctx *c, const struct expr *e, int rc, struct str value) {
  if (rc != 0) {
    bool forced = rc == OUTCOME_FORCED;
    line(c, CORNER_MIDDLE, ERROR_WIDTH, "failed to expand", TINT_NONE, secret(c, e->source));
    line(c, forced ? CORNER_MIDDLE : CORNER_END, ERROR_WIDTH, "error message", TINT_ERROR,
        str_is_set(c->error) ? secret(c, c->error) : STR_EMPTY);
    if (forced)
      line(c, CORNER_END, 0, "failure was forced", TINT_NONE, STR_UNSET);
    return;
  }
  bool tainted = str_is_tainted(value);
  line(c, CORNER_MIDDLE, LABEL_WIDTH, "expanded", TINT_NONE, secret(c, e->source));
  line(c, tainted ? CORNER_MIDDLE : CORNER_END, LABEL_WIDTH, "result", TINT_RESULT, secret(c, value));
  if (tainted)
    line(c, CORNER_END, LABEL_WIDTH, "(tainted)", TINT_NONE, STR_UNSET);
}

void trace_node(struct ctx *c, const struct node *n) {
  if (n->kind == NODE_ITEM)
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "item", TINT_NONE, str_c(n->item.def->name));
  else if (n->kind == NODE_OPERATOR)
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "operator", TINT_NONE,
        str_is_set(n->op.arg) ? str_printf(c->arena, "%s_%.*s", n->op.def->name, STRF(n->op.arg)) : str_c(n->op.def->name));
}

static struct str reference(struct ctx *c, const struct node *n) {
  static const char *const forms[] = {
      [HEADER_DECODED] = "h", [HEADER_BASIC] = "bh", [HEADER_RAW] = "rh", [HEADER_LIST] = "lh"};
  switch (n->kind) {
  case NODE_VARIABLE:
    return str_printf(c->arena, "$%s", n->variable->name);
  case NODE_CAPTURE:
    return str_printf(c->arena, "$%d", n->capture);
  case NODE_HEADER:
    return str_printf(c->arena, "$%s_%.*s:", forms[n->header.form], STRF(n->header.name));
  default:
    return str_printf(c->arena, "$%.*s", STRF(n->text));
  }
}

void trace_node_end(struct ctx *c, const struct node *n, int rc, struct str value) {
  if (rc != 0)
    return; /* the tree's end tells */
  value = secret(c, value);
  switch (n->kind) {
  case NODE_TEXT:
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "text", TINT_NONE, value);
    break;
  case NODE_ITEM:
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "item-res", TINT_RESULT, value);
    break;
  case NODE_OPERATOR:
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "op-res", TINT_RESULT, value);
    break;
  default:
    line(c, CORNER_MIDDLE, LABEL_WIDTH, "value", TINT_NONE,
        str_printf(c->arena, "%.*s = %.*s", STRF(reference(c, n)), STRF(value)));
  }
}

void trace_condition(struct ctx *c, const char *name, bool negated, const struct expand_args *args, bool result) {
  struct buf b;
  buf_init(&b, c->arena, 4 * TRACE_MAX_LINE);
  buf_printf(&b, "%s%s", negated ? "!" : "", name);
  for (int i = 0; args->value != NULL && i < args->n; i++)
    buf_printf(&b, "{%.*s}", STRF(secret(c, str_slice(args->value[i], 0, TRACE_MAX_LINE / 4))));
  line(c, CORNER_MIDDLE, LABEL_WIDTH, "condition", TINT_NONE, buf_str(&b));
  line(c, CORNER_MIDDLE, LABEL_WIDTH, "result", TINT_RESULT, result ? STR("true") : STR("false"));
}
