/* Debug logs of single connections and messages (Exim manual, control = debug):
what the fibers of that work would print with -d goes to a file of its own. The
fiber's tag (loop/fiber.h) says which; fibers that it spawns inherit it. A log
that is closed takes nothing more, whoever still bears its number. Used by the
loop's thread only. */
#pragma once

#include "base/str.h"
#include "log/log.h"

struct debug_file_how {
  struct str path;          /* an untainted name */
  uint64_t mask;            /* areas */
  uint32_t pretrigger;      /* bytes kept in memory until something triggers; 0: written at once */
  bool on_panic;            /* a write to the panic log is a trigger */
};
#define DEBUG_FILE_PRETRIGGER_MAX (1u << 20)

/* Makes it the log of this fiber. Its number, to be closed some day; 0: there are too many, or the name will not do. */
unsigned debug_file_open(const struct debug_file_how *how);
/* Other areas for an open log. */
void debug_file_select(unsigned number, uint64_t mask);
/* What was kept goes to the file now, and all that follows. */
void debug_file_trigger(unsigned number);
/* The end; with `remove` the file goes, too. Nothing for a number that is closed already. */
void debug_file_close(unsigned number, bool remove);

/* For log/: does this fiber's log want that area? Adds a piece of text. */
bool debug_file_wants(enum debug_area area);
void debug_file_add(struct str text);
/* A line of the other logs, as -d shows it. */
void debug_file_log_line(unsigned logs, struct str text);
/* The time and the process, as asked for; the length. */
size_t debug_line_start(char *text, size_t size, bool stamp, bool pid);
