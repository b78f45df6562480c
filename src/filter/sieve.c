/* Sieve scripts obeyed (RFC 5228; Exim's filter specification, chapter "Sieve
filter files"): actions are items of the result, as those of Exim filters. */

#include <stdio.h>

#include "core/main_options.h"
#include "filter/sieve.h"
#include "log/log.h"
#include "message/message.h"

/* What -bf -v shows of actions. */
static void show(struct sieve_runner *r, const char *what, struct str text) {
  if (r->run.rules->verbose)
    fprintf(stderr, "%s %.*s\n", what, STRF(log_printable(r->run.c->arena, text)));
}

static int redirect(struct sieve_runner *r, const struct sieve_command *cmd) {
  show(r, cmd->copy ? "Redirect a copy to:" : "Redirect to:", cmd->text);
  if (++r->redirects > SIEVE_REDIRECTS_MAX)
    return filter_fail(&r->run, "more than %d redirects in line %d", SIEVE_REDIRECTS_MAX, cmd->line);
  if (!cmd->copy)
    r->keep = false;
  return filter_add_item(&r->run, FILTER_ADDRESS, cmd->text) ? 0 : -1;
}

static int file_into(struct sieve_runner *r, struct str folder, bool copy) {
  show(r, copy ? "File a copy into:" : "File into:", folder);
  if (!copy)
    r->keep = false;
  return filter_add_item(&r->run, FILTER_FILE, folder) ? 0 : -1;
}

static int keep(struct sieve_runner *r) {
  struct str inbox = r->run.rules->sieve_inbox;
  return file_into(r, str_is_set(inbox) && inbox.len ? inbox : STR("inbox"), false);
}

static int obey_all(struct sieve_runner *r, const struct sieve_command *cmd);

/* elsif is looked at here, not deeper. */
static int obey_if(struct sieve_runner *r, const struct sieve_command *cmd) {
  for (bool yes;;) {
    if (sieve_test(r, cmd->test, &yes))
      return -1;
    if (r->run.rules->verbose)
      fprintf(stderr, "Condition in line %d is %s\n", cmd->line, yes ? "true" : "false");
    if (yes)
      return obey_all(r, cmd->then);
    if (!cmd->otherwise || cmd->otherwise->kind != SIEVE_DO_IF || cmd->otherwise->next)
      return obey_all(r, cmd->otherwise);
    cmd = cmd->otherwise;
    if (!filter_step(&r->run))
      return -1;
  }
}

/* 0: go on; 1: stop; -1: the run has ended with an error. */
static int obey(struct sieve_runner *r, const struct sieve_command *cmd) {
  switch (cmd->kind) {
  case SIEVE_DO_IF: return obey_if(r, cmd);
  case SIEVE_DO_STOP: return 1;
  case SIEVE_DO_KEEP: return keep(r);
  case SIEVE_DO_DISCARD:
    show(r, "Discard", STR_EMPTY);
    r->keep = false;
    return 0;
  case SIEVE_DO_REDIRECT: return redirect(r, cmd);
  case SIEVE_DO_FILEINTO: return file_into(r, cmd->text, cmd->copy);
  case SIEVE_DO_VACATION:
    show(r, "Vacation answer:", cmd->text);
    return sieve_vacation(r, cmd);
  case SIEVE_DO_NOTIFY:
    show(r, "Notify:", cmd->text);
    return sieve_notify(r, cmd);
  }
  return 0;
}

static int obey_all(struct sieve_runner *r, const struct sieve_command *cmd) {
  int rc = 0;
  for (; cmd && !rc; cmd = cmd->next) {
    if (!filter_step(&r->run))
      return -1;
    rc = obey(r, cmd);
  }
  return rc;
}

void filter_run_sieve(struct ctx *c, const struct sieve_program *program, const struct filter_rules *rules, struct filter_result *ret) {
  struct sieve_runner r = {.run = {.c = c, .rules = rules, .result = ret, .vars = c->filter}, .program = program, .keep = true};
  int rc = obey_all(&r, program->commands);
  struct str error = rc < 0 ? ret->text : rc > 0 ? STR_UNSET : program->error;
  /* Whatever else happened, an error loses no message. */
  bool implicit = r.keep;
  if (str_is_set(error) || implicit) {
    if (ret->items.n >= FILTER_ITEMS_MAX)
      ret->items.n--;
    (void)keep(&r);
  }
  ret->outcome = FILTER_DELIVERED;
  ret->text = error;
  ret->keep = str_is_set(error);
  if (str_is_set(error))
    DEBUG(filter, "Sieve error: %.*s\n", STRF(error));
  if (!rules->testing)
    return;
  if (str_is_set(error))
    fprintf(rules->out, "Sieve error: %.*s\n", STRF(error));
  else
    fprintf(rules->out, "%s keep\n", implicit ? "Implicit" : "No implicit");
}
