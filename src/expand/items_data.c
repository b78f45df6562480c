/* Items that fetch something from outside: readfile, env. */
#include "expand/items.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "expand/internal.h"
#include "loop/fiber.h"

#define READFILE_MAX (16u << 20)
#define READFILE_SECONDS 60 /* without a byte from a pipe */

struct read_call {
  const char *path;
  char *text; /* of malloc: the caller's arena belongs to the loop's thread */
  size_t n;
  int error;
  bool too_big, late;
};

/* In an offload thread: files may lie on slow disks, and pipes may block. */
static int read_offloaded(void *arg) {
  struct read_call *r = arg;
  /* A pipe without a writer, or whose writer says nothing, would keep us for ever. */
  int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    r->error = errno;
    return 0;
  }
  size_t room = 0;
  struct stat st;
  bool may_wait = fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (may_wait && poll(&p, 1, READFILE_SECONDS * 1000) == 0) {
      r->late = true;
      break;
    }
    if (room - r->n < 4096) {
      room = room * 2 + 16384;
      r->text = xrealloc(r->text, room);
    }
    ssize_t got = read(fd, r->text + r->n, room - r->n);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      break; /* what cannot be read (a directory) counts as empty */
    r->n += (size_t)got;
    if (r->n > READFILE_MAX) {
      r->too_big = true;
      break;
    }
  }
  close(fd);
  return 0;
}

void add_with_eol(struct buf *out, struct str text, const struct str *eol) {
  if (eol == NULL) {
    buf_add(out, text);
    return;
  }
  while (str_is_set(text)) {
    struct str line = str_cut(&text, '\n');
    buf_add(out, line);
    if (str_is_set(text))
      buf_add(out, *eol);
  }
}

static int eval_readfile(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_READFILE, "file insertions are not permitted"))
    return OUTCOME_ERROR;
  struct str name = args->value[0];
  if (str_is_tainted(name))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename '%.*s'", STRF(name));
  struct read_call r = {.path = str_dup_c(c->arena, name)};
  fiber_offload(read_offloaded, &r);
  int rc = 0;
  if (r.error == EACCES)
    rc = ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s: %s (euid=%d egid=%d)", STRF(name), strerror(r.error),
        (int)geteuid(), (int)getegid());
  else if (r.error != 0)
    rc = ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s: %s", STRF(name), strerror(r.error));
  else if (r.too_big)
    rc = ctx_fail(c, OUTCOME_ERROR, "%.*s is too big for readfile", STRF(name));
  else if (r.late)
    rc = ctx_fail(c, OUTCOME_ERROR, "nothing came from %.*s within %d seconds", STRF(name), READFILE_SECONDS);
  else
    add_with_eol(out, str_n(r.text, r.n), args->n > 1 ? &args->value[1] : NULL);
  free(r.text);
  return rc;
}

static int eval_env(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str key = str_trim(args->value[0]);
  const char *set = key.len > 0 ? getenv(str_dup_c(c->arena, key)) : NULL;
  struct str value = str_dup(c->arena, str_c(set != NULL ? set : ""));
  struct expand_scope *saved = expand_scope_begin(c);
  if (set != NULL)
    c->expand.value = value;
  int rc = expand_yes_no(c, args, "env", set != NULL, value, out);
  expand_scope_end(c, saved);
  return rc;
}

const struct expand_item_def data_items[] = {
  {"env", 1, 1, EXPAND_YES_NO, NULL, eval_env},
  {"readfile", 1, 2, 0, NULL, eval_readfile},
  {0},
};
