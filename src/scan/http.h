/* Inside the scanning room: the answers of HTTP servers (RFC 9112), as a library without I/O. */
#pragma once

#include "base/str.h"

struct arena;

#define HTTP_HEAD_MAX (64u << 10)
#define HTTP_BODY_MAX (4u << 20)

struct http_answer {
  int status;
  struct str line;  /* the first one */
  struct str body;  /* without what chunks add to it */
  bool keep;        /* another question may go over the connection: the server says so, and nothing stands behind the answer */
};

enum http_state { HTTP_MORE, HTTP_DONE, HTTP_BAD };

/* What has come so far, to which nothing will come any more if `ended`. HTTP_DONE with *ret, whose texts are parts of `text` or in `a`. */
enum http_state http_read_answer(struct arena *a, struct str text, bool ended, struct http_answer *ret);
