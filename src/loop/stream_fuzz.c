/* Lines read through a stream, in pieces of any size and with any maximum, are
those of the plainest reader. The first two bytes choose both. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct task {
  const char *p;
  size_t n, piece, max;
  int fd;
};

static void check(bool ok) {
  if (!ok)
    abort();
}

static void send_pieces(void *arg) {
  struct task *t = arg;
  for (size_t i = 0; i < t->n;) {
    size_t part = t->n - i < t->piece ? t->n - i : t->piece;
    ssize_t r = send(t->fd, t->p + i, part, MSG_NOSIGNAL);
    check(r > 0);
    i += (size_t)r;
    fiber_yield();
  }
  close(t->fd);
}

static int read_lines(void *arg) {
  struct task *t = arg;
  int fds[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  struct stream *s = stream_new(fds[0], -1);
  t->fd = fds[1];
  fiber_spawn("sender", send_pieces, t);
  struct str rest = str_n(t->p, t->n), line;
  int eol;
  while (rest.len) {
    ptrdiff_t lf = str_find_byte(rest, '\n');
    size_t len = lf < 0 ? rest.len : (size_t)lf;
    bool cr = lf > 0 && rest.p[lf - 1] == '\r';
    int r = stream_read_line(s, t->max, deadline_in(60), &line, &eol);
    if (len - cr > t->max) {
      check(r == -EMSGSIZE);
    } else {
      check(r == 1 && str_eq(line, str_slice(rest, 0, len - cr)));
      check(eol == (lf < 0 ? 0 : 1 + cr));
    }
    rest = str_from(rest, lf < 0 ? rest.len : len + 1);
  }
  check(stream_read_line(s, t->max, deadline_in(60), &line, &eol) == 0);
  check(stream_bytes_in(s) == t->n);
  stream_free(s);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  struct task t = {.p = (const char *)data + 2, .n = size - 2, .piece = data[0] + 1u, .max = data[1]};
  loop_run(read_lines, &t);
  return 0;
}
