/* String expansion: compiled to trees when the configuration is read, then
evaluated without parsing (DESIGN §3, Exim manual chapter "String
expansions"). Text known only at run time is compiled on use and cached.

A syntax error does not stop compilation: the tree holds an error node and
evaluating it fails with Exim's text. */
#pragma once

#include "base/buf.h"
#include "base/outcome.h"
#include "config/option.h"
#include "core/ctx.h"

struct expr;

/* Compiles; never NULL. The tree lives in `a` and refers to copies there.
*ret_error (may be NULL) is set to the text of the first error in it. */
const struct expr *expr_compile(struct arena *a, struct str text, struct str *ret_error);
/* Is the tree a constant (no `$`, no `\`)? Then *ret is its value. */
bool expr_is_constant(const struct expr *e, struct str *ret);
/* Compiles all option strings of a configuration; appends a warning per syntax error. */
void expand_compile_config(struct config *c);

/* Evaluates. [suspends] 0: *ret is set (in c->arena). OUTCOME_FORCED: forced failure.
OUTCOME_DEFER: a lookup deferred; OUTCOME_ERROR: anything else. c->error has Exim's text. */
int expand(struct ctx *c, const struct expr *e, struct str *ret) MUST_CHECK;
/* The same for text that is only known now. The text must not be tainted (error). */
int expand_text(struct ctx *c, struct str text, struct str *ret) MUST_CHECK;
/* Forgets the compiled texts of expand_text that are not in use. */
void expand_cache_clear(void);
/* For an option: unset gives 0 and *ret unset. */
int expand_option(struct ctx *c, const struct option_expr *o, struct str *ret) MUST_CHECK;
/* Boolean and integer options that are expanded; `what` names the option for the error text. *ret keeps its value when the
option is not set or expansion was forced to fail. */
int expand_option_bool(struct ctx *c, const struct option_expr *o, const char *what, bool *ret) MUST_CHECK;
int expand_option_int(struct ctx *c, const struct option_expr *o, const char *what, int64_t *ret) MUST_CHECK;
/* Integer with K/M/G and arithmetic rules of the manual's numeric comparisons. */
int expand_to_int(struct ctx *c, struct str text, int64_t *ret) MUST_CHECK;

/* What a filter's strings may not use (forbid_filter_… of the redirect router). */
#define EXPAND_FORBID_DLFUNC 1u
#define EXPAND_FORBID_EXISTS 2u
#define EXPAND_FORBID_LOOKUP 4u
#define EXPAND_FORBID_PERL 8u
#define EXPAND_FORBID_READFILE 16u
#define EXPAND_FORBID_READSOCKET 32u
#define EXPAND_FORBID_RUN 64u
/* Is it forbidden here? Then c->error says so. */
static inline bool expand_forbidden(struct ctx *c, unsigned what, const char *text) {
  if (!c->filter || !(c->filter->forbid & what))
    return false;
  c->error = str_c(text);
  return true;
}

/* --- what modules add --- */

struct variable_def {
  const char *name;  /* without `$` */
  /* Sets *ret (in c->arena or longer-lived); 0, OUTCOME_FORCED, DEFER or ERROR. May suspend. */
  int (*get)(struct ctx *c, const struct variable_def *def, struct str *ret);
  size_t offset;     /* for the ready-made getters below */
  unsigned flags;    /* of the getter's own */
  /* For `set` in ACLs: 0, DEFER or ERROR with c->error. NULL: it cannot be set. */
  int (*set)(struct ctx *c, const struct variable_def *def, struct str value);
};
/* The variable of that name (without `$`) if ACLs can set it, or NULL. */
const struct variable_def *variable_settable(struct str name);
/* Ready-made getters: offset is that of a struct str in struct ctx / struct client / struct message. */
int variable_get_ctx(struct ctx *c, const struct variable_def *def, struct str *ret);
int variable_get_client(struct ctx *c, const struct variable_def *def, struct str *ret);
int variable_get_message(struct ctx *c, const struct variable_def *def, struct str *ret);
int variable_get_empty(struct ctx *c, const struct variable_def *def, struct str *ret);

/* An item ${name…}. With `syntax` NULL the item takes {arg}{arg}…: between min and max of them, all evaluated before
`eval` sees them (EXPAND_LAZY: eval evaluates what it needs with expand_arg). */
struct expand_args {
  const struct expr *const *tree;
  struct str *value;     /* evaluated, unless lazy */
  int n;
  const void *custom;    /* what `compile` made */
  const struct expand_branches *branches; /* of EXPAND_YES_NO items */
};
#define EXPAND_LAZY 1u
#define EXPAND_YES_NO 2u /* takes {yes}{no} or fail after its arguments, as lookup, extract, run: see expand_yes_no */
#define EXPAND_LATER 4u  /* known, refused with "not supported yet" */
#define EXPAND_DIGEST 8u /* an operator: hexadecimal digits of a digest */
struct expand_compiler;

/* {yes}{no}, {yes}fail, {yes} or nothing. */
struct expand_branches {
  const struct expr *yes, *no; /* NULL: not given */
  bool fail;
};
/* Adds what the branches say: on success {yes}, or `value` when there is none; else {no}, or forced failure in the name
of `name`. $value and the captures are the caller's to set and restore (expand_scope). [suspends] */
int expand_yes_no(struct ctx *c, const struct expand_args *args, const char *name, bool success, struct str value,
    struct buf *out) MUST_CHECK;
/* Evaluates a tree: the value in c->arena. [suspends] */
int expand_arg(struct ctx *c, const struct expr *e, struct str *ret) MUST_CHECK;
int expand_add(struct ctx *c, const struct expr *e, struct buf *out) MUST_CHECK;
struct expand_scope;
/* Saves $value, $item and the captures and gives them back; $runrc stays as it was set between. */
struct expand_scope *expand_scope_begin(struct ctx *c);
void expand_scope_end(struct ctx *c, struct expand_scope *saved);
struct expand_item_def {
  const char *name;
  int min_args, max_args;
  unsigned flags;
  /* Own syntax: reads from the compiler behind the name; returns what eval gets as args->custom; NULL after expand_compile_error. */
  const void *(*compile)(struct expand_compiler *k, const struct expand_item_def *def);
  /* Adds the value to out. 0 or an outcome. */
  int (*eval)(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out);
};
struct expand_operator_def {
  const char *name;
  unsigned flags;
  bool takes_arg;  /* ${name_arg:…} */
  int (*eval)(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str subject, struct buf *out);
};
struct expand_condition_def {
  const char *name;
  int min_args, max_args;
  unsigned flags;
  const void *(*compile)(struct expand_compiler *k, const struct expand_condition_def *def);
  int (*eval)(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret);
  /* With {string}s and no `compile`: what can be made of them once and for all, for args->custom. May be NULL. */
  const void *(*prepare)(struct arena *a, const struct expand_args *args);
};

/* --- for `compile` functions: reading the text behind a name --- */

/* The next byte, behind white space; 0 at the end. */
char expand_peek(struct expand_compiler *k);
/* Takes the next byte, behind white space, if it is c. */
bool expand_accept(struct expand_compiler *k, char c);
/* What is left of the text. */
struct str expand_rest(struct expand_compiler *k);
void expand_advance(struct expand_compiler *k, size_t n);
/* A string up to the `}` that closes it, which is taken; the `{` has been. NULL after an error. */
const struct expr *expand_compile_string(struct expand_compiler *k);
/* The same where `$` is not special (lists of match_…): only escapes and \N are. */
const struct expr *expand_compile_plain(struct expand_compiler *k);
/* The {yes}{no} of item `name` and the `}` that closes the item. NULL after an error. */
const struct expand_branches *expand_compile_branches(struct expand_compiler *k, const char *name);
/* A condition, as behind ${if. NULL after an error. */
struct expand_condition;
const struct expand_condition *expand_compile_condition(struct expand_compiler *k);
int expand_condition(struct ctx *c, const struct expand_condition *cond, bool *ret) MUST_CHECK; /* [suspends] */
/* Is the text being read one that is always read before it is evaluated (the last argument of map, forany …)? */
bool expand_compiler_skipping(struct expand_compiler *k, bool set);
/* Sets the error (the first one stays), returns NULL. */
void *expand_compile_error(struct expand_compiler *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds ` inside "map" item` and the like to the error. */
void *expand_compile_inside(struct expand_compiler *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
