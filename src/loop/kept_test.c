#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/test.h"
#include "loop/fiber.h"
#include "loop/kept.h"

static int closed;

static void count_close(void *conn) { closed++; }

static bool spoken;
static bool has_spoken(void *conn) { return spoken; }

static const struct kept_kind kind = {"t", 64, 5, 60, count_close, NULL}, other = {"u", 64, 64, 60, count_close, NULL},
                              talker = {"v", 1, 1, 60, count_close, has_spoken}, brief = {"w", 9, 9, 1, count_close, NULL};

static void test_take_and_give(void **state) {
  static int x, y;
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  closed = 0;
  assert_null(kept_take(&kind, STR("s")));
  kept_give(&kind, STR("s"), &x, fds[0]);
  kept_give(&kind, STR("s"), &y, -1);
  assert_null(kept_take(&kind, STR("other")));
  assert_null(kept_take(&other, STR("s")));
  assert_ptr_equal(kept_take(&kind, STR("s")), &y);
  assert_ptr_equal(kept_take(&kind, STR("s")), &x);
  assert_null(kept_take(&kind, STR("s")));
  kept_give(&kind, STR("s"), &x, fds[0]);
  close(fds[1]); /* the server has gone */
  assert_null(kept_take(&kind, STR("s")));
  assert_int_equal(closed, 1);
  close(fds[0]);
}

static void test_bounds(void **state) {
  static int x;
  closed = 0;
  for (int i = 0; i < 10; i++)
    kept_give(&kind, STR("s"), &x, -1);
  assert_int_equal(closed, 5);
  for (int i = 0; i < 100; i++)
    kept_give(&kind, str_n((const char *)&i, sizeof i), &x, -1);
  assert_int_equal(closed, 46);
  kept_give(&other, STR("s"), &x, -1);
  kept_close_server(&kind, STR("s"));
  assert_int_equal(closed, 51);
  assert_null(kept_take(&kind, STR("s")));
  kept_close(&kind);
  assert_int_equal(closed, 110);
  assert_ptr_equal(kept_take(&other, STR("s")), &x);
}

static void test_one_that_speaks(void **state) {
  static int x;
  closed = 0;
  spoken = false;
  kept_give(&talker, STR("s"), &x, -1);
  assert_ptr_equal(kept_take(&talker, STR("s")), &x);
  kept_give(&talker, STR("s"), &x, -1);
  spoken = true;
  assert_null(kept_take(&talker, STR("s")));
  assert_int_equal(closed, 1);
}

/* The shorter time counts, whatever else is kept. */
static int let_pass(void *arg) {
  static int x;
  kept_give(&other, STR("s"), &x, -1);
  kept_give(&brief, STR("s"), &x, -1);
  for (int i = 0; i < 300 && closed == 0; i++)
    assert_int_equal(fiber_sleep(USEC_PER_SEC / 10), 0);
  assert_int_equal(closed, 1);
  assert_null(kept_take(&brief, STR("s")));
  assert_ptr_equal(kept_take(&other, STR("s")), &x);
  return 0;
}

static void test_time(void **state) {
  closed = 0;
  loop_init();
  assert_int_equal(loop_run(let_pass, NULL), 0);
  loop_done();
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_take_and_give), cmocka_unit_test(test_bounds), cmocka_unit_test(test_one_that_speaks), cmocka_unit_test(test_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
