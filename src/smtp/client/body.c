/* The message on the wire: LF becomes CRLF; for DATA lines that begin with a
dot get another one (RFC 5321 4.5.2), for BDAT the text is cut into counted
chunks (RFC 3030). The body is read in blocks; it is never in memory as a whole. */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "message/message.h"
#include "loop/child.h"
#include "smtp/client/client.h"
#include "transport/plan.h"

#define BLOCK (32u << 10)
#define CHUNK (128u << 10)

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
  w->size += s.len;
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

/* Head and body as they are in the spool, in pieces. */
static int each_piece(struct ctx *c, const struct transport_message *m, int fd, int (*give)(void *arg, struct str s), void *arg) {
  int e = give(arg, m->head);
  if (e || !m->with_body || fd < 0)
    return e;
  char *block = xmalloc(BLOCK);
  off_t at = (off_t)strlen(c->message->id) + 3;
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

static int filtered(struct wire *w, const struct transport_message *m, int fd) {
  char **argv = arena_array(w->c->arena, char *, m->filter_n + 1);
  for (size_t i = 0; i < m->filter_n; i++)
    argv[i] = str_dup_c(w->c->arena, m->filter[i]);
  struct child_spec spec = {.path = argv[0], .argv = argv, .envp = environ, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -3, .umask = -1,
      .new_group = true};
  struct child child;
  int status = 0, e = child_start(&spec, &child);
  if (e)
    return PLAN_FILTER_FAILED(127);
  struct feed f = {w->c, m, fd, child.in, deadline_in(m->filter_timeout)};
  child.in = -1;
  struct fiber *feeder = fiber_spawn_joinable("transport-filter", feed, &f);
  char *block = xmalloc(BLOCK);
  while (!e) {
    ssize_t n = read(child.out, block, BLOCK);
    if (n > 0) {
      e = put_text(w, str_n(block, (size_t)n));
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

static int run(struct wire *w, const struct transport_message *m, int fd) {
  w->line_start = true;
  int e = m->filter_n ? filtered(w, m, fd) : each_piece(w->c, m, fd, put_raw, w);
  if (!e && !w->line_start)
    e = put(w, STR("\r\n"));
  return e;
}

bool smtp_fits_chunk(struct ctx *c, const struct transport_message *m) {
  /* Each LF grows by a CR; the body's lines are counted at reception, the head's are many bytes each. */
  int64_t size = m->size + (int64_t)c->message->body_lines + (int64_t)m->head.len / 2 + 2;
  return !m->filter_n && size < (int64_t)CHUNK / 2;
}

int smtp_send_body(struct ctx *c, struct smtp_connection *n, const struct transport_message *m, int body_fd, bool dots,
    int64_t *ret_sent, int *ret_unanswered) {
  struct wire w = {.c = c, .n = n, .dots = dots, .chunk = dots ? NULL : xmalloc(CHUNK)};
  int e = run(&w, m, body_fd);
  if (!e && dots)
    e = put(&w, STR(".\r\n"));
  else if (!e)
    e = send_chunk(&w, true);
  *ret_sent = w.size;
  *ret_unanswered = w.unanswered;
  free(w.chunk);
  return e ? e : stream_flush(n->stream);
}
