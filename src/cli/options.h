/* The command line (Exim manual, chapter "The Exim command line"): parsed
into one struct; main.c then runs the mode it names. */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "base/vec.h"

enum cli_mode {
  MODE_RECEIVE,      /* a message on standard input for the recipients given (-bm, the default) */
  MODE_SMTP,         /* -bs */
  MODE_BATCH_SMTP,   /* -bS */
  MODE_DAEMON,       /* -bd, -bdf */
  MODE_INETD_WAIT,   /* -bw */
  MODE_QUEUE_RUN,    /* -q without time, -R, -S */
  MODE_QUEUE_DAEMON, /* -q<time> without -bd */
  MODE_HOST_TEST,    /* -bh, -bhc */
  MODE_ADDRESS_TEST, /* -bt */
  MODE_VERIFY,       /* -bv, -bvs */
  MODE_EXPAND_TEST,  /* -be, -bem */
  MODE_PRINT,        /* -bP */
  MODE_VERSION,      /* -bV */
  MODE_INFO,         /* -bI: */
  MODE_QUEUE_LIST,   /* -bp… */
  MODE_MESSAGE,      /* -M… */
  MODE_RETRY_TEST,   /* -brt */
  MODE_REWRITE_TEST, /* -brw */
  MODE_FILTER_TEST,  /* -bf, -bF */
  MODE_MALWARE_TEST, /* -bmalware */
  MODE_ALIASES,      /* -bi */
  MODE_ATRN,         /* -atrn */
  MODE_AUTHCHECK,    /* martlet authcheck … */
  MODE_TLS_REPORT,   /* martlet tls-report … */
  MODE_DMARC_REPORT, /* martlet dmarc-report … */
  MODE_HELP,
  MODE_DEMO,         /* --demo DIR: make run */
  MODE_UTILITY,      /* --dumpdb and the like: see utilities.c */
};

enum cli_delivery { DELIVER_BACKGROUND, DELIVER_FOREGROUND, DELIVER_QUEUE, DELIVER_QUEUE_SMTP };
/* MAIL_OK: as MAIL, with exit status 0 when the report was sent. */
enum cli_errors { ERRORS_MAIL, ERRORS_STDERR, ERRORS_MAIL_OK, ERRORS_WRITE };

/* One queue runner: -q[q][i][f[f]][l][G<name>[/<time>]][<time>]. */
struct cli_queue_run {
  bool two_stage, first_only, force, force_frozen, local_only;
  struct str queue_name;
  int64_t interval; /* seconds; 0: once, now */
};

struct cli {
  struct arena *arena;
  const char *program;    /* argv[0] without its directory */
  enum cli_mode mode;
  bool mode_given;
  bool incompatible;      /* with each other: what was given */
  bool selects;           /* -R or -S */
  bool foreground;        /* -bdf, -bw, or -d with -bd */
  bool caching_test;      /* -bhc */
  bool verify_sender;     /* -bvs */
  struct str mode_arg;    /* address of -bh, letters of -bp, letters of -M, subject of -bI:, file of -bem */
  struct str config_files; /* -C */
  bool config_given;
  VEC(struct str) macros; /* -D: "NAME" or "NAME=value" */
  VEC(struct str) args;   /* recipients, addresses, ids, expressions */
  enum cli_delivery delivery;
  bool delivery_given;
  enum cli_errors errors;
  bool errors_given;
  bool from_header_recipients; /* -t */
  bool dot_is_data;            /* -i, -oi */
  bool dot_given;
  struct str sender;           /* -f, -r; unset: not given */
  bool sender_given;
  struct str full_name;        /* -F */
  struct str oMa, oMaa, oMai, oMas, oMi, oMm, oMr, oMs, oMt;
  int64_t receive_timeout;     /* -or; -1 */
  int64_t smtp_timeout;        /* -os; -1 */
  struct str pid_file;         /* -oP */
  bool remove_pid_file;        /* -oPX */
  struct str listen;           /* -oX */
  bool no_notifier;            /* -oY */
  bool perl_now, perl_delayed; /* -ps, -pd */
  bool explain;                /* martlet explain EXPRESSION… */
  const char *session_file;    /* explain --session FILE */
  struct str session_host;     /* --host ADDRESS: who the client is; unset: not given */
  bool tls_on_connect;         /* -tls-on-connect */
  bool verbose;                /* -v */
  bool debug;
  bool no_daemon_debug;        /* -dd */
  bool debug_config;           /* -dS */
  bool no_delivery;            /* -N */
  bool no_qualify;             /* -bnq */
  bool suppress_names;         /* -n */
  bool mua_submission;         /* -G: suppress local fixups */
  struct str syslog_tag;       /* -L */
  struct str log_line;         /* -z */
  struct str queue_times;      /* -Tqt, harness */
  VEC(struct cli_queue_run) queue_runs;
  struct str select_recipient, select_sender; /* -R, -S */
  bool select_recipient_regex, select_sender_regex;
  bool load_message;           /* -Mset: the first of args is the id of a message for -be */
  struct str bounce_id;        /* -E */
  struct str user_filter, system_filter; /* -bf, -bF: the files; unset: not given */
  struct str test_domain, test_local_part, test_prefix, test_suffix; /* -bfd, -bfl, -bfp, -bfs */
  int max_batch;               /* -oB */
  struct str call;             /* the command, for the log: cli_call_text; unset: it has no place there */
};

/* Parses argv; on a usage error writes it to stderr and returns the exit
status in *ret_status with false. The program's name selects a mode first
(mailq, newaliases, runq, rmail, rsmtp, exim, sendmail …). */
bool cli_parse(struct cli *cli, struct arena *a, int argc, char **argv, int *ret_status);
/* "cwd=/home/ann 3 args: sendmail -t -i", as the log selector `arguments` has it. Cut beyond 8,000 bytes, tainted. */
struct str cli_call_text(struct arena *a, int argc, char **argv);
/* The short help of `martlet --help`. */
void cli_help(const char *program);
