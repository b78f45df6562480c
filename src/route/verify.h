/* EXPN and the address tests of the command line. verify_address() itself is
in route.h. */
#pragma once

#include <stdio.h>
#include "base/map.h"
#include "route/route.h"

/* Follows `address` to where it leads to several, and calls line() for each of them in the words of an EXPN reply:
"<a@b>"; or for the one that goes nowhere: "a@b is undeliverable". [suspends] */
enum outcome route_expand(struct ctx *c, struct str address, void (*line)(void *arg, struct str text), void *arg);

enum route_test_kind { ROUTE_TEST_BT, ROUTE_TEST_BV, ROUTE_TEST_BVS };

struct route_test {
  enum route_test_kind kind;
  bool verbose;      /* -v or -d: -bv lists all that the addresses lead to */
  FILE *out;
  struct map *seen;  /* duplicates; made when it is NULL */
  int exit_code;     /* out: 0; 1 something could not be told; 2 something failed */
};

/* One argument of -bt, -bv, -bvs (a list of addresses). Prints as the manual and Exim do. Returns t->exit_code. [suspends] */
int route_test_addresses(struct ctx *c, struct route_test *t, struct str text);
