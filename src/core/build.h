/* What differs between `martlet` and `martlet-harness`, and what a packager
sets: one const table, defined by build_ordinary.c or build_harness.c, the one
object in which the two programs differ (DESIGN §7). Code asks for a behaviour
by its name here, never "am I the harness?". */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct build_hooks {
  const char *variant;      /* "" or "harness" */
  const char *version;      /* "0.1.0" */
  const char *exim_version; /* $exim_version; NULL: version */

  /* Defaults of options that are fixed when the program is built. */
  const char *user, *group; /* exim_user, exim_group */
  const char *config_path;  /* colon list, the first that exists is read */
  const char *spool_directory;
  const char *log_file_path; /* "": below the spool directory */
  const char *pid_file_path; /* "": below the spool directory */
  const char *program_path;  /* exim_path */

  const char *mailer_name;  /* in Received: lines we write; the harness's runner takes a bracket behind "Martlet 1.2" for part of it */

  /* Privilege and trust. */
  bool trust_config_from_any_caller; /* -C and -D from anybody, without losing privilege */
  bool keep_root;                    /* a one-shot command that root started stays root where Exim's suite needs it */
  bool check_config_owner;           /* owner and mode of configuration files */
  bool unknown_login_overrides;      /* unknown_login names callers that have an account, too */
  bool tainted_acl_texts;            /* names and texts of ACLs may come from outside */
  bool allow_test_options;           /* -oTqt and other options for testing from any caller */

  /* The world outside. */
  const char *dns_server_env;        /* environment variable with IP:PORT for all DNS queries, or NULL */
  bool hosts_from_dns_only;          /* no hosts file; "localhost" is known */
  bool syslog_to_stderr;             /* SYSLOG: '…' lines instead of the system's log */
  const char *smtputf8_advertise_hosts; /* default of that option */
  const char *tls_advertise_requiretls; /* the same */
  const char *headers_charset;          /* default of that option where it differs from the table's, or NULL */
  const char *received_header_text;     /* default of that option where it differs from the table's, or NULL */

  /* What would differ from run to run. */
  bool fixed_random;                 /* random_seed and fixed challenges are used */
  uint64_t random_seed;
  bool fake_load_average;            /* starts at 0 and rises by 10 with each reading */
  bool serial_queue_run;             /* phase one of a two-stage queue run delivers one message at a time */
  const char *cram_md5_challenge;    /* fixed text, or NULL */
  bool deliver_without_daemon;       /* one-shot commands deliver what they received themselves, daemon or not */
  bool no_dsn_extra_info;            /* bounces say nothing about the session with the host that refused, whatever dsn_extra_info is */
  bool no_version_in_debug;          /* debugging output does not begin with the version and what is supported */
  int64_t tls_ticket_period, tls_ticket_life; /* seconds that a key makes session tickets, and that these live; 0: an hour, two */
  bool quiet_about_proofs;           /* a server does not log that an OCSP proof is not good */
  bool remote_by_turns;              /* parallel deliveries begin together, but talk one after the other, and log at the end */
  bool no_connection_pool;           /* outgoing connections end with their message */
  int64_t refused_is_timeout_at;     /* connect_timeout with which a refused connection counts as timed out; 0: none */
};

extern const struct build_hooks build;
