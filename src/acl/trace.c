/* What an ACL does, told while it does it: in the words of Exim's -bh and -d,
and to an observer (martlet explain --session). */
#include "acl/internal.h"
#include "core/module.h"
#include "log/log.h"

static void tell(struct ctx *c, const struct acl_event *e) {
  const struct acl_session *s = acl_session(c);
  if (s && s->observer)
    s->observer->event(s->observer->arg, c, e);
}

static struct str title(struct ctx *c, const struct acl *acl) {
  return acl->name.len ? str_printf(c->arena, "ACL %.*s", STRF(acl->name)) : STR("inline ACL");
}

void acl_trace_begin(struct ctx *c, const struct acl *acl, struct str text) {
  if (acl && acl->name.len)
    DEBUG(acl, "using ACL \"%.*s\"\n", STRF(acl->name));
  else if (!acl)
    DEBUG(acl, "ACL \"\" is empty: implicit DENY\n");
  tell(c, &(struct acl_event){.kind = ACL_EVENT_BEGIN, .acl = acl, .value = text});
}

void acl_trace_statement(struct ctx *c, const struct acl *acl, const struct acl_statement *s) {
  DEBUG(acl, "processing %.*s \"%s\" (%.*s %u)\n", STRF(title(c, acl)), acl_verbs[s->verb], STRF(acl->source), s->line);
  tell(c, &(struct acl_event){.kind = ACL_EVENT_STATEMENT, .acl = acl, .statement = s});
}

/* As it is written, and below it what became of it. */
void acl_trace_check(struct ctx *c, const struct acl_clause *k, struct str value) {
  if (!debug_on(DEBUG_acl))
    return;
  if (k->modifier == acl_modifier_message || k->modifier == acl_modifier_log_message) {
    DEBUG(acl, "%s: %.*s\n", k->modifier == acl_modifier_message ? "  message" : "l_message", STRF(k->arg.text));
    return;
  }
  bool variable = k->modifier && str_is_set(k->variable);
  struct str name = variable ? str_printf(c->arena, "set %.*s", STRF(k->variable))
                             : str_printf(c->arena, "%s%s", k->negated ? "!" : "", k->condition ? k->condition->name : k->modifier->name);
  DEBUG(acl, "check %.*s = %.*s\n", STRF(name), STRF(k->arg.text));
  if (!str_eq(k->arg.text, value))
    DEBUG(acl, "%*s = %.*s\n", (int)name.len + 6, "", STRF(value));
}

void acl_trace_clause(struct ctx *c, const struct acl_clause *k, struct str value, int result) {
  if (result == OUTCOME_DEFER || result == OUTCOME_ERROR)
    DEBUG(acl, "  %.*s\n", STRF(str_is_set(c->log_message) ? c->log_message : STR("(no reason is known)")));
  tell(c, &(struct acl_event){.kind = ACL_EVENT_CLAUSE, .statement = c->acl->statement, .clause = k, .value = value, .result = result});
}

void acl_trace_statement_end(struct ctx *c, const struct acl *acl, const struct acl_statement *s, int result) {
  DEBUG(acl, "%s: condition test %s in %.*s\n", acl_verbs[s->verb],
      result == OUTCOME_OK ? "succeeded"
          : result == OUTCOME_FAIL || result == ACL_EVAL_DROP ? "failed"
          : result == OUTCOME_DEFER ? "deferred" : result == ACL_EVAL_DISCARD ? "said discard" : "error",
      STRF(title(c, acl)));
  tell(c, &(struct acl_event){.kind = ACL_EVENT_STATEMENT_END, .acl = acl, .statement = s, .result = result});
}

const char *acl_result_word(enum acl_result r) {
  static const char *const words[] = {[ACL_OK] = "ACCEPT", [ACL_FAIL] = "DENY", [ACL_DROP] = "DROP", [ACL_DISCARD] = "DISCARD",
    [ACL_DEFER] = "DEFER", [ACL_ERROR] = "ERROR", [ACL_FAIL_DROP] = "DROP"};
  return words[r];
}

void acl_trace_end(struct ctx *c, const struct acl *acl, const struct acl_statement *s, enum acl_result r) {
  const char *word = !s ? "implicit DENY" : s->verb == VERB_REQUIRE && r == ACL_FAIL ? "not OK" : acl_result_word(r);
  DEBUG(acl, "end of %.*s: %s\n", STRF(title(c, acl)), word);
  tell(c, &(struct acl_event){.kind = ACL_EVENT_END, .acl = acl, .statement = s, .result = (int)r});
}

const char *acl_verb_name(enum acl_verb verb) { return acl_verbs[verb]; }
