/* What a Redis server says, which may be anything, and how a command line is split. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/fiber.h"
#include "lookup/redis_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct task {
  struct str input;
  int fd;
};

static void check(bool ok) {
  if (!ok)
    abort();
}

static void send_all(void *arg) {
  struct task *t = arg;
  for (struct str rest = t->input; rest.len;) {
    ssize_t n = send(t->fd, rest.p, rest.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0)
      break; /* the reader has seen enough */
    rest = str_from(rest, (size_t)n);
    fiber_yield();
  }
  close(t->fd);
}

static int read_replies(void *arg) {
  struct task *t = arg;
  int fds[2], e = 0;
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  struct arena *a = arena_new("fuzz");
  struct stream *s = stream_new(fds[0], -1);
  t->fd = fds[1];
  struct fiber *sender = fiber_spawn_joinable("server", send_all, t);
  for (int i = 0; i < 100 && e >= 0; i++) {
    struct str text;
    e = redis_read_reply(a, s, deadline_in(60), &text);
    check(e < 0 || text.len <= REDIS_REPLY_MAX);
  }
  stream_free(s);
  fiber_join(sender);
  arena_free(a);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *a = arena_new("fuzz");
  struct task t = {.input = str_n((const char *)data, size)};
  struct str args[REDIS_ARGS_MAX];
  int n = redis_split(a, t.input, args);
  check(n <= REDIS_ARGS_MAX);
  for (int i = 0; i < n; i++)
    check(args[i].len <= t.input.len);
  arena_free(a);
  loop_init();
  loop_run(read_replies, &t);
  loop_done();
  return 0;
}
