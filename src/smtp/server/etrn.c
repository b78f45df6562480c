/* ETRN (RFC 1985; Exim manual, section "The ETRN command"): starts a command or a queue run, and does not wait for it. */
#include <string.h>
#include <sys/wait.h>

#include "base/hash.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "loop/child.h"
#include "smtp/server/internal.h"
#include "transport/command.h"

extern char **environ;

#define ETRN_TIME_MAX (6 * 3600) /* as long as the manual lets a record of one that runs count */

/* One that runs: it may outlive the session. */
struct job {
  struct arena *arena;
  struct ctx *c;
  struct child child;
  struct str key; /* unset: not serialized */
};

static void watch(void *arg) {
  struct job *j = arg;
  int status;
  if (child_wait(&j->child, deadline_in(ETRN_TIME_MAX), &status) != 0)
    child_release(&j->child);
  hint_count_leave(j->c, j->key);
  arena_free(j->arena);
}

/* The words to run; 0, or OUTCOME_* with c->error. */
static int build(struct smtp_session *s, struct str args, struct command *ret) {
  struct ctx *c = s->c;
  if (str_is_set(s->o->smtp_etrn_command.text) && s->o->smtp_etrn_command.text.len) {
    struct str domain = c->vars.domain;
    c->vars.domain = args;
    c->vars.domain.taint = STR_TAINTED;
    int rc = command_build(c, s->o->smtp_etrn_command.text, true, NULL, STR_UNSET, STR("ETRN processing"), ret);
    c->vars.domain = domain;
    return rc;
  }
  struct str words[] = {s->o->exim_path, STR("-C"), c->config->files.n ? c->config->files.v[0] : STR_EMPTY, STR("-R"),
      str_from(args, 1)};
  ret->argv = arena_array(c->arena, struct str, 6);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    ret->argv[ret->n++] = words[i];
  return 0;
}

static int start(struct smtp_session *s, const struct command *command, struct child *ret) {
  char **argv = arena_array(s->c->arena, char *, command->n + 1);
  for (size_t i = 0; i < command->n; i++)
    argv[i] = str_dup_c(s->c->arena, command->argv[i]);
  argv[command->n] = NULL;
  struct child_spec spec = {.path = argv[0], .argv = argv, .envp = environ, .stdin_fd = -2, .stdout_fd = -2, .stderr_fd = -2,
      .umask = -1, .new_group = true};
  return child_start(&spec, ret);
}

static enum smtp_next run(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  struct command command = {0};
  if (build(s, args, &command) != 0) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "failed to set up ETRN command: %.*s", STRF(log_printable(c->arena, c->error)));
    smtp_say(s, "458 Internal failure");
    return SMTP_GO_ON;
  }
  /* The name of what is run is the configuration's. */
  if (str_is_tainted(command.argv[0])) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "Tainted arg 0 for ETRN command: '%.*s'", STRF(log_printable(c->arena, command.argv[0])));
    smtp_say(s, "458 Internal failure");
    return SMTP_GO_ON;
  }
  struct arena *a = arena_new("etrn");
  struct job *j = arena_new_of(a, struct job);
  *j = (struct job){.arena = a, .c = ctx_new(a, c->config), .key = STR_UNSET};
  /* Without a daemon's life nobody is there to say that it has ended. */
  bool serialize = s->o->smtp_etrn_serialize && s->p->kind == SESSION_SMTP;
  if (serialize) {
    j->key = str_printf(a, "etrn-%.*s", STRF(hash_hex(a, "md5", args)));
    if (!hint_count_enter(j->c, j->key, 1)) {
      smtp_say(s, "458 Already processing %.*s", STRF(args));
      arena_free(a);
      return SMTP_GO_ON;
    }
  }
  int rc = start(s, &command, &j->child);
  if (rc < 0)
    acl_log(c, LOG_MAIN | LOG_PANIC, "exec of \"%.*s\" (ETRN) failed: %s", STRF(command.argv[0]), strerror(-rc));
  smtp_say(s, "250 OK");
  if (rc == 0 && serialize) {
    fiber_spawn("etrn", watch, j);
    return SMTP_GO_ON;
  }
  if (rc == 0)
    child_release(&j->child);
  else if (serialize)
    hint_count_leave(j->c, j->key);
  arena_free(a);
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_etrn(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  if (s->message)
    return smtp_synprot(s, true, 503, STR_UNSET, "ETRN is not permitted inside a transaction");
  if (log_selected(LOGSEL_etrn))
    acl_log(c, LOG_MAIN, "ETRN %.*s received from %.*s", STRF(log_printable(c->arena, s->arguments)),
        STRF(client_log_text(c->arena, c->client, false)));
  enum acl_result r = smtp_acl(s, ACL_ETRN, &s->o->acl_smtp_etrn, ACL_FAIL);
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_ETRN, r, str_printf(c->arena, "ETRN %.*s", STRF(args)));
  bool command = str_is_set(s->o->smtp_etrn_command.text) && s->o->smtp_etrn_command.text.len;
  if (!command && (args.len == 0 || args.p[0] != '#'))
    return smtp_synprot(s, false, 501, STR_UNSET, "argument must begin with #");
  if (s->p->kind == SESSION_TEST) {
    smtp_say(s, "250 OK");
    return SMTP_GO_ON;
  }
  return run(s, args);
}
