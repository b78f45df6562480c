/* Any bytes on the local socket, in pieces: the daemon's end reads a request and the input behind it. What is accepted as a
request is written and read again the same. The first byte chooses the pieces' size; 0: the rest is a request alone. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/submission.h"
#include "daemon/local_wire.h"
#include "loop/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

static void request(struct arena *a, struct str text) {
  struct cli first, second;
  struct buf b, again;
  const char *error;
  if (!submission_decode(a, text, &first, &error))
    return;
  buf_init(&b, a, LOCAL_REQUEST_MAX);
  submission_encode(&first, &b);
  check(str_eq(buf_str(&b), text));
  check(submission_decode(a, buf_str(&b), &second, &error));
  buf_init(&again, a, LOCAL_REQUEST_MAX);
  submission_encode(&second, &again);
  check(str_eq(buf_str(&b), buf_str(&again)));
}

struct task {
  struct str text;
  size_t piece;
  int fd;
};

static void send_pieces(void *arg) {
  struct task *t = arg;
  for (size_t i = 0; i < t->text.len; i += t->piece) {
    struct str part = str_slice(t->text, i, i + t->piece);
    if (send(t->fd, part.p, part.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
      break; /* the other end has had enough */
    fiber_yield();
  }
  close(t->fd);
}

static int serve(void *arg) {
  struct task *t = arg;
  struct arena *a = arena_new("fuzz");
  struct str text;
  int fds[2], r;
  size_t all = 0;
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
  t->fd = fds[1];
  fiber_spawn("sender", send_pieces, t);
  if (local_read_request(fds[0], a, deadline_in(60), &text) == 0) {
    request(a, text);
    struct stream *s = local_stream_new(fds[0]);
    while ((r = stream_fill(s, deadline_in(60))) > 0) {
      all += (size_t)r;
      stream_consume(s, (size_t)r);
    }
    check(all + text.len <= t->text.len && (r == 0 || r == -ECONNRESET || r == -EPROTO));
    stream_free(s);
  } else {
    close(fds[0]);
  }
  arena_free(a);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1)
    return 0;
  struct str text = str_n((const char *)data + 1, size - 1);
  if (data[0] == 0) {
    struct arena *a = arena_new("fuzz");
    request(a, text);
    arena_free(a);
  } else {
    struct task t = {.text = text, .piece = data[0]};
    loop_run(serve, &t);
  }
  return 0;
}
