/* What the SQL types have in common: the text of a result (manual, "SQL lookups"), quoting, names of hosts. */
#pragma once

#include "base/buf.h"
#include "core/ctx.h"

#define SQL_RESULT_MAX (32u << 20)

/* "name=value " of a row with several columns: quoted when empty or with blanks, or when it begins with a quote. */
void sql_add_field(struct buf *b, const char *name, struct str value);
/* Newline, tab, carriage return, backspace and NUL become escapes, quotes and the backslash get a backslash; with `doubled`
a single quote is doubled. An option is refused. */
int sql_quote(struct ctx *c, const char *type, bool doubled, struct str text, struct str option, struct buf *out);
/* The addresses of a host, separated by commas, found in an offload thread. [suspends] 0, or OUTCOME_DEFER (c->error,
which begins with `title`). An address is its own. */
int sql_resolve(struct ctx *c, const char *title, struct str host, struct str *ret) MUST_CHECK;
