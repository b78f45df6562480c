/* The rules of `begin retry`, and finding the one that fits (Exim manual,
sections "Format of retry rules" and following). */
#pragma once

#include <stdio.h>
#include "config/config.h"
#include "core/ctx.h"

/* more_errno of a failure: which kind of host it was ('A' or 'M', low byte), was it the connection that timed out, and
for 4xx replies the second and third digit (as a number below 100) in the next byte. */
#define RETRY_HOST_MASK 0xff
#define RETRY_CONNECT_TIMEOUT 0x100
#define RETRY_CODE_SHIFT 8
/* In rules: any digits. */
#define RETRY_ANY_DIGITS 255
#define RETRY_ANY_SECOND 100 /* + first digit * 10: the second is any */

struct retry_param {
  char letter;        /* F, G, H */
  int64_t cutoff;     /* seconds since the first failure */
  int64_t interval;
  int64_t factor;     /* thousandths, of G and H */
};

struct retry_rule {
  struct option_expr pattern;
  int basic_errno;    /* 0: any */
  int more_errno;
  struct option_expr senders; /* text unset: any */
  struct retry_param *v;
  size_t n;
  struct retry_rule *next;
};

/* The first rule that fits. `key` is a domain or an address, `alternate` (may be unset) a second one that each rule is
tried with; `sender` unset: rules with a list of senders do not fit. NULL: none. [suspends] */
const struct retry_rule *retry_rule_find(struct ctx *c, struct str key, struct str alternate, int basic_errno,
  int more_errno, struct str sender);
/* Seconds after which the rule gives up; 0 when it has no parameters. */
int64_t retry_rule_cutoff(const struct retry_rule *rule);
/* An error's name. 0, or OUTCOME_ERROR with *ret_error. */
int retry_error_parse(struct arena *a, struct str name, int *ret_basic, int *ret_more, struct str *ret_error);

/* -brt: `words` are its arguments, `sender` that of -f or unset. Exit status. */
int retry_test(struct ctx *c, const struct str *words, size_t n, struct str sender, FILE *out);
