/* The trees of compiled strings, shared by compile*.c and eval.c. */
#pragma once

#include "base/buf.h"
#include "base/vec.h"
#include "core/module.h"
#include "expand/expand.h"

enum header_form { HEADER_DECODED, HEADER_BASIC, HEADER_RAW, HEADER_LIST };

enum node_kind {
  /* A value without being built: node_value(). */
  NODE_TEXT,
  NODE_CAPTURE,
  NODE_VARIABLE,
  NODE_ACL_VARIABLE,
  NODE_ROUTER_VARIABLE,
  NODE_ERROR,
  /* Built in a buffer. */
  NODE_HEADER,
  NODE_ITEM,
  NODE_OPERATOR,
};

struct node {
  enum node_kind kind;
  union {
    struct str text;                 /* TEXT; the name of ACL_VARIABLE and ROUTER_VARIABLE */
    int capture;
    const struct variable_def *variable;
    struct {
      enum header_form form;
      struct str name;
    } header;
    struct {
      const struct expand_item_def *def;
      struct expand_args args;
    } item;
    struct {
      const struct expand_operator_def *def;
      struct str arg;                /* behind the underscore; unset: none */
      const struct expr *subject;
    } op;
    struct {
      struct str text;
      const struct expr *const *before; /* arguments in front of the error: their own errors come first */
      int n;
    } error;
  };
};

struct expr {
  struct node *nodes;
  uint32_t n;
  struct str source; /* as written */
};

/* Deeper nesting of braces is an error, and so is deeper evaluation. */
#define EXPAND_MAX_DEPTH 128
/* Trees, conditions and list items that one expansion may evaluate, and what it may leave in the arena meanwhile: nested
`map` multiply. */
#define EXPAND_MAX_STEPS 5000000u
#define EXPAND_MAX_MEMORY (256u << 20)
/* Arguments of one item or condition. */
#define EXPAND_MAX_ARGS 12
/* Names longer than this are cut, as Exim does. */
#define EXPAND_MAX_NAME 255

struct expand_compiler {
  struct arena *arena;
  const char *p, *end;
  struct str error; /* unset: none yet */
  int depth;
  bool malformed_header, skipping;
};

/* compile.c */
const struct expr *compile_sequence(struct expand_compiler *k, bool to_brace, bool plain);
/* The header reference that begins with `name`, a part of k's text: reads the rest of it. False: it is none. */
bool compile_header(struct expand_compiler *k, struct str name, struct node *ret);
/* The variable of that name. False: there is none, and *ret_why says more about names that begin with acl_. */
bool compile_reference(struct expand_compiler *k, struct str name, struct node *ret, const char **ret_why);
/* Name characters at the cursor: letters, digits, underscores and those in `extra`. */
struct str compile_name(struct expand_compiler *k, const char *extra);
void compile_skip_space(struct expand_compiler *k);

/* compile_item.c: behind `${`. False after an error; *ret is filled all the same when it is an error node. */
bool compile_braced(struct expand_compiler *k, struct node *ret);

/* names.c: what the modules add. */
const struct variable_def *find_variable(struct str name);
const struct expand_item_def *find_item(struct str name);
const struct expand_operator_def *find_operator(struct str name);
const struct expand_condition_def *find_condition(struct str name);

/* variables.c */
int variable_acl(struct ctx *c, struct str name, struct str *ret);
int variable_router(struct ctx *c, struct str name, struct str *ret);

/* variables_tls.c: is the string one certificate variable, and nothing else? */
bool variable_is_certificate(const struct expr *e);

/* headers.c */
int header_expand(struct ctx *c, enum header_form form, struct str name, struct buf *out);
bool header_exists(struct ctx *c, struct str name);

/* items_string.c: for a match that was given up. */
int regex_limit_error(struct ctx *c, struct str pattern);

/* eval.c */
extern uint32_t expand_steps_max; /* EXPAND_MAX_STEPS; less in fuzz targets, whose machines are slow */
/* Counts one step of the work; an error when the expansion has used up its own. */
int expand_out_of_budget(struct ctx *c);
MUST_CHECK static inline int expand_step(struct ctx *c) {
  /* In whole chunks, which is cheaper to know than the bytes that are in use. */
  ptrdiff_t more = (ptrdiff_t)(c->arena->below - c->expand_start);
  if (__builtin_expect(++c->expand_steps > expand_steps_max || more > (ptrdiff_t)EXPAND_MAX_MEMORY, 0))
    return expand_out_of_budget(c);
  return 0;
}
int node_value(struct ctx *c, const struct node *n, struct str *ret);
