/* The tools around the queue and the logs, by the names that people know (Exim
manual, chapter "Exim utilities"): the one program under a link of such a name,
or with the name as its first word. They ask for what they need by running the
program as anybody else would, with the rights of the caller. */
#pragma once

#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

struct tool {
  struct arena *arena;
  const char *name;
  char **argv;          /* behind the name; NULL at the end */
  int argc;
  const char *exim;     /* the program to run; NULL: ourselves */
  bool quiet; /* what programs that are asked write on the error output is not shown */
};

/* The tool of that name; NULL: none. Its result is the exit status. In a fiber. */
int (*tool_find(const char *name))(struct tool *t);
/* Runs the tool in a loop of its own. */
int tool_run(int (*run)(struct tool *t), const char *name, int argc, char **argv);

int tool_checkaccess(struct tool *t);
int tool_exicyclog(struct tool *t);
int tool_exigrep(struct tool *t);
int tool_exinext(struct tool *t);
int tool_exiqgrep(struct tool *t);
int tool_exiqsumm(struct tool *t);
int tool_exiwhat(struct tool *t);
int tool_lock(struct tool *t);
int tool_msgdate(struct tool *t);
int tool_queue(struct tool *t);

/* --- shared --- */

/* Options that may stand together (-iz) and have their value behind them or in the next word: `letters` as for getopt.
The letter with *ret_value; 0: no more options; '?': unknown, said on stderr. */
struct tool_options {
  int at, place; /* the next word, and the letter in it */
};
int tool_option(struct tool *t, struct tool_options *o, const char *letters, struct str *ret_value);
/* Runs the program with these words (NULL at the end); its standard output, at most 1 GiB, in *ret. The exit status, or -1 after a
message. [suspends] */
int tool_ask(struct tool *t, const char *const *words, struct str input, struct str *ret);
/* The value of a main option as -bP says it: what is behind " = "; -C and -D come from `words`. */
bool tool_main_option(struct tool *t, const char *const *words, const char *option, struct str *ret);
/* The next line without its end into the arena; false at the end. */
bool tool_read_line(FILE *f, struct arena *a, struct str *ret);
/* "25m" of a queue listing as seconds; -1: it is none. "2.9K" as bytes. */
int64_t tool_age(struct str s);
int64_t tool_size(struct str s);

/* One message of a queue listing (-bp). */
struct tool_message {
  struct str age, size, id, sender; /* the sender with its brackets */
  bool frozen;
  struct str *recipients;           /* as they stand there, marks of those that are done in front */
  size_t n;
};
/* Takes the next message off a listing: 1, 0 at the end, -1 when a line is none of a listing (said on stderr). */
int tool_take_message(struct tool *t, struct str *listing, struct tool_message *ret);
