/* The reader's parts, for the files of src/config only: lines (lexer.c),
macros (macros.c), values (values.c), options (options.c), drivers
(drivers.c), and what puts them together (read.c). */
#pragma once

#include <stdio.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/vec.h"
#include "config/config.h"
#include "config/value.h"

#define CONFIG_LINE_MAX (1u << 20)      /* a logical line, after macros */
#define CONFIG_FILES_MAX 1000           /* files read, each inclusion counts */
#define CONFIG_DEPTH_MAX 50             /* nesting of .include and of .ifdef */
#define CONFIG_NAME_MAX 64              /* drivers, macros, lists */
#define CONFIG_ERRORS_MAX 20
#define CONFIG_TEXT_MAX (64u << 20)     /* all files together */

/* One file being read: its whole text is in memory. */
struct config_file {
  struct str rest;
  uint32_t number;   /* in config->files */
  uint32_t line;     /* of the last line read */
  struct config_file *parent;
};

/* Where a run of .ifdef … .endif stands. */
enum conditional { COND_TRUE, COND_NOT_YET /* false so far */, COND_DONE /* a branch was taken */ };

struct config_reader {
  struct config *config;
  struct arena *arena;
  const struct config_source *source;
  struct config_file *file;
  uint32_t files_read;
  size_t text_read;
  uint32_t end_file, end_line;         /* where reading stopped, for errors after the end */
  enum conditional conditionals[CONFIG_DEPTH_MAX];
  uint32_t n_conditionals, n_skipped;  /* n_skipped: .ifdefs opened inside a part that is skipped */
  bool held;                           /* `line` is given again by the next config_next_line */
  struct str line;
  const char *item_kind;               /* of the item whose checks run: errors then name it, not a line */
  struct str item_name;
  uint32_t n_errors;
  VEC(struct str) sections;            /* the names that "begin" has named */
  bool at_end;                         /* the checks of the whole run: errors name no line */
  bool stop;                           /* nothing sensible can follow */
  struct buf errors;
  struct map *builtin;                 /* builtin macros by name: struct config_macro * */
  size_t first_macro;                  /* of config->macros: the builtin ones stand before it */
  VEC(struct early_option) early;      /* options to be expanded when all is read */
};

/* An option whose value is worked out at the end of the file: it is expanded there. */
struct early_option {
  const struct option_def *def;
  void *block;
  struct str text;
  struct config_where where;
};

/* --- lexer.c --- */

/* Opens the first file. 0 or OUTCOME_ERROR. */
int config_open(struct config_reader *r);
/* The next logical line, trimmed, never empty. False at the end of the configuration. */
bool config_next_line(struct config_reader *r, struct str *ret);
/* Gives the last line back. */
void config_hold_line(struct config_reader *r);

/* --- macros.c --- */

void config_macros_builtin(struct config_reader *r);
/* -D, before the file. */
void config_macros_command_line(struct config_reader *r);
/* Replaces macros in one physical line; *ret_changed: something was replaced. */
int config_macros_replace(struct config_reader *r, struct str line, struct str *ret, bool *ret_changed);
/* Does the line define a macro: NAME = value, NAME == value? */
bool config_is_macro_line(struct str line);
int config_macro_line(struct config_reader *r, struct str line);

/* --- options.c --- */

/* Fills a new block with the table's defaults. */
void config_defaults(struct config_reader *r, const struct option_def *defs, void *block);
/* What stands before the option's name is taken apart. */
struct option_line {
  struct str name;    /* without a negation that belongs to no option's name */
  bool hide, negated;
  struct str rest;    /* behind the name, left-trimmed */
};
/* "hide", the name with or without no_/not_, the rest. False when the line does not start with a name. */
bool config_option_line(struct str line, struct option_line *ret);
const struct option_def *config_option_find(const struct option_def *defs, struct str name);
/* The option of that line in a table (an alias is followed); *ret_negated: by its prefix. NULL: none. */
const struct option_def *config_option_match(const struct option_def *defs, const struct option_line *l, bool *ret_negated);
/* Sets def in block from the line. `seen` (a byte for each entry of defs): set twice is an error. */
int config_option_set(struct config_reader *r, const struct option_def *defs, const struct option_def *def, void *block,
    uint8_t *seen, const struct option_line *l, bool negated);
/* A string value, with or without quotes; errors name the item. */
int config_named_value(struct config_reader *r, struct str name, struct str text, struct str *ret);
/* Expands and sets what had to wait. */
int config_options_early(struct config_reader *r);
/* The configuration will not be used but for its logs: what is not expanded becomes unset. */
void config_options_unfinished(struct config_reader *r);
/* Marks an option as hidden for good, in all instances of its driver. */
void config_hide(struct config *c, const struct option_def *def);

/* --- drivers.c --- */

extern const char *const config_class_names[DRIVER_CLASSES]; /* "router", … */

int config_read_drivers(struct config_reader *r, enum driver_class class);
/* References between drivers, when all is read. */
int config_link_drivers(struct config_reader *r);
