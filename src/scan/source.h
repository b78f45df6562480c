/* Text that is scanned: the message's body in the spool, in memory or in its file, or a range of another file. Read in lines,
with a window that does not grow. */
#pragma once

#include "base/str.h"

struct arena;
struct ctx;

struct scan_source {
  struct str memory;    /* all of it, when it is in memory; else unset */
  int fd;               /* else: read with pread() */
  uint64_t start;       /* of the text in the file */
  uint64_t size;
  bool owned;           /* close() the file at the end */
};

/* The body of c->message, with LF line ends. 0 or -errno; scan_source_close() when done. */
int scan_source_body(struct ctx *c, struct scan_source *ret);
void scan_source_close(struct scan_source *s);

#define SCAN_LINE_MAX 32768   /* longer lines come in pieces */
#define SCAN_WINDOW (128u << 10)

struct scan_reader {
  const struct scan_source *source;
  uint64_t at, end;     /* offsets in the source: of the next byte to give, of the end */
  char *window;         /* of a source in a file */
  size_t n, used;
  uint64_t work;
  bool middle;          /* the next piece goes on a line */
};

/* [from, to) of the source; the window lies in `a`. */
void scan_reader_init(struct scan_reader *r, struct arena *a, const struct scan_source *s, uint64_t from, uint64_t to);
/* Goes elsewhere in the source, with the same window; what is in it is not read again. */
void scan_reader_seek(struct scan_reader *r, uint64_t from, uint64_t to);
/* The next line with its LF (the last may lack one), or a piece of a long one: *ret_first tells whether the line begins here.
Valid until the next call; tainted. 1, 0 at the end, or -errno. [suspends] */
int scan_reader_line(struct scan_reader *r, struct str *ret, bool *ret_first);
/* The next lines, as many whole ones as are at hand and SCAN_WINDOW at most. A line that begins with "--" comes alone (or in pieces):
delimiters of MIME are among them. Else as scan_reader_line(). */
int scan_reader_lines(struct scan_reader *r, struct str *ret, bool *ret_first);
/* The next bytes, as many as there are at hand. 1, 0 at the end, or -errno. [suspends] */
int scan_reader_bytes(struct scan_reader *r, struct str *ret);
