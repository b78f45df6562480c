/* ldapauth: a password checked by an LDAP server. */
#include "expand/conditions.h"

#include "expand/internal.h"
#include "lookup/lookup.h"

static int eval_ldapauth(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct lookup_def *ldap = lookup_by_name(STR("ldap"));
  if (ldap == NULL || ldap->auth == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "condition \"ldapauth\" is not supported: this program was built without libldap");
  int r = ldap->auth(c, args->value[0]);
  *ret = r == OUTCOME_OK;
  return r == OUTCOME_FAIL ? OUTCOME_OK : r;
}

const struct expand_condition_def ldap_conditions[] = {
  {"ldapauth", 1, 1, 0, NULL, eval_ldapauth},
  {0},
};
