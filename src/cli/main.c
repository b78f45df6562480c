/* main: command line, configuration, caller, then the mode (Exim manual,
chapter "The Exim command line"). */

#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/process.h"
#include "cli/submission.h"
#include "cli/tools/tools.h"
#include "config/version.h"
#include "core/build.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "daemon/keys.h"
#include "daemon/load.h"
#include "daemon/options.h"
#include "daemon/sandbox.h"
#include "dns/validator.h"
#include "expand/foreign.h"
#include "expand/perl.h"
#include "log/log.h"
#include "smtp/client/https.h"
#include "tls/keys.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "queue/spool.h"
#include "transport/identity.h"
#include "transport/plan.h"

static const struct {
  enum cli_mode mode;
  int (*run)(struct process *p);
} modes[] = {
    {MODE_RECEIVE, mode_receive},      {MODE_SMTP, mode_receive},       {MODE_BATCH_SMTP, mode_receive},
    {MODE_HOST_TEST, mode_receive},    {MODE_QUEUE_RUN, mode_queue},    {MODE_QUEUE_LIST, mode_queue},
    {MODE_MESSAGE, mode_queue},        {MODE_ADDRESS_TEST, mode_address}, {MODE_VERIFY, mode_address},
    {MODE_EXPAND_TEST, mode_expand},   {MODE_PRINT, mode_print},        {MODE_VERSION, mode_version},
    {MODE_RETRY_TEST, mode_retry},   {MODE_REWRITE_TEST, mode_rewrite},
    {MODE_ALIASES, mode_aliases},      {MODE_AUTHCHECK, mode_authcheck},      {MODE_FILTER_TEST, mode_filter},
    {MODE_MALWARE_TEST, mode_malware}, {MODE_ATRN, mode_atrn},
    {MODE_DMARC_REPORT, mode_dmarc_report}, {MODE_TLS_REPORT, mode_tls_report},
};

/* The three standard descriptors exist in every process after this: a log file must never become number 2. */
static void open_standard_fds(void) {
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0)
      (void)!open("/dev/null", O_RDWR);
}

static void source_of_cli(struct process *p) {
  p->source = (struct config_source){.paths = p->cli.config_given ? p->cli.config_files : STR_UNSET, .check_owner = !p->cli.config_given};
  for (size_t i = 0; i < p->cli.macros.n; i++) {
    struct str rest = p->cli.macros.v[i];
    struct str name = str_trim(str_cut(&rest, '='));
    struct config_macro m = {.name = name, .value = str_is_set(rest) ? str_trim(rest) : STR_EMPTY, .from_command_line = true};
    vec_push(p->arena, &p->source.macros, m);
  }
}

/* -C and -D from somebody who is not trusted with them: the privilege of a set-uid installation ends here. */
static void drop_for_foreign_config(struct process *p) {
  bool foreign = p->cli.config_given || p->cli.macros.n;
  if (!foreign || !p->set_uid || build.trust_config_from_any_caller)
    return;
  if (setgid(p->real_gid) < 0 || setuid(p->real_uid) < 0) {
    perror("martlet: cannot give up privilege");
    exit(1);
  }
  p->set_uid = p->can_switch = false;
  p->cli.call = STR_UNSET; /* the logs are not this user's */
}

/* To stderr, and to the panic log of as much of the configuration as was read; -bV and -bP config only look at it, and write
no log. */
static void tell_errors(struct process *p, struct str errors) {
  static const struct str start = STR("\nExim configuration error");
  bool look_only = p->cli.mode == MODE_VERSION ||
                   (p->cli.mode == MODE_PRINT && p->cli.args.n == 1 && str_eq_c(p->cli.args.v[0], "config"));
  log_init(p->config);
  if (p->cli.mode == MODE_PRINT)
    log_set_echo(LOG_ECHO_PANIC);
  while (str_is_set(errors)) {
    ptrdiff_t next = str_find(errors, start);
    struct str one = next < 0 ? errors : str_slice(errors, 0, (size_t)next);
    errors = next < 0 ? STR_UNSET : str_from(errors, (size_t)next + 1);
    if (look_only)
      fprintf(stderr, "%.*s %.*s\n", STRF(log_stamp(p->arena)), STRF(one));
    else
      log_write(next < 0 ? LOG_PANIC_DIE : LOG_PANIC, NULL, "%.*s", STRF(one));
  }
}

static int load(struct process *p) {
  struct str errors = STR_EMPTY;
  if (load_config(&p->source, p->arena, &p->config, &errors)) {
    if (p->cli.mode == MODE_VERSION) /* what this is can be said in any case */
      config_version_print(stdout, false);
    fflush(stdout);
    tell_errors(p, errors);
    return -1;
  }
  for (size_t i = 0; i < p->config->warnings.n; i++)
    if (p->cli.mode == MODE_VERSION || p->cli.debug)
      fprintf(stderr, "%.*s\n", STRF(p->config->warnings.v[i]));
  return 0;
}

int process_start_perl(struct process *p) {
  enum cli_mode mode = p->cli.mode;
  if (mode == MODE_EXPAND_TEST || mode == MODE_ADDRESS_TEST || mode == MODE_VERIFY || mode == MODE_PRINT || mode == MODE_REWRITE_TEST)
    perl_show_output();
  bool perl = p->cli.perl_now || (!p->cli.perl_delayed && main_options(p->config)->perl_at_start);
  if (!perl || perl_start_early(p->ctx) == 0)
    return 0;
  log_write(LOG_PANIC, NULL, "%.*s", STRF(p->ctx->error));
  return 1;
}

static int run_mode(void *arg) {
  struct process *p = arg;
  if (daemon_options(p->config)->key_isolation)
    keys_use_own(p->config);
  if (p->cli.mode != MODE_EXPAND_TEST && process_start_perl(p))
    return 1;
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (modes[i].mode == p->cli.mode)
      return modes[i].run(p);
  fprintf(stderr, "martlet: this mode is not supported yet\n");
  return 1;
}

/* Tools open what they are told to, with the caller's rights only, however the program is installed. */
static void become_caller(void) {
  if ((getegid() != getgid() && setgid(getgid()) < 0) || (geteuid() != getuid() && setuid(getuid()) < 0)) {
    perror("martlet: cannot give up privilege");
    exit(1);
  }
}

static const struct config *changes_of;
static void tell_daemon(const struct message *m) { (void)daemon_notify_changed(changes_of, m->id, m->queue_name); }

static int start(struct process *p) {
  if (p->cli.mode == MODE_DEMO)
    return mode_demo(p);
  if (p->cli.mode == MODE_INFO)
    return mode_info(p); /* works without a configuration, too */
  if (p->cli.mode == MODE_UTILITY) {
    become_caller();
    return mode_utility(p);
  }
  int status;
  if (submission_try_default(p, &status))
    return status;
  source_of_cli(p);
  /* Until a daemon has detached itself, who started the command sees what goes to the panic log. */
  log_set_stderr(true);
  drop_for_foreign_config(p);
  if (load(p))
    return 1;
  environment_clean(p);
  log_init(p->config);
  enum cli_mode mode = p->cli.mode;
  if (p->cli.verbose &&
      (mode == MODE_RECEIVE || mode == MODE_SMTP || mode == MODE_BATCH_SMTP || mode == MODE_MESSAGE || mode == MODE_QUEUE_RUN))
    log_set_echo(LOG_ECHO_VERBOSE);
  if (process_settle(p))
    return 1;
  if (p->cli.load_message && p->cli.mode != MODE_EXPAND_TEST) {
    fprintf(stderr, "martlet: -Mset is for -be only\n");
    return 1;
  }
  if (submission_needed(p))
    return submission_send(p);
  if (submission_try_count(p, &status))
    return status;
  if (mode != MODE_DAEMON && mode != MODE_QUEUE_DAEMON && mode != MODE_INETD_WAIT) {
    changes_of = p->config;
    spool_changed = tell_daemon;
  }
  process_log_call(p);
  if (str_is_set(p->cli.log_line))
    return mode_log_line(p);
  if (p->cli.mode == MODE_DAEMON || p->cli.mode == MODE_QUEUE_DAEMON || p->cli.mode == MODE_INETD_WAIT)
    return mode_daemon(p);
  loop_init();
  status = loop_run(run_mode, p);
  keys_done();
  loop_done();
  return status;
}

/* A tool, by the name of the link or as the first word of martlet; -1: it is none. */
static int run_as_tool(int argc, char **argv) {
  const char *slash = argc ? strrchr(argv[0], '/') : NULL, *name = !argc ? "" : slash ? slash + 1 : argv[0];
  int (*run)(struct tool *t) = tool_find(name);
  int skip = 1;
  if (!run && argc > 1 && (!strncmp(name, "martlet", 7) || !strncmp(argv[1], "--", 2))) {
    run = tool_find(argv[1]);
    name = argv[1];
    skip = 2;
  }
  if (run)
    become_caller();
  return run ? tool_run(run, name, argc - skip, argv + skip) : -1;
}

int main(int argc, char **argv) {
  foreign_main(argc, argv);
  struct arena *arena = arena_new("process");
  struct process p = {.arena = arena, .real_uid = getuid(), .real_gid = getgid(), .out = stdout, .err = stderr};
  int status;
  if ((argc == 4 || argc == 5) && !strcmp(argv[1], VALIDATOR_ARGUMENT)) { /* nothing of what follows is its business */
    arena_free(arena);
    _exit(validator_run(argv[2], argv[3], argc == 5));
  }
  if (argc == 2 && !strcmp(argv[1], KEYS_ARGUMENT)) {
    arena_free(arena);
    _exit(keys_run());
  }
  if (argc == 6 && !strcmp(argv[1], HTTPS_ARGUMENT)) {
    arena_free(arena);
    sandbox_drop_root();
    _exit(https_run(argv[2], argv[3], argv[4], argv[5]));
  }
  open_standard_fds();
  signal(SIGPIPE, SIG_IGN);
  umask(022);
  if ((status = run_as_tool(argc, argv)) >= 0) {
    arena_free(arena);
    return status;
  }
  if (!cli_parse(&p.cli, arena, argc, argv, &status)) {
    arena_free(arena);
    return status;
  }
  if (p.cli.mode == MODE_HELP) {
    cli_help(p.cli.program);
    arena_free(arena);
    return 0;
  }
  p.cli.call = cli_call_text(arena, argc, argv);
  p.set_uid = geteuid() == 0 && p.real_uid != 0;
  p.can_switch = geteuid() == 0;
  if (p.cli.debug && !build.no_version_in_debug)
    config_version_print(stderr, true);
  status = start(&p);
  fflush(stdout);
  log_done();
  arena_free(arena);
  return status;
}
