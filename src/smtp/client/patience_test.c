#include "smtp/client/patience.h"

#include "base/test.h"

/* Messages are only told apart, so any addresses do. */
static char messages[8];
#define MESSAGE(n) ((const struct message *)(const void *)(messages + (n)))

static void nothing_is_limited_without_limits(void **state) {
  struct patience p;
  patience_limit(0, 0);
  patience_begin(&p, MESSAGE(0), STR("192.0.2.1"), 25);
  p.since -= 60 * USEC_PER_SEC;
  assert_false(patience_full(STR("192.0.2.1"), 25));
  patience_end(&p);
}

static void host_that_never_answers_takes_only_so_many(void **state) {
  struct patience p[2];
  patience_limit(2, 5);
  for (int i = 0; i < 2; i++) {
    assert_false(patience_full(STR("192.0.2.1"), 25));
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
  }
  assert_false(patience_full(STR("192.0.2.1"), 25)); /* nobody has waited yet */
  assert_int_equal(patience_waiting(), 0);
  for (int i = 0; i < 2; i++)
    p[i].since -= PATIENCE_WAIT;
  assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_false(patience_full(STR("192.0.2.1"), 26));
  assert_false(patience_full(STR("192.0.2.2"), 25));
  assert_int_equal(patience_waiting(), 2);
  assert_true(patience_again(STR("192.0.2.1"), 25) >= 15);
  patience_end(&p[0]);
  assert_false(patience_full(STR("192.0.2.1"), 25));
  patience_end(&p[1]);
  assert_int_equal(patience_waiting(), 0);
}

static int answers_somebody(void *arg) {
  struct patience p[5];
  patience_limit(2, 5);
  for (int i = 0; i < 5; i++) {
    assert_false(patience_full(STR("192.0.2.1"), 25));
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
    if (i == 0)
      patience_progress();
    p[i].since -= PATIENCE_WAIT;
  }
  assert_int_equal(patience_waiting(), 5);
  assert_true(patience_full(STR("192.0.2.1"), 25)); /* by their number */
  assert_true(patience_again(STR("192.0.2.1"), 25) < 15);
  for (int i = 0; i < 5; i++)
    patience_end(&p[i]);
  return 0;
}

static void host_that_answers_somebody_may_be_used_by_all(void **state) {
  loop_init();
  assert_int_equal(loop_run(answers_somebody, NULL), 0);
  loop_done();
}

static void many_sent_away_come_later(void **state) {
  struct patience p[2];
  patience_limit(2, 5);
  for (int i = 0; i < 2; i++) {
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
    p[i].since -= PATIENCE_WAIT;
  }
  int first = patience_again(STR("192.0.2.1"), 25);
  for (int i = 0; i < 1000; i++)
    assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_int_equal(patience_again(STR("192.0.2.1"), 25), first + 100);
  for (int i = 0; i < 100000; i++)
    assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_int_equal(patience_again(STR("192.0.2.1"), 25), 300);
  patience_end(&p[1]);
  patience_end(&p[0]);
}

/* A message that goes to several hosts at one time has one place of the worker. */
static void message_counts_once(void **state) {
  struct patience p[3];
  patience_limit(5, 5);
  for (int i = 0; i < 3; i++) {
    patience_begin(&p[i], MESSAGE(0), i ? STR("192.0.2.1") : STR("192.0.2.2"), 25);
    p[i].since -= PATIENCE_WAIT;
  }
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[0]);
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[2]);
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[1]);
  assert_int_equal(patience_waiting(), 0);
}

static void routing_waits_for_no_host(void **state) {
  struct patience p[3];
  patience_limit(1, 5);
  patience_begin_routing(&p[0], MESSAGE(0), STR("a@b.test"));
  patience_begin_routing(&p[1], MESSAGE(1), STR("c@b.test"));
  patience_begin(&p[2], MESSAGE(2), STR("192.0.2.1"), 25);
  assert_int_equal(patience_waiting(), 0);
  p[0].since -= PATIENCE_WAIT;
  assert_int_equal(patience_waiting(), 1);
  assert_false(patience_full(STR("192.0.2.1"), 25));
  assert_false(patience_full(STR(""), 0));
  patience_progress();
  for (int i = 0; i < 3; i++)
    patience_end(&p[i]);
  assert_int_equal(patience_waiting(), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_limited_without_limits),
      cmocka_unit_test(host_that_never_answers_takes_only_so_many),
      cmocka_unit_test(host_that_answers_somebody_may_be_used_by_all),
      cmocka_unit_test(many_sent_away_come_later),
      cmocka_unit_test(message_counts_once),
      cmocka_unit_test(routing_waits_for_no_host),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
