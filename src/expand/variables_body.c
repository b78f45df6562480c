/* $message_body and $message_body_end: read from the spool at first use. */
#include "expand/variables.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fd_io.h"
#include "core/main_options.h"
#include "expand/modules.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "queue/spool.h"

#define BODY_VISIBLE_MAX (1 << 20)

struct body_call {
  int fd;
  off_t at;      /* of the wanted end, behind the id line */
  char *to;
  size_t room, n;
};

static int read_offloaded(void *arg) {
  struct body_call *b = arg;
  ssize_t n = fd_pread_all(b->fd, b->to, b->room, b->at);
  b->n = n < 0 ? 0 : (size_t)n;
  return 0;
}

/* Zeros, and newlines unless they are wanted, become blanks. */
static void clean(char *p, size_t n, bool newlines) {
  for (size_t i = 0; i < n; i++)
    if (p[i] == '\0' || (p[i] == '\n' && !newlines))
      p[i] = ' ';
}

static void load(struct ctx *c, bool end, struct str *ret) {
  struct message *m = c->message;
  const struct main_options *o = main_options(c->config);
  size_t visible = o->message_body_visible < 0 ? 0 : o->message_body_visible > BODY_VISIBLE_MAX
                                                     ? BODY_VISIBLE_MAX : (size_t)o->message_body_visible;
  struct str memory = spool_body_memory(m);
  if (str_is_set(memory)) {
    size_t n = memory.len < visible ? memory.len : visible;
    char *p = str_dup_c(m->arena, end ? str_from(memory, memory.len - n) : str_slice(memory, 0, n));
    clean(p, n, o->message_body_newlines);
    *ret = str_tainted(str_n(p, n));
    return;
  }
  int fd = m->data_fd >= 0 ? m->data_fd : spool_open_body(c, m);
  if (fd < 0)
    return;
  off_t start = (off_t)strlen(m->id) + 3, size = lseek(fd, 0, SEEK_END); /* "ID-D\n" stands in front of the body */
  struct body_call b = {.fd = fd, .at = start, .room = visible};
  if (end && size - (off_t)visible > start)
    b.at = size - (off_t)visible;
  b.to = arena_bytes(m->arena, visible + 1);
  fiber_offload(read_offloaded, &b);
  if (fd != m->data_fd)
    close(fd);
  b.to[b.n] = '\0';
  clean(b.to, b.n, o->message_body_newlines);
  *ret = str_tainted(str_n(b.to, b.n));
}

static int get_body(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->message == NULL)
    return 0;
  struct str *kept = def->flags ? &c->message->body_end : &c->message->body_start;
  if (!str_is_set(*kept))
    load(c, def->flags, kept);
  *ret = *kept;
  return 0;
}

static const struct variable_def variables[] = {
  {"message_body", get_body},
  {"message_body_end", get_body, 0, 1},
  {0},
};

const struct module expand_body_module = {
  .name = "expand-body",
  .summary = "the message's body in expansions",
  .variables = variables,
};
