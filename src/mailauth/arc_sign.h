/* ARC sets for messages that go out (RFC 8617, section 5.1). */
#pragma once

#include "mailauth/arc.h"
#include "mailauth/sign.h"

/* What was found when the message was received. */
struct arc_verdict {
  enum arc_state state;
  int sets, oldest_pass;
  struct str reason;
};
/* Of the context's message; NULL: it has none. */
const struct arc_verdict *arc_verdict_of(const struct ctx *c);

/* Who sealed instance i; false: its seal does not say. */
bool arc_seal_names(const struct ctx *c, int i, struct str *ret_domain, struct str *ret_selector);

struct arc_sign;
/* Expands arc_sign and says which hash is wanted. *ret is NULL when nothing is to be sealed, and after trouble, which has been
logged: without ARC a message goes as well. OUTCOME_OK; OUTCOME_DEFER with c->error: its option `strict` is set. [suspends] */
int arc_sign_prepare(struct sign_job *j, const struct option_expr *option, struct arc_sign **ret) MUST_CHECK;
/* The three fields for a header that has all else, once the hashes are done; empty: it cannot be sealed; unset: and
must not go without, which has been logged. */
struct str arc_sign_fields(struct sign_job *j, const struct arc_sign *s, const struct sign_fields *f);
