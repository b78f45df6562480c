/* A one-shot command (or the start of the daemon): what main() has found out
and hands to the mode that runs. */
#pragma once

#include <stdio.h>
#include <sys/types.h>

#include "base/arena.h"
#include "cli/options.h"
#include "config/config.h"
#include "core/ctx.h"

struct process {
  struct arena *arena;
  struct cli cli;
  struct config_source source;
  struct config *config;
  struct ctx *ctx;
  uint32_t real_uid, real_gid;
  struct str login, real_name;   /* of the caller */
  bool set_uid;                  /* installed set-uid root and called by somebody else */
  bool can_switch;               /* root at hand: local deliveries can run as other users */
  bool trusted, admin;
  FILE *out, *err;               /* standard output and error, or what stands for them */
  bool served;                   /* in the daemon, for a caller of the local socket: nothing process-wide may be changed */
  const struct local_caller *caller; /* then */
  struct stream *stream;         /* his input and output then; NULL: descriptors 0 and 1 */
};

/* login, real_name, trusted and admin from real_uid, real_gid and the groups. [suspends] */
void process_identify(struct process *p, const gid_t *groups, int n);

/* Who calls, and what he may (trusted_users, admin_groups …). Drops what is not needed. 0, or -1 after a message. */
int process_settle(struct process *p);
/* -f: must be an address; 0, or 1 after a message. */
int process_check_sender(struct process *p);
/* The command, if log_selector asks for `arguments`. */
void process_log_call(const struct process *p);
/* keep_environment, add_environment: before any library or child reads it. */
void environment_clean(struct process *p);
/* The message's client, for tests: the caller, or what -oM… say. False after a message on stderr. */
bool process_set_client(struct process *p);
/* -ps, perl_at_start. 0, or 1 after a message. In tests of expansions after the privilege is gone. [suspends] */
int process_start_perl(struct process *p);
/* For modes that only admins may use: false after a message on stderr. */
bool process_require_admin(struct process *p);

/* Modes; each returns the exit status. They run inside a fiber. */
int mode_version(struct process *p);
int mode_print(struct process *p);
int mode_info(struct process *p);
void print_features(FILE *out);           /* -bI:features, JSON: module -> kind of word -> names */
int mode_expand(struct process *p);
int mode_explain_session(struct process *p); /* explain --session FILE */
int mode_address(struct process *p);   /* -bt, -bv, -bvs */
int mode_retry(struct process *p);     /* -brt */
int mode_rewrite(struct process *p);   /* -brw */
int mode_receive(struct process *p);   /* a message, -bs, -bS, -bh */
int mode_queue(struct process *p);     /* -q, -bp, -M */
int mode_filter(struct process *p);    /* -bf, -bF */
int mode_aliases(struct process *p);   /* -bi */
int mode_atrn(struct process *p);      /* -atrn */
int mode_authcheck(struct process *p); /* authcheck */
int mode_malware(struct process *p);   /* -bmalware */
int mode_tls_report(struct process *p);   /* tls-report */
int mode_dmarc_report(struct process *p); /* dmarc-report */
struct smtp_params;
/* An SMTP session over a connection that a mode has made itself: *sp has the stream, which is freed, and the peer. What it brings is delivered as
that of -bs is. [suspends] */
int process_receive_session(struct process *p, struct smtp_params *sp);
/* --- for tests with a message: expand.c --- */
/* Takes the header lines off `text`, into the message; returns where the body begins. */
size_t process_read_header(struct message *m, struct str text);
/* Keeps the body where the spool would have it. False: errno. */
bool process_keep_body(struct message *m, struct str body);
/* All privilege goes: a caller may read no more than he could without us. False after a message on stderr. */
bool process_become_caller(struct process *p);
int mode_log_line(struct process *p);  /* -z */
int mode_utility(struct process *p);
/* Not in a fiber: it forks. */
int mode_daemon(struct process *p);
/* Before a configuration is read. */
int mode_demo(struct process *p);
