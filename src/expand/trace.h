/* Evaluation as a tree, for people: -d+expand (manual, "-d<debug options>"; noutf8 keeps it to ASCII) and `martlet explain`. */
#pragma once

#include <stdio.h>
#include "expand/internal.h"
#include "log/log.h"

/* Where the tree of `martlet explain` goes; NULL: nowhere. Of this process. */
struct trace_view {
  FILE *out;
  bool colour;
};
extern const struct trace_view *trace_view;

static inline bool trace_on(void) { return debug_on(DEBUG_expand) || trace_view != NULL; }

/* Around the evaluation of a tree, at the level c->depth; a tree without nodes shows too. */
void trace_begin(struct ctx *c, const struct expr *e);
void trace_end(struct ctx *c, const struct expr *e, int rc, struct str value);
/* In front of a node, and behind it. */
void trace_node(struct ctx *c, const struct node *n);
void trace_node_end(struct ctx *c, const struct node *n, int rc, struct str value);
/* A condition was evaluated; args as far as they were. */
void trace_condition(struct ctx *c, const char *name, bool negated, const struct expand_args *args, bool result);
