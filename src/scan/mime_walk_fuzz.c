/* The structure of a message: header and body as they come, its parts walked through as the MIME ACL does, the content of each
read to its end. Numbers and places fit together, nothing is read for ever. */
#include <stdlib.h>
#include <sys/mman.h>

#include "core/ctx.h"
#include "message/message.h"
#include "scan/mime_part.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define INPUT_MAX 20000

static int visits;

static void check(bool ok) {
  if (!ok)
    abort();
}

static int temporary(struct ctx *c) { return memfd_create("fuzz", MFD_CLOEXEC); }

static int visit(struct mime_walk *w) {
  struct mime_content k;
  struct str text;
  int rc;
  visits++;
  check(w->part.body <= w->part.end && w->depth <= MIME_LEVELS_MAX && visits <= MIME_PARTS_MAX);
  mime_content_init(&k, w);
  uint64_t bytes = 0;
  while ((rc = visits % 2 ? mime_content_line(&k, &text) : mime_content_lines(&k, &text)) > 0)
    bytes += text.len;
  check(rc <= 0 && bytes <= w->part.end - w->part.body);
  return 0;
}

/* Header fields, each with its continuation lines, up to the empty line. */
static struct str read_header(struct message *m, struct str text) {
  while (text.len > 0 && text.p[0] != '\n') {
    size_t end = 0;
    while (end < text.len && !(text.p[end] == '\n' && (end + 1 == text.len || (text.p[end + 1] != ' ' && text.p[end + 1] != '\t'))))
      end++;
    struct str field = str_slice(text, 0, end + 1);
    if (str_find_byte(field, ':') > 0)
      message_add_header(m, 0, field);
    text = str_from(text, field.len);
  }
  return text.len ? str_from(text, 1) : text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct message *m = message_new("fuzz");
  struct ctx *c = ctx_new(m->arena, NULL);
  int last;
  c->message = m;
  visits = 0;
  struct str body = read_header(m, str_tainted(str_n((const char *)data, n < INPUT_MAX ? n : INPUT_MAX)));
  struct scan_source source = {.fd = -1, .memory = body, .size = body.len};
  struct mime_walk w = {.c = c, .visit = visit, .temporary = temporary};
  int rc = mime_walk_source(&w, &source, &last);
  check(rc == 0 || rc == MIME_TOO_COMPLEX);
  check(last < visits || visits == 0);
  message_free(m);
  return 0;
}
