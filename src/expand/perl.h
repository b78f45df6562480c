/* Embedded Perl (Exim manual, chapter of that name). The interpreter is a program of its own, so that a subroutine that crashes,
exits or never ends costs the call and not the worker. */
#pragma once

#include "core/ctx.h"

/* What the helper runs (perl -e). */
extern const char perl_script[];

/* What subroutines print goes to our standard output, as it does in tests of expansions; else nowhere. */
void perl_show_output(void);
/* perl_at_start, -ps: starts an interpreter now, if the configuration has perl_startup. [suspends] 0 or OUTCOME_ERROR with
c->error. */
int perl_start_early(struct ctx *c);
