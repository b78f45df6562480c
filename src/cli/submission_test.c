#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/submission.h"
#include "daemon/local_wire.h"
#include "loop/stream.h"

static struct arena *a;

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void example(struct cli *c) {
  *c = (struct cli){.arena = a, .program = "sendmail", .mode = MODE_RECEIVE, .delivery = DELIVER_FOREGROUND, .delivery_given = true,
      .sender = STR("a@b.test"), .sender_given = true, .full_name = STR_EMPTY, .oMr = STR("proto"), .receive_timeout = -1,
      .smtp_timeout = 300, .call = STR("cwd=/ 1 args: sendmail")};
  vec_push(a, &c->args, STR("u0@local.test"));
  vec_push(a, &c->args, STR_EMPTY);
  vec_push(a, &c->queue_runs, ((struct cli_queue_run){.force = true, .queue_name = STR("special")}));
}

static struct str encoded(const struct cli *c) {
  struct buf b;
  buf_init(&b, a, LOCAL_REQUEST_MAX);
  submission_encode(c, &b);
  assert_false(b.overflow);
  return buf_str(&b);
}

static void test_round_trip(void **state) {
  struct cli in, out;
  const char *error;
  example(&in);
  assert_true(submission_decode(a, encoded(&in), &out, &error));
  assert_string_equal(out.program, "sendmail");
  assert_int_equal(out.mode, MODE_RECEIVE);
  assert_int_equal(out.delivery, DELIVER_FOREGROUND);
  assert_true(out.delivery_given && out.sender_given && !out.no_qualify);
  assert_true(str_eq_c(out.sender, "a@b.test") && (out.sender.taint & STR_TAINTED));
  assert_true(str_is_set(out.full_name) && out.full_name.len == 0);
  assert_false(str_is_set(out.oMa));
  assert_int_equal(out.receive_timeout, -1);
  assert_int_equal(out.smtp_timeout, 300);
  assert_true(str_eq_c(out.call, "cwd=/ 1 args: sendmail") && (out.call.taint & STR_TAINTED));
  assert_int_equal(out.args.n, 2);
  assert_int_equal(out.queue_runs.n, 1);
  assert_true(out.queue_runs.v[0].force && !out.queue_runs.v[0].first_only && str_eq_c(out.queue_runs.v[0].queue_name, "special"));
}

/* Nothing of the daemon's own can be set from outside. */
static void test_not_sent(void **state) {
  struct cli in, out;
  const char *error;
  example(&in);
  in.config_files = STR("/etc/other");
  in.config_given = in.debug = in.verbose = true;
  vec_push(a, &in.macros, STR("X=y"));
  assert_true(submission_decode(a, encoded(&in), &out, &error));
  assert_false(str_is_set(out.config_files) || out.config_given || out.debug || out.verbose || out.macros.n);
}

static void test_refused(void **state) {
  struct cli in, out;
  const char *error;
  example(&in);
  struct str good = encoded(&in);
  for (size_t n = 0; n < good.len; n++)
    assert_false(submission_decode(a, str_slice(good, 0, n), &out, &error));
  assert_false(submission_decode(a, str_cat(a, good, STR("x")), &out, &error));
  char *p = str_dup_c(a, good);
  memcpy(p, good.p, good.len);
  p[3]++;
  assert_false(submission_decode(a, str_n(p, good.len), &out, &error));
  assert_non_null(strstr(error, "version"));
  in.sender = str_n("a\0b", 3);
  assert_false(submission_decode(a, encoded(&in), &out, &error));
  example(&in);
  in.mode = MODE_UTILITY + 1;
  assert_false(submission_decode(a, encoded(&in), &out, &error));
  example(&in);
  in.receive_timeout = INT64_MAX; /* no time can be that many seconds from now */
  assert_false(submission_decode(a, encoded(&in), &out, &error));
  example(&in);
  for (int i = 0; i < 20; i++)
    vec_push(a, &in.queue_runs, ((struct cli_queue_run){.queue_name = STR_EMPTY}));
  assert_false(submission_decode(a, encoded(&in), &out, &error));
}

/* --- frames --- */

struct peer {
  int fd;
  struct str text;
  size_t piece;
};

static void send_pieces(void *arg) {
  struct peer *p = arg;
  for (size_t i = 0; i < p->text.len; i += p->piece) {
    struct str part = str_slice(p->text, i, i + p->piece);
    assert_int_equal(send(p->fd, part.p, part.len, MSG_NOSIGNAL), part.len);
    fiber_yield();
  }
  shutdown(p->fd, SHUT_WR);
}

static void add_frame(struct buf *b, enum local_frame type, struct str text) {
  unsigned char head[LOCAL_HEAD];
  local_head_put(head, type, text.len);
  buf_add_n(b, (const char *)head, sizeof head);
  buf_add(b, text);
}

/* Sends the frames in pieces of every size; what the daemon's end reads is in *ret. Its result at the end. */
static int transfer(struct str frames, size_t piece, struct str *ret_request, struct str *ret) {
  int fds[2];
  struct buf got;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  struct peer p = {fds[1], frames, piece};
  struct fiber *sender = fiber_spawn_joinable("sender", send_pieces, &p);
  buf_init(&got, a, 1 << 20);
  *ret_request = STR_UNSET;
  int r = local_read_request(fds[0], a, deadline_in(60), ret_request);
  if (r == 0) {
    struct stream *s = local_stream_new(fds[0]);
    while ((r = stream_fill(s, deadline_in(60))) > 0) {
      buf_add(&got, stream_peek(s));
      stream_consume(s, stream_peek(s).len);
    }
    fiber_join(sender);
    stream_free(s);
  } else {
    fiber_join(sender);
    close(fds[0]);
  }
  close(fds[1]);
  *ret = buf_str(&got);
  return r;
}

static int frames_fiber(void *arg) {
  static const size_t sizes[] = {1, 3, 7, 8, 9, 64, 5000};
  struct str request, got;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct buf b;
    buf_init(&b, a, 1 << 20);
    add_frame(&b, LOCAL_REQUEST, STR("what"));
    add_frame(&b, LOCAL_DATA, STR("one "));
    add_frame(&b, LOCAL_DATA, STR("two"));
    struct str open = str_dup(a, buf_str(&b));
    assert_int_equal(transfer(open, sizes[i], &request, &got), -ECONNRESET);
    assert_true(str_eq_c(request, "what") && str_eq_c(got, "one two"));
    assert_int_equal(transfer(str_slice(open, 0, open.len - 1), sizes[i], &request, &got), -ECONNRESET);
    add_frame(&b, LOCAL_END, STR_EMPTY);
    assert_int_equal(transfer(buf_str(&b), sizes[i], &request, &got), 0);
    assert_true(str_eq_c(got, "one two"));
    buf_init(&b, a, 1 << 20);
    add_frame(&b, LOCAL_DATA, STR("x"));
    assert_int_equal(transfer(buf_str(&b), sizes[i], &request, &got), -EPROTO);
    buf_init(&b, a, 1 << 20);
    add_frame(&b, LOCAL_REQUEST, STR("what"));
    add_frame(&b, LOCAL_OUT, STR("x"));
    assert_int_equal(transfer(buf_str(&b), sizes[i], &request, &got), -EPROTO);
  }
  return 0;
}

static void test_frames(void **state) { assert_int_equal(loop_run(frames_fiber, NULL), 0); }

static void test_heads(void **state) {
  unsigned char head[LOCAL_HEAD];
  enum local_frame type;
  uint32_t length;
  local_head_put(head, LOCAL_DATA, LOCAL_PIECE_MAX);
  assert_true(local_head_take(head, &type, &length) && type == LOCAL_DATA && length == LOCAL_PIECE_MAX);
  local_head_put(head, LOCAL_DATA, LOCAL_PIECE_MAX + 1);
  assert_false(local_head_take(head, &type, &length));
  local_head_put(head, LOCAL_END, 1);
  assert_false(local_head_take(head, &type, &length));
  local_head_put(head, LOCAL_STATUS, 3);
  assert_false(local_head_take(head, &type, &length));
  local_head_put(head, (enum local_frame)0, 0);
  assert_false(local_head_take(head, &type, &length));
}

/* What the daemon writes, output and errors in their order. */
static int answers_fiber(void *arg) {
  int fds[2];
  unsigned char got[200];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  struct stream *s = local_stream_new(fds[0]);
  assert_int_equal(stream_write(s, STR("out")), 0);
  assert_int_equal(local_send_error(s, STR("error")), 0);
  assert_int_equal(local_send_status(s, 75), 0);
  ssize_t n = recv(fds[1], got, sizeof got, 0);
  assert_int_equal(n, LOCAL_HEAD + 3 + LOCAL_HEAD + 5 + LOCAL_HEAD + 4);
  assert_memory_equal(got + LOCAL_HEAD, "out", 3);
  assert_memory_equal(got + 2 * LOCAL_HEAD + 3, "error", 5);
  int32_t status;
  memcpy(&status, got + 3 * LOCAL_HEAD + 8, 4);
  assert_int_equal(status, 75);
  stream_free(s);
  close(fds[1]);
  return 0;
}

static void test_answers(void **state) { assert_int_equal(loop_run(answers_fiber, NULL), 0); }

int main(void) {
  loop_init();
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_round_trip), T(test_not_sent), T(test_refused), T(test_frames), T(test_heads), T(test_answers)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  loop_done();
  return failed;
}
