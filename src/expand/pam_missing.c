/* The condition pam where libpam was not there at build time: known, and refused with the library's name. */
#include "expand/foreign.h"
#include "expand/internal.h"
#include "expand/modules.h"

static int eval_missing(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  return ctx_fail(c, OUTCOME_ERROR, "condition \"pam\" is not supported: this program was built without libpam");
}

static const struct expand_condition_def conditions[] = {
  {"pam", 1, 1, 0, NULL, eval_missing},
  {0},
};

const struct foreign_role pam_role = {.name = "pam"};

const struct module expand_pam_module = {
  .name = "expand-pam",
  .summary = "passwords checked by PAM (built without libpam)",
  .conditions = conditions,
};
