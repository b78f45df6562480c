/* A feature is a room (DESIGN §2): one const struct module that says which
words it adds to the language and at which moments it wants to be called. The
core knows no feature by name; src/registry.c lists the modules. All tables
end with an entry whose name is NULL; all may be NULL. */
#pragma once

#include "base/outcome.h"
#include "base/str.h"
#include "config/option.h"

struct acl_condition_def;  /* acl/acl.h */
struct acl_modifier_def;
struct acl_control_def;
struct acl_verify_def;
struct arena;
struct authenticator_def;  /* sasl/authenticator.h */
struct config;
struct config_reader;
struct config_section_def; /* config/config.h */
struct ctx;
struct driver_class_def;   /* config/config.h */
struct driver_def;         /* config/config.h */
struct expand_condition_def; /* expand/expand.h */
struct expand_item_def;
struct expand_operator_def;
struct lookup_def;         /* lookup/lookup.h */
struct message;
struct session;
struct smtp_param_def;     /* smtp/server/server.h */
struct smtp_verb_def;
struct spool_reader;       /* queue/spool.h */
struct spool_writer;
struct variable_def;       /* expand/expand.h */

/* State that a module keeps with each message or session. The block is made
zeroed with the message's (session's) arena; message_module_state(msg, module). */
struct module_message_state {
  size_t size;
  /* Writes the module's `-name value` lines of the -H file; reads one: true if it was its own. */
  void (*write_spool)(struct spool_writer *w, const struct message *m, const void *state);
  bool (*read_spool)(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value);
  void (*release)(struct message *m, void *state);
};

struct module_session_state {
  size_t size;
  void (*init)(struct session *s, void *state);
  void (*release)(struct session *s, void *state);
};

struct log_selector_def {
  const char *name;
  bool on_by_default;
};

/* A library that the module uses, for the "Library version:" lines of -d. */
struct library_def {
  const char *name;
  const char *compile;           /* the version whose headers it was built with */
  const char *(*runtime)(void);  /* the version that is loaded; NULL: there is none */
};

struct address;
struct instance;

/* A message that is about to be sent to another host. */
struct message_signing {
  const struct instance *transport;
  struct address *chain;  /* for whom */
  /* Makes `head` ready, which is only asked for when somebody signs: a transport filter may have to run. [suspends]
  0, or negative with c->error; the sender of the message knows why. */
  int (*open)(struct ctx *c, struct message_signing *s);
  struct str head;        /* after open(): the header as it will be sent, LF line ends, with the empty line */
  /* Gives the body in pieces with LF line ends, as often as it is called. [suspends] 0 or -errno. */
  int (*body)(struct ctx *c, struct message_signing *s, void (*piece)(void *arg, struct str data), void *arg);
  struct str added;       /* fields to go above the header; modules put theirs in front */
  struct str log;         /* for the delivery's log line; unset: nothing */
};

/* Moments. Each may suspend its fiber. Those that return int can refuse:
OUTCOME_OK goes on; OUTCOME_FAIL / OUTCOME_DEFER refuse for good / for now with
ctx->user_message and ctx->log_message. */
struct module_hooks {
  int (*session_start)(struct ctx *c);                    /* connection accepted, before the connect ACL */
  void (*ehlo_keywords)(struct ctx *c, void (*add)(void *arg, struct str line), void *arg);
  int (*header_end)(struct ctx *c);                       /* the header of an incoming message is complete, as it came */
  /* Each piece of the body as it comes, with LF line ends, as the spool holds it. May not suspend. */
  void (*body_chunk)(struct ctx *c, struct str data);
  int (*message_end)(struct ctx *c);                      /* all data in, before the DATA ACL */
  /* After message_end of all modules, before the DATA or non-SMTP ACL: an ACL of the module's own. enum acl_result; *ret_where
  is an enum acl_where, *ret_what the text for the log line of a rejection. */
  int (*message_check)(struct ctx *c, int *ret_where, const char **ret_what);
  int (*message_accept)(struct ctx *c);                   /* after all ACLs have accepted it, before message_received */
  void (*message_received)(struct ctx *c);                /* after "250" was decided, before the spool file is written */
  int (*before_router)(struct ctx *c, struct address *a); /* FAIL: this router is skipped; DEFER: with a->message */
  void (*received_log)(struct ctx *c, void (*add)(void *arg, struct str item), void *arg);  /* items for the <= line */
  void (*rejected_log)(struct ctx *c, void (*add)(void *arg, struct str item), void *arg); /* for lines of rejections */
  /* Results for ${authresults}, "spf=pass smtp.mailfrom=a.example" (RFC 8601, section 2.2). */
  void (*authresults)(struct ctx *c, void (*add)(void *arg, struct str item), void *arg);
  /* OUTCOME_OK: added and log say what to do. Other outcomes defer the delivery with c->error, which has been logged. */
  int (*message_sign)(struct ctx *c, struct message_signing *s);
  /* Would message_sign want to see what this transport sends? Then nothing is sent before it is here as a whole. */
  bool (*signs)(const struct instance *transport);
  void (*delivery_log)(struct ctx *c, struct address *a, void (*add)(void *arg, struct str item), void *arg); /* => ** == */
};

struct module {
  const char *name;     /* "smtp-server" */
  const char *summary;
  const char *support;  /* words for "Support for:" of -bV, or NULL */
  /* Main options: one block a configuration. */
  const struct option_def *main_options;
  size_t main_size;
  /* Defaults that the table cannot hold (of the build, of this host); before the configuration is read. May be NULL. */
  void (*main_defaults)(void *block, struct arena *a);
  /* After the whole configuration is read: checks, derived values. 0 or OUTCOME_ERROR after config_error(). */
  int (*main_check)(struct config_reader *r, void *block);
  const struct config_section_def *sections;
  const struct acl_condition_def *acl_conditions;
  const struct acl_modifier_def *acl_modifiers;
  const struct acl_control_def *acl_controls;
  const struct acl_verify_def *acl_verifies; /* words of `verify =` */
  const struct variable_def *variables;
  const struct expand_item_def *items;
  const struct expand_operator_def *operators;
  const struct expand_condition_def *conditions;
  const struct lookup_def *const *lookups;   /* NULL-terminated arrays of pointers */
  const struct driver_def *const *drivers;   /* routers, transports, authenticators */
  const struct driver_class_def *driver_class; /* of the one module that owns routers, transports or authenticators */
  /* Options added to all routers / transports, or to the driver named. */
  struct module_driver_options {
    int class;               /* enum driver_class */
    const char *driver;      /* NULL: generic */
    const struct option_def *options;
    size_t size;
  } const *driver_options;
  const struct log_selector_def *log_selectors;
  const struct smtp_verb_def *smtp_verbs;
  const struct smtp_param_def *mail_params, *rcpt_params;
  const char *const *scanners; /* names for "Malware:" of -bV */
  const char *const *macros; /* builtin macros beyond those made from the tables: "_HAVE_X" (value "y"), "_X=value" */
  const struct library_def *libraries;
  struct module_message_state message_state;
  struct module_session_state session_state;
  struct module_hooks hooks;
};

/* The registry (src/registry.c): all modules, NULL-terminated. A module's
number is its place in it. */
extern const struct module *const modules[];
size_t module_count(void);
size_t module_number(const struct module *m);

/* All builtin macros (Exim manual, "Builtin macros"), made from the modules' tables; what is not supported yet has none. */
void module_builtin_macros(void (*add)(void *arg, const char *name, const char *value), void *arg);

/* The state block of a module with a message or session. */
void *message_module_state(struct message *m, const struct module *mod);
void *session_module_state(struct session *s, const struct module *mod);
