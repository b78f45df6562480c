/* The message on the wire: LF becomes CRLF; for DATA lines that begin with a
dot get another one (RFC 5321 4.5.2), for BDAT the text is cut into counted
chunks (RFC 3030). The body goes in blocks, from the spool file unless it has stayed in memory since it came. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "core/main_options.h"
#include "core/module.h"
#include "message/message.h"
#include "queue/spool.h"
#include "loop/child.h"
#include "smtp/client/client.h"
#include "smtp/client/patience.h"
#include "transport/plan.h"

#define BLOCK (32u << 10)
#define CHUNK (128u << 10)
#define STAGED_HEAD_MAX (64u << 20)

struct wire {
  struct ctx *c;
  struct smtp_connection *n;
  bool dots, line_start;
  int64_t size;
  char *chunk; /* BDAT: gathered, because its size goes first */
  size_t used;
  int unanswered;
};

static int send_chunk(struct wire *w, bool last) {
  bool pipelined = w->n->offers.pipelining;
  if (smtp_command(w->c, w->n, false, "BDAT %zu%s", w->used, last ? " LAST" : ""))
    return -EPIPE;
  int e = stream_write(w->n->stream, str_n(w->chunk, w->used));
  if (!e && (last || !pipelined))
    e = stream_flush(w->n->stream);
  w->used = 0;
  if (e || last)
    return e;
  w->unanswered++;
  int64_t timeout = smtp_client_options(w->n->transport)->data_timeout;
  /* Answers are waited for at once without PIPELINING, else when some chunks are on their way. */
  while (w->unanswered > (pipelined ? 8 : 0)) {
    enum smtp_stage_result r = stream_flush(w->n->stream) ? SMTP_BROKEN : smtp_expect(w->c, w->n, timeout, '2');
    if (r)
      return r == SMTP_BROKEN ? -EPIPE : -EPROTO;
    w->unanswered--;
  }
  return 0;
}

static int put(struct wire *w, struct str s) {
  int64_t before = w->size;
  w->size += s.len;
  if (before >> 16 != w->size >> 16)
    patience_progress();
  if (!w->chunk)
    return stream_write(w->n->stream, s);
  while (s.len) {
    size_t room = CHUNK - w->used, take = s.len < room ? s.len : room;
    memcpy(w->chunk + w->used, s.p, take);
    w->used += take;
    s = str_from(s, take);
    if (w->used == CHUNK) {
      int e = send_chunk(w, false);
      if (e)
        return e;
    }
  }
  return 0;
}

static int put_text(struct wire *w, struct str s) {
  while (s.len) {
    if (w->line_start && w->dots && s.p[0] == '.') {
      int e = put(w, STR("."));
      if (e)
        return e;
    }
    const char *nl = memchr(s.p, '\n', s.len);
    size_t part = nl ? (size_t)(nl - s.p) : s.len;
    int e = part ? put(w, str_slice(s, 0, part)) : 0;
    if (!e && nl)
      e = put(w, STR("\r\n"));
    if (e)
      return e;
    w->line_start = nl != NULL;
    s = str_from(s, part + (nl != NULL));
  }
  return 0;
}

static int put_raw(void *arg, struct str s) { return put_text(arg, s); }

/* The rest of a file, in pieces. */
static int each_of_file(int fd, off_t at, int (*give)(void *arg, struct str s), void *arg) {
  int e = 0;
  char *block = xmalloc(BLOCK);
  for (;;) {
    ssize_t k = pread(fd, block, BLOCK, at);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      e = -errno;
    if (k <= 0)
      break;
    at += k;
    if ((e = give(arg, str_n(block, (size_t)k))))
      break;
  }
  free(block);
  return e;
}

static int each_of_memory(struct str body, int (*give)(void *arg, struct str s), void *arg) {
  int e = 0;
  for (size_t at = 0; !e && at < body.len; at += BLOCK)
    e = give(arg, str_slice(body, at, at + BLOCK));
  return e;
}

/* The body as it came, or in the spool file, behind the line with the message's name. */
static int each_of_body(struct ctx *c, const struct transport_message *m, int fd, int (*give)(void *arg, struct str s), void *arg) {
  if (!m->with_body)
    return 0;
  if (fd >= 0)
    return each_of_file(fd, (off_t)strlen(c->message->id) + 3, give, arg);
  struct str body = spool_body_memory(c->message);
  return str_is_set(body) ? each_of_memory(body, give, arg) : -EBADF;
}

/* Head and body as they are in the spool, in pieces. */
static int each_piece(struct ctx *c, const struct transport_message *m, int fd, int (*give)(void *arg, struct str s), void *arg) {
  int e = give(arg, m->head);
  return e ? e : each_of_body(c, m, fd, give, arg);
}

/* --- transport_filter: a fiber feeds the command while this one reads what it makes of the message --- */

struct feed {
  struct ctx *c;
  const struct transport_message *m;
  int body_fd, to;
  usec_t deadline;
};

static int feed_piece(void *arg, struct str s) {
  struct feed *f = arg;
  while (s.len) {
    ssize_t n = write(f->to, s.p, s.len);
    if (n > 0)
      s = str_from(s, (size_t)n);
    else if (errno == EAGAIN) {
      int e = fiber_wait_fd(f->to, FIBER_WRITE, f->deadline);
      if (e < 0)
        return e;
    } else if (errno != EINTR) {
      return -errno; /* it need not read all */
    }
  }
  return 0;
}

static void feed(void *arg) {
  struct feed *f = arg;
  (void)each_piece(f->c, f->m, f->body_fd, feed_piece, f);
  close(f->to);
}

static int filtered(struct ctx *c, const struct transport_message *m, int fd, int (*give)(void *arg, struct str s), void *arg) {
  char **argv = arena_array(c->arena, char *, m->filter_n + 1);
  for (size_t i = 0; i < m->filter_n; i++)
    argv[i] = str_dup_c(c->arena, m->filter[i]);
  struct child_spec spec = {.path = argv[0], .argv = argv, .envp = environ, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -3, .umask = 077,
      .new_group = true};
  struct child child;
  int status = 0, e = child_start(&spec, &child);
  if (e)
    return PLAN_FILTER_FAILED(127);
  struct feed f = {c, m, fd, child.in, deadline_in(m->filter_timeout)};
  child.in = -1;
  struct fiber *feeder = fiber_spawn_joinable("transport-filter", feed, &f);
  char *block = xmalloc(BLOCK);
  while (!e) {
    ssize_t n = read(child.out, block, BLOCK);
    if (n > 0) {
      e = give(arg, str_n(block, (size_t)n));
    } else if (n == 0) {
      break;
    } else if (errno == EAGAIN) {
      int k = fiber_wait_fd(child.out, FIBER_READ, deadline_in(m->filter_timeout));
      e = k == -ETIMEDOUT ? PLAN_FILTER_TIMEOUT : k < 0 ? k : 0;
    } else if (errno != EINTR) {
      e = -errno;
    }
  }
  free(block);
  if (e) {
    child_kill(&child, SIGKILL);
    fiber_cancel(feeder);
  }
  fiber_join(feeder);
  if (child_wait(&child, e ? DEADLINE_NEVER : deadline_in(m->filter_timeout), &status)) {
    child_kill(&child, SIGKILL);
    child_release(&child);
    return e ? e : PLAN_FILTER_TIMEOUT;
  }
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return e ? e : code ? PLAN_FILTER_FAILED(code) : 0;
}

/* --- signatures: what is sent is known as a whole before its first byte goes --- */

struct signing {
  struct message_signing base; /* first: hooks get this */
  struct smtp_text *text;
  int error;                   /* of staging: as smtp_send_body gives it */
};

static int write_out(void *arg, struct str s) {
  const int *fd = arg;
  return fd_write_all(*fd, s.p, s.len);
}

/* A nameless file in the spool. */
static int temporary_file(struct ctx *c) {
  char *dir = str_dup_c(c->arena, main_options(c->config)->spool_directory);
  int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
    return fd < 0 ? -errno : fd;
  char *name = str_dup_c(c->arena, str_printf(c->arena, "%s/signing.XXXXXX", dir));
  fd = mkostemp(name, O_CLOEXEC);
  if (fd < 0)
    return -errno;
  unlink(name);
  return fd;
}

/* What the filter makes goes into a file, so that it can be read twice. Its header is read back. */
static int stage(struct ctx *c, struct smtp_text *t) {
  int fd = temporary_file(c), e;
  if (fd < 0)
    return fd;
  t->staged = fd;
  if ((e = filtered(c, t->m, t->body_fd, write_out, &fd)))
    return e;
  struct buf b;
  char block[4096];
  buf_init(&b, c->arena, STAGED_HEAD_MAX);
  for (off_t at = 0;;) {
    ssize_t n = pread(fd, block, sizeof block, at);
    if (n <= 0 || b.overflow)
      return n < 0 ? -errno : b.overflow ? -EFBIG : (t->head = buf_str(&b), t->body_at = (off_t)t->head.len, 0);
    size_t from = b.len > 0 ? b.len - 1 : 0;
    buf_add_n(&b, block, (size_t)n);
    at += n;
    ptrdiff_t end = b.p[0] == '\n' ? -1 : str_find(str_from(buf_str(&b), from), STR("\n\n"));
    if (end < 0 && b.p[0] != '\n')
      continue;
    t->body_at = b.p[0] == '\n' ? 1 : (off_t)from + end + 2;
    t->head = str_slice(buf_str(&b), 0, (size_t)t->body_at);
    return 0;
  }
}

static int signing_open(struct ctx *c, struct message_signing *base) {
  struct signing *s = (struct signing *)base;
  struct smtp_text *t = s->text;
  if (t->m->filter_n && t->staged < 0 && (s->error = stage(c, t))) {
    c->error = STR("the transport filter failed");
    return s->error;
  }
  base->head = t->staged >= 0 ? t->head : t->m->head;
  return 0;
}

struct piece_taker {
  void (*piece)(void *arg, struct str data);
  void *arg;
};

static int take_piece(void *arg, struct str s) {
  const struct piece_taker *p = arg;
  p->piece(p->arg, s);
  return 0;
}

static int signing_body(struct ctx *c, struct message_signing *base, void (*piece)(void *arg, struct str data), void *arg) {
  const struct smtp_text *t = ((struct signing *)base)->text;
  struct piece_taker p = {piece, arg};
  if (t->staged >= 0)
    return each_of_file(t->staged, t->body_at, take_piece, &p);
  return each_of_body(c, t->m, t->body_fd, take_piece, &p);
}

int smtp_sign_text(struct ctx *c, const struct instance *transport, struct address *chain, struct smtp_text *t) {
  struct signing s = {.base = {.transport = transport, .chain = chain, .open = signing_open, .body = signing_body,
    .head = STR_EMPTY, .added = STR_EMPTY, .log = STR_UNSET}, .text = t};
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.message_sign && modules[i]->hooks.message_sign(c, &s.base) != OUTCOME_OK)
      return s.error ? s.error : -EACCES;
  t->added = s.base.added;
  t->log = s.base.log;
  return 0;
}

int smtp_text_open(struct ctx *c, const struct transport_message *m, struct smtp_text *ret) {
  *ret = (struct smtp_text){.m = m, .body_fd = -1, .staged = -1, .added = STR_EMPTY, .log = STR_UNSET};
  if (!m->with_body || str_is_set(spool_body_memory(c->message)))
    return 0;
  ret->body_fd = spool_open_body(c, c->message);
  return ret->body_fd < 0 ? ret->body_fd : 0;
}

void smtp_text_done(struct ctx *c, struct smtp_text *t) {
  if (t->body_fd >= 0 && t->body_fd != c->message->data_fd)
    close(t->body_fd);
  if (t->staged >= 0)
    close(t->staged);
  t->body_fd = t->staged = -1;
}

static int run(struct wire *w, const struct smtp_text *t) {
  w->line_start = true;
  int e = put_text(w, t->added);
  if (!e && t->staged >= 0)
    e = each_of_file(t->staged, 0, put_raw, w);
  else if (!e)
    e = t->m->filter_n ? filtered(w->c, t->m, t->body_fd, put_raw, w) : each_piece(w->c, t->m, t->body_fd, put_raw, w);
  if (!e && !w->line_start)
    e = put(w, STR("\r\n"));
  return e;
}

bool smtp_fits_chunk(struct ctx *c, const struct transport_message *m) {
  /* Each LF grows by a CR; the body's lines are counted at reception, the head's are many bytes each. */
  int64_t size = m->size + (int64_t)c->message->body_lines + (int64_t)m->head.len / 2 + 2;
  return !m->filter_n && size < (int64_t)CHUNK / 2;
}

int smtp_send_body(struct ctx *c, struct smtp_connection *n, const struct smtp_text *t, bool dots, int64_t *ret_sent,
    int *ret_unanswered) {
  struct wire w = {.c = c, .n = n, .dots = dots, .chunk = dots ? NULL : xmalloc(CHUNK)};
  int e = run(&w, t);
  if (!e && dots)
    e = put(&w, STR(".\r\n"));
  else if (!e)
    e = send_chunk(&w, true);
  *ret_sent = w.size;
  *ret_unanswered = w.unanswered;
  free(w.chunk);
  return e ? e : stream_flush(n->stream);
}
