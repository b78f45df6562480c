/* The one line-ending state machine of message input: DATA, BDAT and local
submission go through it (Exim manual, section "Line endings"; RFC 5321
sections 2.3.8 and 4.5.2). Out of it comes the message with LF line ends.

Rules:
 - CRLF ends a line. LF ends one only while the message's first line ended in
   a bare LF ("LF mode"), which its sender decides by its first line.
 - In CRLF mode a bare LF becomes a space in the body, and a continuation
   ("\n ") in the header.
 - A bare CR becomes a line end in the body, a continuation in the header. No
   line *starts* after it as far as dots are concerned.
 - Only a dot at the start of a line, followed by the line end of the mode,
   ends the data. So what another server takes for body text cannot be read
   here as the end of the message, nor the other way round (SMTP smuggling). */
#pragma once

#include "base/str.h"

enum dot_kind {
  DOT_SMTP,   /* a line with a dot ends the data, other leading dots are doubled */
  DOT_LOCAL,  /* a line with a dot ends the data, other dots stay as they are */
  DOT_PLAIN,  /* no end but the end of input: BDAT, -i */
};

struct dot {
  enum dot_kind kind;
  int state;
  bool header;            /* in the header section: set by dot_init, cleared by dot_body */
  bool mode_known, crlf;  /* CRLF mode */
  bool ended;             /* the terminating dot was seen */
  bool line_done;         /* header: a complete line has been put out */
  int64_t line_length, max_line_length;
  int64_t lines, zeros;   /* of what has been put out since dot_init or dot_body */
};

void dot_init(struct dot *d, enum dot_kind kind);
/* The header is complete: from now on body rules, and counters from 0 (line length excepted). */
void dot_body(struct dot *d);

/* At most this many bytes come out for n that go in. */
#define DOT_OUT_MAX(n) (2 * (n) + 4)

/* Takes bytes from `in`, puts out at most DOT_OUT_MAX(in.len) bytes. Returns how many were taken: all of them, unless
the data ended, or (header only) a line is complete: then d->ended or d->line_done says so. */
size_t dot_run(struct dot *d, struct str in, char *out, size_t *ret_out);
/* The end of input (DOT_PLAIN and DOT_LOCAL): puts out at most 2 bytes, so that the last line is complete. */
size_t dot_finish(struct dot *d, char *out);
