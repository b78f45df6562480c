/* dccifd's protocol (dccifd(8)), as a library: its addresses, its answers, header text that goes into the message. */
#pragma once

#include "base/str.h"

struct arena;

struct dcc_answer {
  char result;            /* A S R G T */
  struct str recipients;  /* a letter each: A R G */
  struct str header;      /* with its newline; empty: none */
};
/* False: it cannot be understood. Views of `text` or in `a`. */
bool dcc_read_answer(struct arena *a, struct str text, struct dcc_answer *ret);

/* May this text be put into a header? One or more fields "Name: value", continued lines allowed; no CR, NUL or empty line.
*ret has its newline. */
bool dcc_header_text(struct arena *a, struct str text, struct str *ret);

/* "/path" or "ip port". */
bool dcc_address_valid(struct str text);
