/* Compiled Sieve scripts (RFC 5228): what sieve_parse.c makes and sieve.c obeys. */
#pragma once

#include "filter/internal.h"

#define SIEVE_REDIRECTS_MAX 1000
#define SIEVE_VACATION_DAYS 7      /* when the script says nothing (RFC 5230, section 4.1) */
#define SIEVE_VACATION_DAYS_MAX 31
#define SIEVE_WORK_MAX (1u << 30)  /* bytes looked at by the comparisons of one run, nearly */

enum sieve_extension {
  SIEVE_FILEINTO = 1, SIEVE_ENVELOPE = 2, SIEVE_COPY = 4, SIEVE_VACATION = 8, SIEVE_SUBADDRESS = 16, SIEVE_ENOTIFY = 32,
  SIEVE_ENCODED_CHARACTER = 64, SIEVE_NUMERIC = 128,
};

enum sieve_match { SIEVE_IS, SIEVE_CONTAINS, SIEVE_MATCHES };
enum sieve_comparator { SIEVE_CASEMAP, SIEVE_OCTET, SIEVE_ASCII_NUMERIC };
enum sieve_part { SIEVE_ALL, SIEVE_LOCALPART, SIEVE_DOMAIN, SIEVE_USER, SIEVE_DETAIL };

struct sieve_strings {
  struct str *v;
  size_t n, cap;
};

enum sieve_test_kind {
  SIEVE_TEST_TRUE, SIEVE_TEST_FALSE, SIEVE_TEST_NOT, SIEVE_TEST_ALLOF, SIEVE_TEST_ANYOF, SIEVE_TEST_EXISTS, SIEVE_TEST_SIZE,
  SIEVE_TEST_HEADER, SIEVE_TEST_ADDRESS, SIEVE_TEST_ENVELOPE, SIEVE_TEST_VALID_NOTIFY, SIEVE_TEST_NOTIFY_CAPABILITY,
};

struct sieve_test {
  enum sieve_test_kind kind;
  enum sieve_match match;
  enum sieve_comparator comparator;
  enum sieve_part part;
  bool over;                    /* size */
  uint64_t size;
  struct sieve_strings names;   /* headers, parts of the envelope, URIs */
  struct sieve_strings keys;
  struct str capability;
  VEC(struct sieve_test *) parts;
};

enum sieve_command_kind {
  SIEVE_DO_IF, SIEVE_DO_STOP, SIEVE_DO_KEEP, SIEVE_DO_DISCARD, SIEVE_DO_REDIRECT, SIEVE_DO_FILEINTO, SIEVE_DO_VACATION, SIEVE_DO_NOTIFY,
};

struct sieve_vacation {
  int64_t days;
  struct str subject, from, handle; /* unset: not given */
  struct sieve_strings addresses;
  bool mime;
};

struct sieve_notify {
  struct str from, message;     /* unset: not given */
  char importance;              /* '1' to '3' */
  struct str to, subject, body; /* of the mailto: URI, decoded */
  struct sieve_strings names, values; /* of other header fields in it */
};

struct sieve_command {
  enum sieve_command_kind kind;
  int line;
  bool copy;
  struct str text;              /* address, folder, reason, method */
  struct sieve_vacation *vacation;
  struct sieve_notify *notify;
  struct sieve_test *test;
  struct sieve_command *then, *otherwise;
  struct sieve_command *next;
};

struct sieve_program {
  struct sieve_command *commands; /* up to the error, if there is one */
  struct str error;               /* unset: none; with the line's number */
};

/* --- sieve_lex.c --- */
struct sieve_parser {
  struct arena *arena;
  struct str text;
  size_t at;
  int line, depth;
  unsigned required;            /* SIEVE_… extensions */
  const struct filter_rules *rules;
  struct str error;             /* the first one */
};
/* False always: notes the first error with the present line. */
bool sieve_fail(struct sieve_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int sieve_error(struct sieve_parser *p, const char *text); /* the same, with -1 for functions that count */
bool sieve_skip(struct sieve_parser *p);                       /* white space and comments; false: an error */
/* These take what is there and say 1; 0: something else is there, nothing was taken; -1: an error. */
int sieve_take_byte(struct sieve_parser *p, char c);
int sieve_take_word(struct sieve_parser *p, const char *word); /* an identifier; with a colon in front a tag */
int sieve_take_string(struct sieve_parser *p, struct str *ret);
int sieve_take_list(struct sieve_parser *p, struct sieve_strings *ret);
bool sieve_take_number(struct sieve_parser *p, uint64_t *ret); /* false: an error; there must be one */
bool sieve_need(struct sieve_parser *p, enum sieve_extension e, const char *name);

/* --- sieve_condition.c --- */
bool sieve_parse_test(struct sieve_parser *p, struct sieve_test **ret);
bool sieve_need_string(struct sieve_parser *p, const char *missing, struct str *ret);
bool sieve_need_list(struct sieve_parser *p, const char *missing, struct sieve_strings *ret);

/* --- sieve_mailto.c --- */
/* Takes a mailto: URI apart (RFC 6068, RFC 5436). NULL, or what is wrong with it. */
const char *sieve_mailto(struct arena *a, struct str uri, struct sieve_notify *ret);

/* --- sieve_parse.c --- */
/* Compiles `text` into `a`. A script with an error is obeyed up to there, and the message is kept (Exim's Sieve notes). */
struct sieve_program *sieve_compile(struct arena *a, struct str text, const struct filter_rules *rules);

/* --- sieve_match.c --- */
bool sieve_matches(enum sieve_match match, enum sieve_comparator comparator, struct str value, struct str key);
/* An upper bound of what sieve_matches does with such strings. */
uint64_t sieve_match_work(enum sieve_match match, struct str value, struct str key);

/* --- sieve.c --- */
struct sieve_runner {
  struct filter_runner run;
  const struct sieve_program *program;
  bool keep;                    /* the implicit one */
  bool vacation_done;
  unsigned redirects;
  uint64_t work;
};
/* --- sieve_eval.c --- */
/* 0 with *ret, or -1 when the run has ended with an error. */
int sieve_test(struct sieve_runner *r, const struct sieve_test *t, bool *ret);
/* A header's value as scripts see it: unfolded, encoded words decoded to UTF-8. */
struct str sieve_header_text(struct ctx *c, struct str value);
/* --- sieve_reply.c --- */
int sieve_vacation(struct sieve_runner *r, const struct sieve_command *cmd);
int sieve_notify(struct sieve_runner *r, const struct sieve_command *cmd);
/* The recipient's address as it was before prefix and suffix were taken off. */
struct str sieve_recipient(struct ctx *c);
