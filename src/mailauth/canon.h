/* Canonical forms of header fields and bodies (RFC 6376, section 3.4), for
DKIM, ARC and what comes after them. Input has LF line ends, as the spool
holds it; output CRLF. */
#pragma once

#include "base/buf.h"
#include "base/str.h"

enum canon { CANON_SIMPLE, CANON_RELAXED };

/* Adds a header field ("Name: value\n…"). Without `crlf` the last line has no end: the field that holds the signature. */
void canon_header(enum canon how, struct str field, bool crlf, struct buf *out);

/* A body comes piece by piece. `sink` gets the canonical bytes, at most `limit` of them (UINT64_MAX: all). */
struct canon_body {
  enum canon how;
  uint64_t limit;
  uint64_t total;         /* canonical bytes so far, those beyond the limit too */
  void (*sink)(void *arg, const char *p, size_t n);
  void *arg;
  uint64_t line_ends;     /* held back: empty lines at the end do not count */
  size_t n;               /* bytes not handed on yet */
  char before_out[8192];  /* a byte that is no blank, and what is canonical but not handed on yet */
};
void canon_body_begin(struct canon_body *b, enum canon how, uint64_t limit, void (*sink)(void *arg, const char *p, size_t n),
    void *arg);
void canon_body_add(struct canon_body *b, struct str data);
void canon_body_end(struct canon_body *b);
