/* `martlet --demo DIR`: a server for trying things out, without root and
without anything outside of DIR. scripts/run-demo (make run) starts it and shows its log. */

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/process.h"
#include "config/config.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "daemon/load.h"
#include "log/log.h"

#define DEMO_PORT "2525"

/* The macros DEMO_DIR and DEMO_USER are set by the program. */
static const char demo_configuration[] =
    "# The configuration of `make run`. Everything is below DEMO_DIR.\n"
    "primary_hostname = mail.demo.example\n"
    "exim_user = DEMO_UID\n"
    "exim_group = DEMO_GID\n"
    "spool_directory = DEMO_DIR/spool\n"
    "log_file_path = DEMO_DIR/log/%slog\n"
    "daemon_smtp_ports = DEMO_PORT\n"
    "local_interfaces = 127.0.0.1\n"
    "qualify_domain = demo.example\n"
    "domainlist local_domains = demo.example\n"
    "host_lookup =\n"
    "acl_smtp_rcpt = check_recipient\n"
    "tls_advertise_hosts =\n"
    "\n"
    "begin acl\n"
    "check_recipient:\n"
    "  accept domains = +local_domains\n"
    "         verify = recipient\n"
    "  deny   message = relay not permitted; recipients here are LOCAL_USERS_TEXT @demo.example\n"
    "\n"
    "begin routers\n"
    "aliases:\n"
    "  driver = redirect\n"
    "  domains = +local_domains\n"
    "  data = ${if inlisti{$local_part}{postmaster:root:abuse}{demo@demo.example}}\n"
    "mailboxes:\n"
    "  driver = accept\n"
    "  domains = +local_domains\n"
    "  local_parts = demo : alice : bob\n"
    "  transport = maildir\n"
    "\n"
    "begin transports\n"
    "maildir:\n"
    "  driver = appendfile\n"
    "  maildir_format\n"
    "  directory = DEMO_DIR/mail/$local_part_data\n"
    "  delivery_date_add\n"
    "  envelope_to_add\n"
    "  return_path_add\n"
    "\n"
    "begin retry\n"
    "*  *  F,1h,1m; F,1d,15m\n";

static void add_macro(struct process *p, const char *name, struct str value) {
  struct config_macro m = {.name = str_c(name), .value = value, .from_command_line = true};
  vec_push(p->arena, &p->source.macros, m);
}

static int make_directory(struct arena *a, const char *base, const char *sub) {
  struct str path = str_printf(a, "%s%s", base, sub);
  if (mkdir(path.p, 0755) < 0 && errno != EEXIST) {
    fprintf(stderr, "martlet: cannot make %s: %s\n", path.p, strerror(errno));
    return -1;
  }
  return 0;
}

int mode_demo(struct process *p) {
  char *dir = realpath(str_dup_c(p->arena, p->cli.mode_arg), NULL);
  if (!dir && errno == ENOENT && !make_directory(p->arena, str_dup_c(p->arena, p->cli.mode_arg), ""))
    dir = realpath(str_dup_c(p->arena, p->cli.mode_arg), NULL);
  if (!dir) {
    fprintf(stderr, "martlet: --demo %.*s: %s\n", STRF(p->cli.mode_arg), strerror(errno));
    return 1;
  }
  if (geteuid() == 0) {
    fprintf(stderr, "martlet: --demo runs without root; use another account (make run does that by itself)\n");
    free(dir);
    return 1;
  }
  if (make_directory(p->arena, dir, "/spool") || make_directory(p->arena, dir, "/log") || make_directory(p->arena, dir, "/mail")) {
    free(dir);
    return 1;
  }
  struct str base = str_dup(p->arena, str_c(dir));
  free(dir);
  p->source = (struct config_source){.text = str_c(demo_configuration), .paths = STR("(demo configuration)")};
  add_macro(p, "DEMO_DIR", base);
  add_macro(p, "DEMO_PORT", STR(DEMO_PORT));
  add_macro(p, "DEMO_UID", str_printf(p->arena, "%u", geteuid()));
  add_macro(p, "DEMO_GID", str_printf(p->arena, "%u", getegid()));
  add_macro(p, "LOCAL_USERS_TEXT", STR("demo, alice and bob"));
  struct str errors = STR_EMPTY;
  if (load_config(&p->source, p->arena, &p->config, &errors)) {
    fprintf(stderr, "%.*s\n", STRF(errors));
    return 1;
  }
  log_init(p->config);
  struct daemon_queue_run run = {.queue_name = STR_EMPTY, .interval = 60};
  struct daemon_params d = {.source = &p->source, .config = p->config, .inherited_fd = -1, .pid_file = STR_UNSET, .listen = p->cli.listen,
      .listening = true, .foreground = true, .runs = &run, .runs_n = 1};
  return daemon_run(p->arena, &d);
}
