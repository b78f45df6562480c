/* The configuration: read once into one immutable object (DESIGN §3). Rooms
keep their main options in a block of their own: a module's table fills it,
and config_block() gives it back.

Reading order: files, macros and conditionals -> logical lines -> sections.
What a section's lines mean is told by the module that owns the section
(struct config_section_def); routers, transports and authenticators share the
driver-section reader here. */
#pragma once

#include "base/arena.h"
#include "base/map.h"
#include "base/outcome.h"
#include "base/str.h"
#include "base/vec.h"
#include "config/option.h"

struct module;
struct acl;
struct config_reader;

struct config_macro {
  struct str name, value;
  bool builtin, from_command_line;
};

/* A named list (domainlist, hostlist, addresslist, localpartlist). */
struct named_list {
  struct str name;
  enum list_kind kind;
  struct option_expr value;
  bool hide;
  bool cache;      /* `domainlist_cache` and so on: results are remembered although the list is expanded */
  uint32_t number; /* index among the lists of its kind, for result caching */
};

/* One configured driver: a router, transport or authenticator. */
struct instance {
  struct str name;
  const struct driver_def *driver;
  struct config_where where;
  void *generic;  /* block of the class's generic options (struct router_options …) */
  void *options;  /* block of the driver's own options */
  void **extra;   /* blocks of options that other modules add, by module number */
  struct instance *next;
  uint32_t number; /* position from 0 */
};

enum driver_class { DRIVER_ROUTER, DRIVER_TRANSPORT, DRIVER_AUTHENTICATOR, DRIVER_CLASSES };

/* A kind of driver. The class's room casts `driver_def` to its own struct,
whose first member this is (struct router_def …). */
struct driver_def {
  const char *name;     /* "accept" */
  enum driver_class class;
  const struct option_def *options;
  size_t options_size;
  const char *summary;  /* one line for -bV style help */
  bool later;           /* known, not there yet: not told by -bV, no builtin macros; its init refuses it */
  const char *subtypes; /* "maildir/mailstore/mbx" for -bV, or NULL */
  /* After the options of an instance are read: checks, defaults that depend
  on each other. 0 or OUTCOME_ERROR after config_error_at(). */
  int (*init)(struct config_reader *r, struct instance *i);
};

/* A class of drivers: the generic options that all its instances have. */
struct driver_class_def {
  enum driver_class class;
  const struct option_def *options; /* into instance->generic */
  size_t options_size;
  /* After the options of an instance are read, before the driver's own init. */
  int (*init)(struct config_reader *r, struct instance *i);
  /* After the whole configuration is read (references to other drivers). Both: 0 or OUTCOME_ERROR; may be NULL. */
  int (*link)(struct config_reader *r, struct instance *i);
};

/* The text of an OPTION_CUSTOM that cannot print itself. */
struct config_written {
  const struct option_def *def;
  const void *block;
  struct str text;
};

struct config {
  struct arena *arena;
  VEC(struct str) files;              /* names, for config_where */
  VEC(struct config_macro) macros;
  void **blocks;                      /* main options, by module number */
  struct map *lists[5];               /* of struct named_list, by enum list_kind */
  struct map *acls;                   /* of struct acl, in order */
  struct instance *drivers[DRIVER_CLASSES];
  void **section_data;                /* what a section's module keeps, by module number: config_section_data */
  VEC(struct str) text;               /* the effective lines, for -bP config */
  VEC(struct config_written) written; /* custom options as written, for -bP */
  VEC(const struct option_def *) hidden; /* set with `hide` */
  uint32_t generation;
  VEC(struct str) warnings;
};

/* A section (`begin NAME`) read line by line by its module. */
struct config_section_def {
  const char *name; /* "acl", "retry", "rewrite" */
  int (*line)(struct config_reader *r, struct str line);
  int (*end)(struct config_reader *r); /* at the end of the section; may be NULL */
};

struct config_source {
  struct str paths;              /* colon list, the first that exists is read; unset: the build's */
  struct str text;               /* if set: this text is read instead (name for errors in `paths`) */
  VEC(struct config_macro) macros; /* of -D */
  bool no_files;                 /* .include is refused: for text that did not come from this machine's disk */
  bool check_owner;              /* the file must be root's (or the caller's) and writable by nobody else */
  /* Expands what must be known when the file has been read (spool_directory, trusted_users …): expand/ gives it.
  NULL: such values may not hold `$`. 0, or OUTCOME_ERROR with *ret_error. */
  int (*expand)(struct config *c, struct arena *a, struct str text, struct str *ret, struct str *ret_error);
};

/* Reads a configuration. 0 and *ret, or OUTCOME_ERROR with *ret as far as it was read (for log_init only) and all messages in
*ret_errors (lines "Exim configuration error in line N of FILE: …" as the
manual has them, in our name). */
int config_read(const struct config_source *source, struct arena *arena, struct config **ret, struct str *ret_errors) MUST_CHECK;
void config_free(struct config *c);

/* The block of a module's main options. */
void *config_block(const struct config *c, const struct module *m);

/* What the module that owns a section keeps about it; NULL at first. */
void *config_section_data(const struct config *c, const struct module *m);
void config_set_section_data(struct config *c, const struct module *m, void *data);

/* The class's definition, from the module that owns it; NULL when no module does. */
const struct driver_class_def *config_driver_class(enum driver_class class);
const struct driver_def *config_driver_def(enum driver_class class, struct str name);

/* Was the option set with `hide`, anywhere in this configuration? */
bool config_is_hidden(const struct config *c, const struct option_def *def);

struct named_list *config_list(const struct config *c, enum list_kind kind, struct str name);
struct instance *config_driver(const struct config *c, enum driver_class class, struct str name);
struct acl *config_acl(const struct config *c, struct str name);

/* Calls fn for every option_expr of the configuration (main, drivers, lists),
so that expand/ and match/ can compile them. */
void config_each_expr(struct config *c, void (*fn)(struct config *c, struct option_expr *e, enum option_type type,
    enum list_kind list, void *arg), void *arg);

/* For the sections' readers. Errors are collected; reading goes on to the next line
where that makes sense. */
struct config *config_reader_config(struct config_reader *r);
struct arena *config_reader_arena(struct config_reader *r);
struct config_where config_reader_where(struct config_reader *r);
int config_error(struct config_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* returns OUTCOME_ERROR */
int config_error_at(struct config_reader *r, struct config_where w, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void config_warning(struct config_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A value as the manual's quoting rules read it: "…" with escapes, or the rest of the line. */
int config_value(struct config_reader *r, struct str text, struct str *ret);
/* The nearest name to `name` among `names` (count n, stride bytes apart), for "did you mean"; NULL if none is near. */
const char *config_nearest(struct str name, const void *names, size_t stride, size_t n);

/* "line 12 of /etc/exim4/exim4.conf" */
struct str config_where_text(const struct config *c, struct arena *a, struct config_where w);
