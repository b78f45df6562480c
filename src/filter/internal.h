/* Compiled Exim filters: what parse.c makes and run.c obeys. */
#pragma once

#include "expand/expand.h"
#include "filter/filter.h"

enum filter_command_kind {
  COMMAND_ADD, COMMAND_DEFER, COMMAND_DELIVER, COMMAND_FAIL, COMMAND_FINISH, COMMAND_FREEZE, COMMAND_HEADERS, COMMAND_IF,
  COMMAND_LOGFILE, COMMAND_LOGWRITE, COMMAND_MAIL, COMMAND_PIPE, COMMAND_SAVE, COMMAND_TESTPRINT, COMMAND_VACATION,
};

enum { MAIL_TO, MAIL_CC, MAIL_BCC, MAIL_FROM, MAIL_REPLY_TO, MAIL_SUBJECT, MAIL_HEADERS, MAIL_TEXT, MAIL_FILE, MAIL_LOG, MAIL_ONCE,
  MAIL_ONCE_REPEAT, MAIL_ARGS };
extern const char *const filter_mail_words[MAIL_ARGS];

/* A value as written, and its tree. text unset: not given. */
struct filter_value {
  struct str text;
  const struct expr *tree;
};

struct filter_command {
  enum filter_command_kind kind;
  bool seen, seen_given, noerror;
  char headers;                  /* 'a'dd, 'r'emove, 'c'harset */
  int mode;
  struct filter_value value[2];  /* the argument, and a second one: errors_to, the variable of add */
  struct filter_value *mail;     /* MAIL_ARGS of them */
  bool expand_file, return_message;
  struct filter_test *test;      /* of if */
  struct filter_command *then, *otherwise;
  struct filter_command *next;
};

enum filter_test_kind {
  TEST_AND, TEST_OR, TEST_ABOVE, TEST_BEGINS, TEST_BELOW, TEST_CONTAINS, TEST_ENDS, TEST_IS, TEST_MATCHES, TEST_DELIVERED,
  TEST_ERROR_MESSAGE, TEST_FIRST_DELIVERY, TEST_FORANYADDRESS, TEST_MANUALLY_THAWED, TEST_PERSONAL,
};

struct filter_test {
  enum filter_test_kind kind;
  bool negated, caseful;
  struct filter_value left, right;
  VEC(struct filter_test *) parts; /* AND, OR: at least two; FORANYADDRESS: one */
  VEC(struct filter_value) aliases;
};

struct sieve_program;
struct filter_program {
  struct str error;              /* set: does not compile */
  struct filter_command *commands;
  const struct sieve_program *sieve; /* it is a Sieve script: this instead */
};

/* --- parse.c, condition.c --- */
struct filter_parser {
  struct arena *arena;
  struct str text;
  size_t at;
  int line, depth;
  const struct filter_rules *rules;
  struct str error;              /* the first one */
};
/* Compiles `text` into `a`. */
struct filter_program *filter_compile(struct arena *a, struct str text, const struct filter_rules *rules);
bool filter_parse_error(struct filter_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The next word; empty at the end. Brackets end words in conditions, and are words there. */
bool filter_parse_word(struct filter_parser *p, bool bracket, struct str *ret);
/* The word that comes next, which stays. */
struct str filter_peek_word(struct filter_parser *p, bool bracket);
/* A value, perhaps in quotes; empty at the end. */
bool filter_parse_value(struct filter_parser *p, bool bracket, struct filter_value *ret);
/* A condition up to (and with) `then`. */
bool filter_parse_condition(struct filter_parser *p, struct filter_test **ret);

/* --- cache.c --- */
struct filter_cached;
/* The compiled text, to be given back after use. */
const struct filter_program *filter_cache_get(struct str text, const struct filter_rules *rules, struct filter_cached **ret_held);
void filter_cache_release(struct filter_cached *e);

/* --- run.c --- */
struct filter_runner {
  struct ctx *c;
  const struct filter_rules *rules;
  struct filter_result *result;
  struct filter_vars *vars;
  bool delivered, log_given;
  unsigned level, steps;
  struct str log_name;
  int log_mode;
};
int filter_fail(struct filter_runner *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The value expanded. False: the run has ended with an error; `where` is "deliver command" or "filter file". */
bool filter_expand(struct filter_runner *r, const struct filter_value *v, const char *where, struct str *ret);
/* For showing: the address with qualify_domain when it has no domain. */
struct str filter_qualified(struct ctx *c, struct str address);
bool filter_step(struct filter_runner *r); /* counts one; false: too many */
struct filter_item *filter_add_item(struct filter_runner *r, enum filter_item_kind kind, struct str text);

/* --- test.c --- */
/* 0 with *ret, or -1 when the run has ended. */
int filter_test(struct filter_runner *r, const struct filter_test *t, bool top, bool *ret);
/* --- personal.c --- */
/* Is the message for this recipient personally? */
bool filter_is_personal(struct ctx *c, const struct str *aliases, size_t n);
/* --- mail.c --- */
int filter_mail(struct filter_runner *r, const struct filter_command *cmd);
/* --- command.c --- */
/* Takes a pipe's command apart into item->argv. */
void filter_expand_command(struct filter_runner *r, struct str command, struct filter_item *item);
/* --- log.c --- */
int filter_log_write(struct filter_runner *r, struct str text);
/* --- module.c --- */
void filter_system_count(struct ctx *c, int i, struct str *ret);
/* --- sieve.c --- */
void filter_run_sieve(struct ctx *c, const struct sieve_program *program, const struct filter_rules *rules, struct filter_result *ret);
