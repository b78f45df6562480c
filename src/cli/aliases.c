/* -bi, newaliases: runs bi_command, or does nothing, as Exim does: alias files
are read as they are (Exim manual, -bi and bi_command). */

#include <stdio.h>
#include <unistd.h>

#include "cli/process.h"
#include "core/main_options.h"
#include "loop/child.h"

#define ALIAS_SECONDS 600
#define OUTPUT_MAX (1u << 20)

int mode_aliases(struct process *p) {
  struct str command = main_options(p->config)->bi_command;
  if (!str_is_set(command) || !command.len)
    return 0;
  char *argv[3] = {str_dup_c(p->arena, command), p->cli.args.n ? str_dup_c(p->arena, p->cli.args.v[0]) : NULL, NULL};
  char *envp[] = {NULL};
  struct child_spec spec = {.path = argv[0], .argv = argv, .envp = envp, .stdin_fd = -2, .stdout_fd = 1, .stderr_fd = 2, .umask = -1};
  struct child child;
  int status, e = child_start(&spec, &child);
  if (!e)
    e = child_wait(&child, deadline_in(ALIAS_SECONDS), &status);
  if (e) {
    fprintf(stderr, "martlet: exec of %s failed\n", argv[0]);
    return 1;
  }
  return status >> 8 & 0xff;
}
