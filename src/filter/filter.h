/* Filters: the instructions with which users, and the administrator for all
messages, decide what becomes of a message (Exim's filter specification; RFC
5228 for Sieve). A filter delivers nothing: running it gives a list of items,
which routers and deliveries turn into addresses. A filter that was read is
kept compiled. Filters of users are foreign text: size, nesting and the number
of steps are bounded. */
#pragma once

#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"
#include "base/vec.h"
#include "core/ctx.h"

enum filter_kind { FILTER_NONE, FILTER_EXIM, FILTER_SIEVE };
/* What the beginning of a text says. */
enum filter_kind filter_kind(struct str text);

#define FILTER_ITEMS_MAX 10000
#define FILTER_STEPS_MAX 200000 /* commands and conditions of one run */
#define FILTER_DEPTH_MAX 60     /* of if commands, and of brackets */
#define FILTER_WORD_MAX 1024    /* the manual's limit on one value, before expansion */

#define FILTER_BAD_REPLY ">**bad-reply**" /* the address of a reply that has no valid recipient */
/* An answer that the filter wants sent (mail, vacation), or a notification (Sieve: not a delivery of the message, but sent at
once). Unset: not given. */
struct filter_reply {
  struct str to, cc, bcc, from, reply_to, subject, headers, text, file, log, once;
  int64_t once_repeat;  /* seconds; 0: never again */
  bool file_expand, return_message;
  bool once_directory;  /* the directory of `once` is made when it is missing (Sieve) */
};

enum filter_item_kind { FILTER_ADDRESS, FILTER_FILE, FILTER_PIPE, FILTER_REPLY, FILTER_NOTIFY };
struct filter_item {
  enum filter_item_kind kind;
  struct str text;       /* the address; the file; the command behind `|` (not expanded); a reply: `>` and its recipients;
                            a notification: its recipients */
  struct str errors_to;  /* of an address; unset: not given */
  int mode;              /* of a file; -1: not given */
  bool noerror;
  struct filter_reply *reply;
  /* A pipe's command, taken apart and expanded by whom the filter runs as. Unset error: all is well. */
  struct str *argv;
  int64_t argv_n;
  struct str shell_command; /* as a whole, for use_shell; unset: it does not expand */
  struct str pipe_error;
};

enum filter_outcome {
  FILTER_DELIVERED,     /* significant: the items are all that happens */
  FILTER_NOT_DELIVERED, /* the items happen besides normal delivery */
  FILTER_DEFER, FILTER_FAIL, FILTER_FREEZE, /* the commands; `text` is theirs */
  FILTER_ERROR,         /* `text` says what; items are to be ignored */
};

struct filter_result {
  enum filter_outcome outcome;
  struct str text;
  VEC(struct filter_item) items;
  int64_t n[10];        /* $n0 … $n9 at the end */
  bool headers_changed; /* of a system filter */
  bool keep;            /* Sieve: the message is kept because of an error in the script; `text` says which. Never FILTER_ERROR */
};

/* What the filter may do. */
struct filter_rules {
  bool system;          /* headers add and remove; errors_to as it likes; $recipients */
  bool allow_defer, allow_fail, allow_freeze;
  bool forbid_logwrite;
  unsigned forbid;      /* EXPAND_FORBID_… in its strings */
  bool manually_thawed; /* freeze has no effect */
  bool testing;         /* -bf: says what it would do on `out`, does nothing */
  bool verbose;         /* with it: results of conditions on stderr */
  FILE *out;
  /* Sieve; unset: not given */
  struct str sieve_subaddress, sieve_useraddress, sieve_inbox, sieve_vacation_directory, sieve_enotify_owner;
};

/* Sorted names, NULL at the end (-bI:sieve). */
extern const char *const filter_sieve_extensions[];

/* Runs a filter for c->message and what the variables say of the recipient. Everything in *ret is in c->arena. [suspends] */
void filter_run(struct ctx *c, struct str text, const struct filter_rules *rules, struct filter_result *ret);

/* --- in another process: what a filter's strings do to files and programs is done as its user --- */

enum filter_work { FILTER_WORK_RUN, FILTER_WORK_EXPAND };
#define FILTER_SECONDS 60 /* that such work may take */
/* The context as the filter sees it, what `rules` have of strings, and the text, as bytes. 0 or -EMSGSIZE, -EINVAL. [suspends] */
int filter_request_encode(struct ctx *c, enum filter_work work, struct str text, const struct filter_rules *rules, struct buf *out);
/* Does the work (never system filters) with another process's request; `rules` are ours but for the strings. body_fd: the -D file, which stays the
caller's. Ends with an answer in any case. */
void filter_request_serve(struct arena *a, struct config *config, const struct filter_rules *rules, struct str request, int body_fd,
    struct buf *answer);
/* The answer of FILTER_WORK_RUN, or of FILTER_WORK_EXPAND (outcome FILTER_DELIVERED with the text, or FILTER_ERROR).
False: malformed. */
bool filter_answer_decode(struct arena *a, struct str answer, struct filter_result *ret);
/* Each line of `text` expanded, but those that do not expand as they are. 0 or an outcome with c->error. [suspends] */
int filter_expand_lines(struct ctx *c, struct str text, struct str *ret);

/* For benchmarks and tests: compilations so far, and forgetting all compiled filters. */
size_t filter_compilations(void);
void filter_cache_clear(void);

/* $sn0 … $sn9 of the message: what its system filter left. */
struct message;
void filter_set_system_counts(struct message *m, const int64_t n[10]);

extern const struct module filter_module;
