#include "scan/source.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/arena.h"
#include "core/ctx.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "queue/spool.h"

#define WORK_PIECE (1u << 20) /* bytes that are looked at before others have their turn */

int scan_source_body(struct ctx *c, struct scan_source *ret) {
  *ret = (struct scan_source){.fd = -1, .memory = spool_body_memory(c->message)};
  ret->size = c->message->body_size;
  if (str_is_set(ret->memory)) {
    ret->size = ret->memory.len;
    return 0;
  }
  int fd = spool_open_body(c, c->message);
  if (fd < 0)
    return fd;
  off_t at = lseek(fd, 0, SEEK_CUR), end = lseek(fd, 0, SEEK_END);
  if (at < 0 || end < at) {
    int rc = at < 0 || end < 0 ? -errno : -EIO;
    close(fd);
    return rc;
  }
  ret->fd = fd;
  ret->owned = true;
  ret->start = (uint64_t)at;
  ret->size = (uint64_t)(end - at);
  return 0;
}

void scan_source_close(struct scan_source *s) {
  if (s->owned)
    close(s->fd);
  *s = (struct scan_source){.fd = -1, .memory = STR_EMPTY};
}

void scan_reader_init(struct scan_reader *r, struct arena *a, const struct scan_source *s, uint64_t from, uint64_t to) {
  *r = (struct scan_reader){.source = s};
  if (!str_is_set(s->memory))
    r->window = arena_bytes(a, SCAN_WINDOW);
  scan_reader_seek(r, from, to);
}

void scan_reader_seek(struct scan_reader *r, uint64_t from, uint64_t to) {
  uint64_t base = r->at - r->used; /* of the window */
  size_t n = r->n;
  r->end = to < r->source->size ? to : r->source->size;
  r->at = from < r->end ? from : r->end;
  r->n = r->used = 0;
  r->middle = false;
  if (n > 0 && r->at >= base && r->at < base + n) {
    r->used = (size_t)(r->at - base);
    r->n = r->end - base < n ? (size_t)(r->end - base) : n;
  }
}

static void share(struct scan_reader *r, size_t n) {
  r->work += n;
  if (r->work < WORK_PIECE)
    return;
  r->work = 0;
  if (fiber_self())
    fiber_yield();
}

struct read_call {
  int fd;
  char *to;
  size_t room;
  off_t at;
  ssize_t got;
};

static int read_offloaded(void *arg) {
  struct read_call *k = arg;
  do
    k->got = pread(k->fd, k->to, k->room, k->at);
  while (k->got < 0 && errno == EINTR);
  return k->got < 0 ? -errno : 0;
}

/* More into the window: a count, 0 at the end of the range, or -errno. */
static int fill(struct scan_reader *r) {
  memmove(r->window, r->window + r->used, r->n - r->used);
  r->n -= r->used;
  r->used = 0;
  uint64_t from = r->at + r->n, left = r->end - from;
  size_t room = SCAN_WINDOW - r->n;
  if (left == 0 || room == 0)
    return 0;
  struct read_call k = {.fd = r->source->fd, .to = r->window + r->n, .room = left < room ? (size_t)left : room,
    .at = (off_t)(r->source->start + from)};
  /* What the page cache has is there at once; only what must come from the disk is worth a thread. */
  struct iovec piece = {k.to, k.room};
  k.got = preadv2(k.fd, &piece, 1, k.at, RWF_NOWAIT);
  int rc = k.got < 0 ? fiber_offload(read_offloaded, &k) : 0;
  if (rc < 0)
    return rc;
  if (k.got == 0)
    return -EIO; /* shorter than it was */
  r->n += (size_t)k.got;
  return (int)k.got;
}

int scan_reader_line(struct scan_reader *r, struct str *ret, bool *ret_first) {
  *ret_first = !r->middle;
  for (;;) {
    bool memory = str_is_set(r->source->memory);
    const char *p = memory ? r->source->memory.p + r->at : r->window + r->used;
    size_t n = memory ? (size_t)(r->end - r->at) : r->n - r->used;
    size_t limit = n < SCAN_LINE_MAX ? n : SCAN_LINE_MAX;
    const char *lf = limit ? memchr(p, '\n', limit) : NULL;
    bool all = memory || r->at + n == r->end;
    if (lf == NULL && limit < SCAN_LINE_MAX && !all) {
      int rc = fill(r);
      if (rc < 0)
        return rc;
      continue;
    }
    size_t take = lf ? (size_t)(lf - p) + 1 : limit;
    if (take == 0)
      return 0;
    r->middle = lf == NULL;
    r->at += take;
    r->used += memory ? 0 : take;
    *ret = str_tainted(str_n(p, take));
    share(r, take);
    return 1;
  }
}

/* The bytes in front of the next line that begins with "--" (or might, when its second byte is not there); the text begins a line
when `first`. */
static size_t before_dashes(const char *p, size_t n, bool first) {
  for (const char *q = p, *end = p + n; q < end;) {
    const char *dash = memchr(q, '-', (size_t)(end - q));
    if (!dash)
      break;
    bool begins = dash == p ? first : dash[-1] == '\n';
    if (begins && (dash + 1 == end || dash[1] == '-'))
      return (size_t)(dash - p);
    q = memchr(dash, '\n', (size_t)(end - dash)); /* text of dashes costs no more than lines do */
    if (!q)
      break;
    q++;
  }
  return n;
}

int scan_reader_lines(struct scan_reader *r, struct str *ret, bool *ret_first) {
  for (;;) {
    bool memory = str_is_set(r->source->memory);
    const char *p = memory ? r->source->memory.p + r->at : r->window + r->used;
    size_t have = memory ? (size_t)(r->end - r->at) : r->n - r->used;
    size_t limit = have < SCAN_WINDOW ? have : SCAN_WINDOW, take = before_dashes(p, limit, !r->middle);
    if (take == 0)
      return scan_reader_line(r, ret, ret_first);
    if (take == limit && r->at + take < r->end) {
      const char *lf = memrchr(p, '\n', take);
      if (!lf && take < SCAN_LINE_MAX) {
        int rc = fill(r);
        if (rc < 0)
          return rc;
        continue;
      }
      take = lf ? (size_t)(lf - p) + 1 : take;
    }
    *ret_first = !r->middle;
    r->middle = p[take - 1] != '\n';
    r->at += take;
    r->used += memory ? 0 : take;
    *ret = str_tainted(str_n(p, take));
    share(r, take);
    return 1;
  }
}

int scan_reader_bytes(struct scan_reader *r, struct str *ret) {
  bool memory = str_is_set(r->source->memory);
  if (r->at == r->end)
    return 0;
  if (!memory && r->n == r->used) {
    int rc = fill(r);
    if (rc <= 0)
      return rc;
  }
  const char *p = memory ? r->source->memory.p + r->at : r->window + r->used;
  size_t n = memory ? (size_t)(r->end - r->at) : r->n - r->used;
  if (n > SCAN_WINDOW)
    n = SCAN_WINDOW;
  r->at += n;
  r->used += memory ? 0 : n;
  *ret = str_tainted(str_n(p, n));
  share(r, n);
  return 1;
}
