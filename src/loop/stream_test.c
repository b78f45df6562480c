#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/stream.h"

static int teardown(void **state) {
  loop_done();
  return 0;
}

static void pair(struct stream **a, struct stream **b) {
  int p[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
  *a = stream_new(p[0], p[0]);
  *b = stream_new(p[1], -1);
}

static void send_now(struct stream *s, const char *text) {
  assert_int_equal(stream_write(s, str_c(text)), 0);
  assert_int_equal(stream_flush(s), 0);
}

#define READ_LINE(s, max) stream_read_line((s), (max), deadline_in(60), &line, &eol)

static void later_writer(void *arg) {
  fiber_yield();
  send_now(arg, "li");
  fiber_yield();
  send_now(arg, "ne\r");
  fiber_yield();
  send_now(arg, "\nnext");
  fiber_yield();
  assert_int_equal(shutdown(stream_fd(arg), SHUT_WR), 0);
}

static int lines_main(void *arg) {
  struct stream *a, *b;
  struct str line;
  int eol;
  pair(&a, &b);
  send_now(a, "one\r\ntwo\n\r\n\nthr\ree\r\n");
  assert_int_equal(READ_LINE(b, 100), 1);
  assert_str(line, "one");
  assert_int_equal(eol, 2);
  assert_true(str_is_tainted(line));
  assert_int_equal(READ_LINE(b, 100), 1);
  assert_str(line, "two");
  assert_int_equal(eol, 1);
  assert_true(stream_input_pending(b));
  assert_int_equal(READ_LINE(b, 100), 1);
  assert_int_equal(line.len * 10 + (unsigned)eol, 2);
  assert_int_equal(READ_LINE(b, 100), 1);
  assert_int_equal(line.len * 10 + (unsigned)eol, 1);
  assert_int_equal(READ_LINE(b, 100), 1);
  assert_str(line, "thr\ree");
  assert_false(stream_input_pending(b));
  assert_int_equal(stream_read_line(b, 100, loop_now_fresh() + 1000, &line, &eol), -ETIMEDOUT);
  fiber_spawn("writer", later_writer, a);
  assert_int_equal(READ_LINE(b, 100), 1); /* goes on after a timeout */
  assert_str(line, "line");
  assert_int_equal(eol, 2);
  assert_int_equal(READ_LINE(b, 100), 1); /* end of file in the middle of a line */
  assert_str(line, "next");
  assert_int_equal(eol, 0);
  assert_true(stream_at_eof(b));
  assert_int_equal(READ_LINE(b, 100), 0);
  assert_int_equal(stream_bytes_in(b), 30);
  assert_int_equal(stream_bytes_out(a), 30);
  stream_free(a);
  stream_free(b);
  return 0;
}

static void write_long(void *arg) {
  struct stream *s = arg;
  char *big = xmalloc(100001);
  memset(big, 'x', 100000);
  big[100000] = '\0';
  stream_write(s, str_c(big));
  stream_write(s, STR("\r\n"));
  stream_write(s, str_c(big));
  send_now(s, "\r\nshort\r\n");
  stream_write(s, str_c(big));
  assert_int_equal(stream_output_pending(s), 0); /* too big to be gathered */
  shutdown(stream_fd(s), SHUT_WR);
  free(big);
}

static int limits_main(void *arg) {
  struct stream *a, *b;
  struct str line;
  int eol;
  pair(&a, &b);
  send_now(a, "12345\r\n123456\r\n12345\n123456\n1\r\n");
  assert_int_equal(READ_LINE(b, 5), 1);
  assert_str(line, "12345");
  assert_int_equal(READ_LINE(b, 5), -EMSGSIZE);
  assert_int_equal(READ_LINE(b, 5), 1);
  assert_str(line, "12345");
  assert_int_equal(READ_LINE(b, 5), -EMSGSIZE);
  assert_int_equal(READ_LINE(b, 5), 1);
  assert_str(line, "1");
  fiber_spawn("long", write_long, a);
  assert_int_equal(READ_LINE(b, 100000), 1); /* longer than a block */
  assert_int_equal(line.len, 100000);
  assert_int_equal(line.p[99999], 'x');
  assert_int_equal(READ_LINE(b, 99999), -EMSGSIZE);
  assert_int_equal(READ_LINE(b, 10), 1);
  assert_str(line, "short");
  assert_int_equal(READ_LINE(b, 99999), -EMSGSIZE); /* too long and without an end */
  assert_int_equal(READ_LINE(b, 10), 0);
  stream_free(a);
  stream_free(b);
  return 0;
}

static void echo(void *arg) {
  struct stream *s = arg;
  while (stream_fill(s, deadline_in(60)) > 0) {
    struct str got = stream_peek(s);
    size_t n = got.len > 7000 ? 7000 : got.len;
    assert_int_equal(stream_write(s, str_slice(got, 0, n)), 0);
    stream_consume(s, n);
    if (!stream_input_pending(s))
      assert_int_equal(stream_flush(s), 0);
  }
  stream_flush(s); /* "pending" is true at end of file too */
  stream_free(s);
}

static void send_numbers(void *arg) {
  for (int i = 0; i < 200000; i++)
    assert_int_equal(stream_printf(arg, "%06d\n", i), 0);
  assert_int_equal(stream_flush(arg), 0);
  shutdown(stream_fd(arg), SHUT_WR);
}

static int echoes_main(void *arg) {
  struct stream *a, *b;
  char text[8], want[8];
  pair(&a, &b);
  fiber_spawn("echo", echo, b);
  fiber_spawn("sender", send_numbers, a);
  for (int i = 0; i < 200000; i++) {
    snprintf(want, sizeof want, "%06d\n", i);
    assert_int_equal(stream_read_exact(a, text, 7, deadline_in(60)), 0);
    assert_memory_equal(text, want, 7);
  }
  assert_int_equal(stream_read_exact(a, text, 7, deadline_in(60)), -EPIPE);
  stream_free(a);
  return 0;
}

static void cancelled_reader(void *arg) {
  struct str line;
  int eol;
  assert_int_equal(stream_read_line(arg, 10, DEADLINE_NEVER, &line, &eol), -ECANCELED);
  send_now(arg, "bye\n"); /* needs no waiting: still possible */
}

static int errors_main(void *arg) {
  struct stream *a, *b;
  struct str line;
  int eol;
  pair(&a, &b);
  struct fiber *f = fiber_spawn_joinable("reader", cancelled_reader, b);
  fiber_yield();
  fiber_yield();
  fiber_cancel(f);
  fiber_join(f);
  assert_int_equal(READ_LINE(a, 10), 1);
  assert_str(line, "bye");
  char *big = xcalloc(1, 10000000);
  stream_set_write_timeout(a, 1);
  assert_int_equal(stream_write(a, str_n(big, 10000000)), -ETIMEDOUT); /* nobody reads */
  assert_int_equal(stream_write(a, STR("x")), -ETIMEDOUT);
  assert_int_equal(stream_flush(a), -ETIMEDOUT);
  stream_free(a);
  stream_write(b, STR("x"));
  assert_int_equal(stream_flush(b), -EPIPE);
  free(big);
  stream_free(b);
  return 0;
}

/* As with -bs: a file and a pipe, or two pipes. */
static int files_main(void *arg) {
  int p[2];
  struct str line;
  int eol;
  char name[] = "/tmp/stream_test.XXXXXX", text[32];
  int fd = mkstemp(name);
  assert_true(fd >= 0);
  unlink(name);
  assert_int_equal(write(fd, "a\nb\n", 4), 4);
  lseek(fd, 0, SEEK_SET);
  assert_int_equal(pipe(p), 0);
  struct stream *s = stream_new(fd, p[1]);
  stream_keep_fds(s);
  assert_int_equal(READ_LINE(s, 10), 1);
  assert_int_equal(READ_LINE(s, 10), 1);
  assert_str(line, "b");
  assert_true(stream_input_pending(s));
  assert_int_equal(READ_LINE(s, 10), 0);
  send_now(s, "out");
  assert_int_equal(read(p[0], text, sizeof text), 3);
  stream_free(s);
  assert_int_equal(fcntl(p[1], F_GETFL) & O_NONBLOCK, 0); /* as it was */
  s = stream_new(p[0], fd);
  assert_int_equal(write(p[1], "x\n", 2), 2);
  assert_int_equal(READ_LINE(s, 10), 1);
  assert_str(line, "x");
  assert_int_equal(stream_read_line(s, 10, loop_now_fresh() + 1000, &line, &eol), -ETIMEDOUT);
  close(p[1]);
  assert_int_equal(READ_LINE(s, 10), 0);
  stream_free(s);
  return 0;
}

static int connects_main(void *arg) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, bound;
  socklen_t len = sizeof bound;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&any, sizeof any), 0);
  getsockname(listener, (struct sockaddr *)&bound, &len);
  struct stream *s = NULL;
  /* Bound, but nobody listens. */
  assert_int_equal(stream_connect((struct sockaddr *)&bound, len, NULL, 0, deadline_in(60), &s), -ECONNREFUSED);
  assert_null(s);
  listen(listener, 5);
  assert_int_equal(stream_connect((struct sockaddr *)&bound, len, (struct sockaddr *)&any, sizeof any,
                       deadline_in(60), &s), 0);
  assert_true(fiber_wait_fd(listener, FIBER_READ, deadline_in(60)) > 0);
  struct stream *peer = stream_new(accept(listener, NULL, NULL), -1);
  struct str line;
  int eol;
  stream_printf(s, "%600s|%d\n", "x", 5);
  stream_flush(s);
  assert_int_equal(READ_LINE(peer, 1000), 1);
  assert_int_equal(line.len, 602);
  assert_int_equal(stream_fill_more(peer, loop_now_fresh() + 1000), -ETIMEDOUT);
  stream_set_error(s, STR("text"));
  assert_str(stream_error(s), "text");
  stream_free(peer);
  stream_free(s);
  close(listener);
  return 0;
}

/* Many streams whose numbers of descriptors are used again and again. */
static void short_talk(void *arg) {
  struct stream *a, *b;
  struct str line;
  int eol;
  for (int i = 0; i < 20; i++) {
    pair(&a, &b);
    struct fiber *f = fiber_spawn_joinable("echo", echo, b);
    for (int k = 0; k < 3; k++) {
      stream_printf(a, "hello %d\r\n", k);
      assert_int_equal(stream_flush(a), 0);
      assert_int_equal(READ_LINE(a, 100), 1);
    }
    shutdown(stream_fd(a), SHUT_WR);
    assert_int_equal(READ_LINE(a, 100), 0);
    stream_free(a);
    fiber_join(f);
  }
}

static int reuse_main(void *arg) {
  for (int i = 0; i < 20; i++)
    fiber_spawn("talk", short_talk, NULL);
  return 0;
}

#define TEST(name)                                                                                                     \
  static void name(void **state) { loop_run(name##_main, NULL); }
TEST(lines)
TEST(limits)
TEST(echoes)
TEST(errors)
TEST(files)
TEST(connects)
TEST(reuse)

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, teardown)
  const struct CMUnitTest all[] = {T(lines), T(limits), T(echoes), T(errors), T(files), T(connects), T(reuse)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
