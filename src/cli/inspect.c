/* Modes that look and change nothing: -bV, -bP, -bI, -brt, -brw, -bt, -bv. */

#include <stdio.h>
#include <unistd.h>

#include "cli/process.h"
#include "config/print.h"
#include "filter/filter.h"
#include "config/version.h"
#include "core/main_options.h"
#include "core/module.h"
#include "log/log.h"
#include "loop/dscp.h"
#include "message/message.h"
#include "message/rewrite.h"
#include "queue/retry_rules.h"
#include "route/verify.h"
#include "scan/scan.h"

int mode_version(struct process *p) {
  config_version_print(stdout, false);
  config_version_print_file(stdout, p->config);
  return 0;
}

int mode_print(struct process *p) {
  struct config_print print = {.out = stdout, .admin = p->admin, .no_names = p->cli.suppress_names};
  return config_print(&print, p->config, p->cli.args.v, p->cli.args.n);
}

int mode_info(struct process *p) {
  if (str_eq_c(p->cli.mode_arg, "help")) {
    puts("Exim's -bI: option; subjects:\n  dscp      the names of DSCP values\n  features  the words of each module, as JSON\n  help      this text\n  modules   the features built in\n  sieve     the extensions that Sieve scripts may require");
    return 0;
  }
  if (str_eq_c(p->cli.mode_arg, "dscp")) {
    for (size_t i = 0; dscp_name(i); i++)
      puts(dscp_name(i));
    return 0;
  }
  if (str_eq_c(p->cli.mode_arg, "features")) {
    print_features(stdout);
    return 0;
  }
  if (str_eq_c(p->cli.mode_arg, "modules")) {
    for (size_t i = 0; modules[i]; i++)
      printf("%-20s %s\n", modules[i]->name, modules[i]->summary ? modules[i]->summary : "");
    return 0;
  }
  if (str_eq_c(p->cli.mode_arg, "sieve")) {
    for (size_t i = 0; filter_sieve_extensions[i]; i++)
      puts(filter_sieve_extensions[i]);
    return 0;
  }
  fprintf(stderr, "martlet: -bI:%.*s: no such subject; -bI:help lists them\n", STRF(p->cli.mode_arg));
  return 1;
}

int mode_log_line(struct process *p) {
  if (!process_require_admin(p))
    return 1;
  log_write(LOG_MAIN, NULL, "%.*s", STRF(p->cli.log_line));
  return 0;
}

/* Addresses come from the arguments, or one a line from standard input. */
int mode_address(struct process *p) {
  struct route_test t = {.kind = p->cli.mode == MODE_ADDRESS_TEST ? ROUTE_TEST_BT : p->cli.verify_sender ? ROUTE_TEST_BVS : ROUTE_TEST_BV,
      .verbose = p->cli.verbose, .out = stdout};
  char line[4096];
  if (main_options(p->config)->commandline_checks_require_admin && !process_require_admin(p))
    return 1;
  p->ctx->is_test = true;
  if (t.kind == ROUTE_TEST_BT)
    log_set_echo(LOG_ECHO_TESTING);
  else if (!p->cli.verbose)
    log_set_echo(LOG_ECHO_STDERR);
  if (!process_set_client(p))
    return 1;
  /* Routers may ask for the sender: -f, or the caller. */
  p->ctx->message = message_new("address test");
  p->ctx->message->reverse_path = p->cli.sender_given ? p->cli.sender
                                  : str_printf(p->arena, "%.*s@%.*s", STRF(p->login), STRF(main_options(p->config)->qualify_domain));
  for (size_t i = 0; i < p->cli.args.n; i++)
    (void)route_test_addresses(p->ctx, &t, p->cli.args.v[i]);
  while (!p->cli.args.n) {
    fputs("> ", stdout);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) {
      putchar('\n');
      break;
    }
    struct str text = str_trim(str_c(line));
    if (text.len) {
      (void)route_test_addresses(p->ctx, &t, str_tainted(str_dup(p->arena, text)));
    } else {
      puts("syntax error: empty address");
      t.exit_code = 2;
    }
  }
  message_free(p->ctx->message);
  p->ctx->message = NULL;
  return t.exit_code;
}

int mode_retry(struct process *p) {
  return retry_test(p->ctx, p->cli.args.v, p->cli.args.n, p->cli.sender_given ? p->cli.sender : STR_UNSET, stdout);
}

int mode_malware(struct process *p) {
  struct str found;
  if (!process_require_admin(p))
    return 1;
  log_set_stderr(true);
  int rc = malware_test_file(p->ctx, str_untainted(p->cli.mode_arg), &found);
  if (rc != OUTCOME_OK)
    printf("Malware lookup returned non-okay/fail: %d\n", rc == OUTCOME_DEFER ? 1 : rc);
  else if (str_is_set(found))
    printf("Malware found: %.*s\n", STRF(log_printable(p->arena, found)));
  else
    puts("No malware found.");
  return rc != OUTCOME_OK || str_is_set(found);
}

int mode_rewrite(struct process *p) {
  log_set_echo(LOG_ECHO_STDERR);
  if (p->cli.args.n == 0) {
    puts("-brw needs an address argument");
    return 1;
  }
  rewrite_test(p->ctx, p->cli.args.v[0], stdout);
  return 0;
}
