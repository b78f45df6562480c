#include "loop/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"

#define BLOCK_SIZE 16384
/* Blocks kept for the next stream that needs one. */
#define POOL_MAX 64
#define WRITE_TIMEOUT_DEFAULT 300
/* A pipe that polls as writable takes this much without blocking. */
#define BLOCKING_CHUNK 4096

enum fd_kind {
  FD_SOCKET,
  FD_PIPE,     /* non-blocking */
  FD_BLOCKING, /* asked with poll before each call */
};

struct end {
  int fd;
  enum fd_kind kind;
  int old_flags; /* -1: unchanged */
  bool kept;     /* loop_keep_fd was called */
};

struct stream {
  struct end in, out;
  bool keep_fds, eof;
  int read_error, write_error;
  int write_timeout;
  char *in_block; /* NULL while there is nothing to hold */
  size_t in_cap, in_from, in_len, in_scanned; /* scanned: known to hold no LF */
  char *out_block;
  size_t out_len;
  const struct stream_layer *layer;
  void *layer_state;
  char *error;
  uint32_t error_taint;
  uint64_t bytes_in, bytes_out;
};

/* --- blocks --- */

static struct block {
  struct block *next;
} *pool;
static int pool_count;

static char *block_take(void) {
  struct block *b = pool;
  if (!b)
    return xmalloc(BLOCK_SIZE);
  pool = b->next;
  pool_count--;
  return (char *)b;
}

static void block_give(char *p, size_t size) {
  if (!p)
    return;
  if (size != BLOCK_SIZE || pool_count >= POOL_MAX) {
    free(p);
    return;
  }
  struct block *b = (struct block *)(void *)p;
  b->next = pool;
  pool = b;
  pool_count++;
}

/* --- begin and end --- */

static void end_init(struct end *e, int fd) {
  struct stat st;
  *e = (struct end){.fd = fd, .kind = FD_BLOCKING, .old_flags = -1};
  if (fstat(fd, &st) < 0)
    return;
  if (S_ISSOCK(st.st_mode))
    e->kind = FD_SOCKET;
  else if (S_ISFIFO(st.st_mode) && fd > 2)
    e->kind = FD_PIPE; /* one that was inherited is shared with others: the mode is not ours to change */
  if (e->kind == FD_BLOCKING)
    return;
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && !(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
    e->old_flags = flags;
}

struct stream *stream_new(int fd_in, int fd_out) {
  struct stream *s = xcalloc(1, sizeof *s);
  end_init(&s->in, fd_in);
  s->out = s->in;
  if (fd_out >= 0 && fd_out != fd_in)
    end_init(&s->out, fd_out);
  s->write_timeout = WRITE_TIMEOUT_DEFAULT;
  return s;
}

static void end_close(struct end *e, bool keep) {
  if (e->kept)
    loop_forget_fd(e->fd);
  if (!keep)
    close(e->fd);
  else if (e->old_flags >= 0)
    fcntl(e->fd, F_SETFL, e->old_flags);
}

void stream_free(struct stream *s) {
  if (!s)
    return;
  if (s->layer) {
    if (s->layer->shutdown && !s->write_error)
      s->layer->shutdown(s->layer_state);
    s->layer->free(s->layer_state);
  }
  if (s->out.fd != s->in.fd)
    end_close(&s->out, s->keep_fds);
  else
    s->in.kept |= s->out.kept;
  end_close(&s->in, s->keep_fds);
  block_give(s->in_block, s->in_cap);
  block_give(s->out_block, BLOCK_SIZE);
  free(s->error);
  free(s);
}

void stream_keep_fds(struct stream *s) { s->keep_fds = true; }
int stream_fd(const struct stream *s) { return s->in.fd; }
int stream_fd_out(const struct stream *s) { return s->out.fd; }
uint64_t stream_bytes_in(const struct stream *s) { return s->bytes_in; }
uint64_t stream_bytes_out(const struct stream *s) { return s->bytes_out; }
size_t stream_output_pending(const struct stream *s) { return s->out_len; }
void stream_set_write_timeout(struct stream *s, int seconds) { s->write_timeout = seconds; }

void stream_set_error(struct stream *s, struct str text) {
  free(s->error);
  s->error = xmalloc((size_t)text.len + 1);
  memcpy(s->error, text.p ? text.p : "", text.len);
  s->error[text.len] = '\0';
  s->error_taint = text.taint;
}

struct str stream_error(const struct stream *s) {
  struct str text = s->error ? str_c(s->error) : STR_EMPTY;
  text.taint = s->error ? s->error_taint : 0;
  return text;
}

void stream_push_layer(struct stream *s, const struct stream_layer *layer, void *state) {
  s->layer = layer;
  s->layer_state = state;
}

void *stream_layer_state(const struct stream *s) { return s->layer_state; }

/* --- raw input and output --- */

int stream_wait(struct stream *s, int want, usec_t deadline) {
  struct end *e = want & FIBER_READ ? &s->in : &s->out;
  if (e->kind == FD_BLOCKING) {
    int r = fiber_wait_fd(e->fd, want, deadline);
    return r < 0 ? r : 0;
  }
  if (!e->kept && fiber_self()) {
    loop_keep_fd(e->fd);
    e->kept = true;
  }
  int r = fiber_wait_again(e->fd, want, deadline);
  return r < 0 ? r : 0;
}

static bool ready_now(int fd, short events) {
  struct pollfd p = {.fd = fd, .events = events};
  return poll(&p, 1, 0) > 0;
}

static int raw_read(struct stream *s, char *p, size_t n, int *want) {
  if (s->layer)
    return s->layer->read(s->layer_state, p, n, want);
  *want = FIBER_READ;
  if (s->in.kind == FD_BLOCKING && !ready_now(s->in.fd, POLLIN))
    return -EAGAIN;
  ssize_t r;
  do
    r = s->in.kind == FD_SOCKET ? recv(s->in.fd, p, n, 0) : read(s->in.fd, p, n);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : (int)r;
}

static int raw_write(struct stream *s, const char *p, size_t n, int *want) {
  if (s->layer)
    return s->layer->write(s->layer_state, p, n, want);
  *want = FIBER_WRITE;
  if (s->out.kind == FD_BLOCKING) {
    if (!ready_now(s->out.fd, POLLOUT))
      return -EAGAIN;
    if (n > BLOCKING_CHUNK)
      n = BLOCKING_CHUNK;
  }
  if (n > 1u << 20)
    n = 1u << 20;
  ssize_t r;
  do
    r = s->out.kind == FD_SOCKET ? send(s->out.fd, p, n, MSG_NOSIGNAL) : write(s->out.fd, p, n);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : (int)r;
}

/* --- input --- */

static void in_release(struct stream *s) {
  block_give(s->in_block, s->in_cap);
  s->in_block = NULL;
  s->in_cap = s->in_from = 0;
}

/* Room behind what is buffered; false when the buffer is full. */
static bool in_room(struct stream *s) {
  if (!s->in_block) {
    s->in_block = block_take();
    s->in_cap = BLOCK_SIZE;
  }
  if (s->in_len == 0)
    s->in_from = 0;
  if (s->in_from + s->in_len == s->in_cap && s->in_from > 0) {
    memmove(s->in_block, s->in_block + s->in_from, s->in_len);
    s->in_from = 0;
  }
  return s->in_from + s->in_len < s->in_cap;
}

/* One attempt to read more, without waiting. */
static int read_once(struct stream *s, int *want) {
  if (s->read_error)
    return s->read_error;
  if (s->eof)
    return 0;
  if (!in_room(s))
    return -ENOBUFS;
  size_t end = s->in_from + s->in_len;
  int r = raw_read(s, s->in_block + end, s->in_cap - end, want);
  if (r > 0) {
    s->in_len += (size_t)r;
    s->bytes_in += (uint64_t)r;
  } else if (r == 0) {
    s->eof = true;
  } else if (r != -EAGAIN) {
    s->read_error = r;
  }
  return r;
}

static int read_more(struct stream *s, usec_t deadline) {
  int want, r;
  while ((r = read_once(s, &want)) == -EAGAIN) {
    if (s->in_len == 0)
      in_release(s);
    r = stream_wait(s, want, deadline);
    if (r < 0)
      return r;
  }
  return r;
}

int stream_fill_more(struct stream *s, usec_t deadline) {
  int r = read_more(s, deadline);
  return r <= 0 ? r : (int)s->in_len;
}

int stream_fill(struct stream *s, usec_t deadline) {
  return s->in_len ? (int)s->in_len : stream_fill_more(s, deadline);
}

static const char *in_start(const struct stream *s) { return s->in_block ? s->in_block + s->in_from : ""; }

struct str stream_peek(const struct stream *s) { return str_tainted(str_n(in_start(s), s->in_len)); }

void stream_consume(struct stream *s, size_t n) {
  if (n > s->in_len)
    n = s->in_len;
  s->in_from += n;
  s->in_len -= n;
  s->in_scanned = 0;
}

void stream_discard_input(struct stream *s) {
  stream_consume(s, s->in_len);
  in_release(s);
}

bool stream_input_pending(struct stream *s) {
  if (s->in_len || s->eof || s->read_error)
    return true;
  if (!s->layer)
    return ready_now(s->in.fd, POLLIN);
  /* What has come may be no more than a part of a record, or one of the TLS protocol itself. */
  int want, r = read_once(s, &want);
  if (r == -EAGAIN)
    in_release(s);
  return r != -EAGAIN;
}

bool stream_at_eof(const struct stream *s) { return s->eof && s->in_len == 0; }

/* Makes room for a line of up to max bytes and its end. */
static void in_grow(struct stream *s, size_t max) {
  size_t cap = s->in_cap * 2;
  if (cap > max + 2)
    cap = max + 2;
  if (cap <= s->in_cap)
    cap = s->in_cap + 2;
  char *p = xmalloc(cap);
  memcpy(p, s->in_block + s->in_from, s->in_len);
  block_give(s->in_block, s->in_cap);
  s->in_block = p;
  s->in_cap = cap;
  s->in_from = 0;
}

static int discard_line(struct stream *s, usec_t deadline) {
  for (;;) {
    const char *lf = s->in_len ? memchr(in_start(s), '\n', s->in_len) : NULL;
    stream_consume(s, lf ? (size_t)(lf - in_start(s)) + 1 : s->in_len);
    if (lf)
      return -EMSGSIZE;
    int r = read_more(s, deadline);
    if (r <= 0)
      return r == 0 ? -EMSGSIZE : r;
  }
}

/* The line is the first `len` bytes of the buffer and is followed by `eol` of its end. */
static int take_line(struct stream *s, size_t len, int eol, size_t max, struct str *ret, int *ret_eol) {
  const char *p = in_start(s);
  stream_consume(s, len + (size_t)eol);
  if (len > max)
    return -EMSGSIZE;
  *ret = str_tainted(str_n(p, len));
  *ret_eol = eol;
  return 1;
}

int stream_read_line(struct stream *s, size_t max, usec_t deadline, struct str *ret, int *ret_eol) {
  for (;;) {
    const char *p = in_start(s);
    const char *lf = s->in_len > s->in_scanned ? memchr(p + s->in_scanned, '\n', s->in_len - s->in_scanned) : NULL;
    if (lf) {
      size_t len = (size_t)(lf - p);
      bool cr = len > 0 && p[len - 1] == '\r';
      return take_line(s, len - cr, 1 + cr, max, ret, ret_eol);
    }
    s->in_scanned = s->in_len;
    if (s->in_len > max + 1)
      return discard_line(s, deadline);
    if (s->in_block && s->in_len == s->in_cap)
      in_grow(s, max);
    int r = read_more(s, deadline);
    if (r < 0)
      return r;
    if (r == 0)
      return s->in_len ? take_line(s, s->in_len, 0, max, ret, ret_eol) : 0;
  }
}

int stream_read_exact(struct stream *s, char *p, size_t n, usec_t deadline) {
  while (n > 0) {
    int r = stream_fill(s, deadline);
    if (r <= 0)
      return r == 0 ? -EPIPE : r;
    size_t part = s->in_len < n ? s->in_len : n;
    memcpy(p, in_start(s), part);
    stream_consume(s, part);
    p += part;
    n -= part;
  }
  return 0;
}

/* --- output --- */

static int write_all(struct stream *s, const char *p, size_t n) {
  usec_t deadline = -1; /* the clock is asked only when we must wait */
  while (n > 0 && !s->write_error) {
    int want = FIBER_WRITE;
    int r = raw_write(s, p, n, &want);
    if (r == -EAGAIN) {
      if (deadline < 0)
        deadline = deadline_in(s->write_timeout);
      r = stream_wait(s, want, deadline);
    } else if (r > 0) {
      p += r;
      n -= (size_t)r;
      s->bytes_out += (uint64_t)r;
    }
    if (r < 0)
      s->write_error = r;
  }
  return s->write_error;
}

int stream_flush(struct stream *s) {
  char *block = s->out_block;
  size_t n = s->out_len;
  if (!block)
    return s->write_error;
  s->out_block = NULL;
  s->out_len = 0;
  int r = write_all(s, block, n);
  block_give(block, BLOCK_SIZE);
  return r;
}

int stream_write(struct stream *s, struct str data) {
  if (s->write_error)
    return s->write_error;
  if (s->out_len + data.len > BLOCK_SIZE) {
    int r = stream_flush(s);
    if (r < 0)
      return r;
  }
  if (data.len >= BLOCK_SIZE)
    return write_all(s, data.p, data.len);
  if (data.len == 0)
    return 0;
  if (!s->out_block)
    s->out_block = block_take();
  memcpy(s->out_block + s->out_len, data.p, data.len);
  s->out_len += data.len;
  return 0;
}

int stream_printf(struct stream *s, const char *fmt, ...) {
  char small[512];
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  int r = n < 0 ? -EINVAL : 0;
  if (n >= (int)sizeof small) {
    char *large = xmalloc((size_t)n + 1);
    vsnprintf(large, (size_t)n + 1, fmt, again);
    r = stream_write(s, str_n(large, (size_t)n));
    free(large);
  } else if (n >= 0) {
    r = stream_write(s, str_n(small, (size_t)n));
  }
  va_end(again);
  va_end(ap);
  return r;
}

/* --- connecting --- */

static int connect_fd(int fd, const struct sockaddr *to, unsigned to_len, const struct sockaddr *from,
    unsigned from_len, usec_t deadline) {
  int one = 1, error = 0;
  socklen_t len = sizeof error;
  if (to->sa_family != AF_UNIX)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* output is gathered here already */
  if (from && bind(fd, from, from_len) < 0)
    return -errno;
  if (connect(fd, to, to_len) == 0)
    return 0;
  if (errno == EAGAIN) /* AF_UNIX: the peer's queue is full; there is nothing to wait for */
    return -ECONNREFUSED;
  if (errno != EINPROGRESS && errno != EINTR)
    return -errno;
  int r = fiber_wait_fd(fd, FIBER_WRITE, deadline);
  if (r < 0)
    return r;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
    return -errno;
  return -error;
}

int stream_connect(const struct sockaddr *to, unsigned to_len, const struct sockaddr *from, unsigned from_len,
    usec_t deadline, struct stream **ret) {
  int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  int r = connect_fd(fd, to, to_len, from, from_len, deadline);
  if (r < 0) {
    close(fd);
    return r;
  }
  *ret = stream_new(fd, fd);
  return 0;
}
