/* Modes that look and change nothing: -bV, -bP, -bI, -be, -brt, -brw, -bt, -bv. */

#include <stdio.h>
#include <unistd.h>

#include "cli/process.h"
#include "config/print.h"
#include "config/version.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand_test.h"
#include "log/log.h"

int mode_version(struct process *p) {
  config_version_print(stdout);
  config_version_print_file(stdout, p->config);
  return 0;
}

int mode_print(struct process *p) {
  struct config_print print = {.out = stdout, .admin = p->admin, .no_names = p->cli.suppress_names};
  return config_print(&print, p->config, p->cli.args.v, p->cli.args.n);
}

int mode_info(struct process *p) {
  if (str_eq_c(p->cli.mode_arg, "help")) {
    puts("Exim's -bI: option; subjects:\n  help     this text\n  modules  the features built in");
    return 0;
  }
  if (str_eq_c(p->cli.mode_arg, "modules")) {
    for (size_t i = 0; modules[i]; i++)
      printf("%-20s %s\n", modules[i]->name, modules[i]->summary ? modules[i]->summary : "");
    return 0;
  }
  fprintf(stderr, "martlet: -bI:%.*s is not supported yet; -bI:help lists the subjects\n", STRF(p->cli.mode_arg));
  return 1;
}

int mode_log_line(struct process *p) {
  if (!process_require_admin(p))
    return 1;
  log_write(LOG_MAIN, NULL, "%.*s", STRF(p->cli.log_line));
  return 0;
}
