/* Main, reject and panic logs in Exim's line format, to files and syslog
(Exim manual, chapter "Log files"). Each line is one write(2) with O_APPEND.
Never suspends; a log that cannot be written goes to the panic log, then to
stderr/syslog. Control characters from outside are escaped. */
#pragma once

#include <stdarg.h>
#include "base/str.h"
#include "base/arena.h"

struct config;
struct message;

#define LOG_MAIN 1u
#define LOG_PANIC 2u
#define LOG_REJECT 4u
#define LOG_PANIC_DIE 8u /* after writing, the process exits with failure: only one-shot commands at start-up */

/* Selectors, as bits: the core's own list; modules' selectors follow (log_selector_number). */
enum log_selector {
#define X(name, on) LOGSEL_##name,
#include "log/selectors.def"
#undef X
  LOGSEL_CORE_COUNT
};

/* Paths, selectors, syslog and time zone of the configuration; NULL: as built, for what comes before it is read. */
void log_init(const struct config *c);
/* The time stamp of a log line: "2001-09-16 16:09:47", with milliseconds and zone as configured. */
struct str log_stamp(struct arena *a);
void log_set_stderr(bool on);                /* panic lines are copied to stderr with their time: commands in the foreground */
/* How lines show on stderr besides, for -v, -d and the testing modes. */
enum log_echo {
  LOG_ECHO_NONE,
  LOG_ECHO_VERBOSE,    /* "LOG: MAIN REJECT", newline, two blanks, the text; the files are written too */
  LOG_ECHO_TESTING,    /* the same, and no file is written (-bt, -be) */
  LOG_ECHO_PANIC,      /* the same, but the panic log is written (a configuration that cannot be read, under -bP) */
  LOG_ECHO_STDERR,     /* as in the main log, and no file is written (-bv, -brw) */
  LOG_ECHO_HOST_CHECK, /* "LOG: text"; no file is written (-bh) */
};
void log_set_echo(enum log_echo echo);
bool log_is_verbose(void); /* LOG_ECHO_VERBOSE: the caller wants to see what is done (-v) */
bool log_selected(enum log_selector s);
bool log_selected_name(struct str name);

/* One line: time stamp, [pid] if selected, message id if the current context has one, text. */
void log_write(unsigned logs, const struct message *m, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void log_vwrite(unsigned logs, const struct message *m, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* One line to the main and reject logs; in the reject log `extra` (whole lines: envelope, header) follows it. */
void log_write_reject(const struct message *m, struct str line, struct str extra);
/* The same for the logs given. */
void log_write_with_headers(unsigned logs, const struct message *m, struct str line, struct str extra);
/* Text made safe for a log line: non-printing bytes as \ooo. */
struct str log_printable(struct arena *a, struct str s);
/* The same, but well-formed UTF-8 stays as it is, C1 control characters aside: for lines with addresses in them, which the
log shows as they are. */
struct str log_printable_utf8(struct arena *a, struct str s);
/* Reopen files after their removal by a log rotator (checked by inode at each write, cheaply). */
void log_reopen(void);
/* Copies of all lines go to fn as well (make run's coloured view, tests). */
void log_tap(void (*fn)(unsigned logs, struct str line, void *arg), void *arg);
void log_done(void);

/* -d: areas as Exim names them. */
enum debug_area {
#define X(name, on) DEBUG_##name,
#include "log/debug_areas.def"
#undef X
  DEBUG_COUNT
};
extern uint64_t debug_mask;       /* what goes to stderr */
extern uint64_t debug_file_mask;  /* what some debug log wants (log/debug_file.h) */
static inline bool debug_on(enum debug_area a) {
  return __builtin_expect(((debug_mask | debug_file_mask) >> a) & 1, 0);
}
/* What follows -d: "+all-memory"; empty is the default selection. 0, or -1 (debug_mask unchanged) with Exim's text. */
int debug_parse(struct arena *a, struct str selection, struct str *ret_error);
int debug_set(struct str selection); /* the same without the text */
/* The same into *ret_mask. */
int debug_select(struct arena *a, struct str selection, uint64_t *ret_mask, struct str *ret_error);
uint64_t debug_default_mask(void);
/* What stands before each line on stderr (">>> " of -bh); a literal. */
void debug_set_prefix(const char *prefix);
/* The debug log of that name, made from log_file_path: "…/debuglog" and `tag`. 0, or -1: no logs in files, or too long. */
int log_debug_name(struct str tag, char *name, size_t size);
void debug_print(enum debug_area a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define DEBUG(area, ...)                                                                                               \
  do {                                                                                                                 \
    if (debug_on(DEBUG_##area))                                                                                        \
      debug_print(DEBUG_##area, __VA_ARGS__);                                                                          \
  } while (0)
