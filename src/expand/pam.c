/* The condition pam: {user:answer:…}, service "exim". The modules run in a process of their own with this process's rights. */
#include <security/pam_appl.h>
#include <stdlib.h>
#include <string.h>

#include "expand/foreign.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"
#include "match/match.h"

#define SERVICE "exim"
#define PAM_SECONDS 60
#define PAM_ANSWERS_MAX 32

struct pam_call {
  const struct str *answer;
  int n, next;
  bool ran_out;
};

/* --- in its process --- */

/* Whatever is asked gets the next answer; what is only said is heard by nobody. */
static int converse(int n, const struct pam_message **message, struct pam_response **ret, void *arg) {
  struct pam_call *call = arg;
  if (n <= 0 || n > PAM_MAX_NUM_MSG)
    return PAM_CONV_ERR;
  struct pam_response *r = xcalloc((size_t)n, sizeof *r);
  for (int i = 0; i < n; i++) {
    int style = message[i]->msg_style;
    if (style != PAM_PROMPT_ECHO_ON && style != PAM_PROMPT_ECHO_OFF)
      continue;
    if (call->next >= call->n) {
      call->ran_out = true;
      for (int j = 0; j < i; j++)
        free(r[j].resp);
      free(r);
      return PAM_CONV_ERR;
    }
    r[i].resp = xstrdup(call->answer[call->next++].p);
  }
  *ret = r;
  return PAM_SUCCESS;
}

/* The texts: user, answers. */
static void run_pam(const struct str *v, int n, int out) {
  struct pam_call call = {.answer = v + 1, .n = n - 1};
  struct pam_conv conversation = {converse, &call};
  pam_handle_t *h = NULL;
  int e = pam_start(SERVICE, n > 0 ? v[0].p : NULL, &conversation, &h);
  if (e != PAM_SUCCESS)
    foreign_say(out, FOREIGN_ERROR, "pam_start failed: %d", e);
  e = pam_authenticate(h, PAM_SILENT);
  if (e == PAM_SUCCESS)
    e = pam_acct_mgmt(h, PAM_SILENT);
  const char *text = pam_strerror(h, e);
  switch (e) {
  case PAM_SUCCESS:
    pam_end(h, e);
    foreign_say(out, FOREIGN_YES, "%s", "");
    break;
  case PAM_AUTH_ERR: case PAM_USER_UNKNOWN: case PAM_MAXTRIES: case PAM_PERM_DENIED: case PAM_ACCT_EXPIRED:
  case PAM_NEW_AUTHTOK_REQD: case PAM_CRED_EXPIRED: case PAM_AUTHTOK_EXPIRED:
    foreign_say(out, FOREIGN_NO, "%s", "");
    break;
  default:
    foreign_say(out, call.ran_out ? FOREIGN_NO : FOREIGN_ERROR, "%s", text);
  }
}

const struct foreign_role pam_role = {.name = "pam", .run = run_pam};

/* --- our side --- */

static int eval_pam(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  struct str v[PAM_ANSWERS_MAX + 1];
  int n = 0;
  struct list_iter i;
  struct str item;
  *ret = false;
  list_iter_init(&i, c->arena, args->value[0]);
  /* A module that is given no user would ask for one, and one that is given part of a text for something else. */
  if (!list_next(&i, &item) || item.len == 0 || memchr(args->value[0].p, '\0', args->value[0].len))
    return OUTCOME_OK;
  do
    v[n++] = str_dup(c->arena, item);
  while (n <= PAM_ANSWERS_MAX && list_next(&i, &item));
  int r = foreign_ask(c, pam_role.name, v, n, PAM_SECONDS, ret);
  DEBUG(auth, "pam: user %.*s: %s\n", STRF(v[0]), r != OUTCOME_OK ? "no answer" : *ret ? "yes" : "no");
  return r;
}

static const struct expand_condition_def conditions[] = {
  {"pam", 1, 1, 0, NULL, eval_pam},
  {0},
};

static const char *const macros[] = {"_HAVE_PAM", NULL};

const struct module expand_pam_module = {
  .name = "expand-pam",
  .summary = "passwords checked by PAM",
  .support = "PAM",
  .conditions = conditions,
  .macros = macros,
};
