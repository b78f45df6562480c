/* The message on the wire: LF becomes CRLF; for DATA lines that begin with a
dot get another one (RFC 5321 4.5.2), for BDAT the text is cut into counted
chunks (RFC 3030). The body is read in blocks; it is never in memory as a whole. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "message/message.h"
#include "smtp/client/client.h"

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

static int run(struct wire *w, const struct transport_message *m, int fd) {
  w->line_start = true;
  int e = put_text(w, m->head);
  if (e || !m->with_body || fd < 0)
    return e;
  char *block = xmalloc(BLOCK);
  off_t at = (off_t)strlen(w->c->message->id) + 3;
  for (;;) {
    ssize_t k = pread(fd, block, BLOCK, at);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      e = -errno;
    if (k <= 0)
      break;
    at += k;
    if ((e = put_text(w, str_n(block, (size_t)k))))
      break;
  }
  free(block);
  if (!e && !w->line_start)
    e = put(w, STR("\r\n"));
  return e;
}

bool smtp_fits_chunk(struct ctx *c, const struct transport_message *m) {
  /* Each LF grows by a CR; the body's lines are counted at reception, the head's are many bytes each. */
  int64_t size = m->size + (int64_t)c->message->body_lines + (int64_t)m->head.len / 2 + 2;
  return size < (int64_t)CHUNK / 2;
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
