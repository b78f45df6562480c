#include "queue/queue.h"

#include <stdio.h>

#include "base/test.h"

static void takes_in_order_of_due_time(void **state) {
  char id[24];
  for (int i = 0; i < 1000; i++) {
    snprintf(id, sizeof id, "id%d", i);
    queue_add(id, STR_EMPTY, (i * 7919) % 1000);
  }
  assert_int_equal(queue_count(), 1000);
  int64_t last = -1;
  for (int i = 0; i < 1000; i++) {
    assert_int_equal(queue_next_due() >= last, 1);
    struct queue_entry *e = queue_take(1000);
    assert_non_null(e);
    assert_true(e->due >= last);
    last = e->due;
    queue_remove(e);
  }
  assert_null(queue_take(1000));
  queue_clear();
}

static void active_message_runs_again_when_asked_meanwhile(void **state) {
  struct queue_entry *e = queue_take_now("a", STR_EMPTY);
  assert_null(queue_take_now("a", STR_EMPTY));
  queue_add("a", STR_EMPTY, 5);
  assert_null(queue_take(100));
  queue_put_back(e, QUEUE_NEVER, false);
  assert_ptr_equal(queue_take(100), e);
  queue_remove(e);
  queue_clear();
}

static void run_wakes_all_but_frozen(void **state) {
  struct queue_entry *f = queue_take_now("frozen", STR_EMPTY), *w = queue_take_now("waits", STR_EMPTY);
  queue_put_back(f, QUEUE_NEVER, true);
  queue_put_back(w, QUEUE_NEVER, false);
  queue_add("other", STR("named"), QUEUE_NEVER);
  queue_start_run(&(struct queue_run){.queue_name = STR_EMPTY}, 10);
  assert_ptr_equal(queue_take(10), w);
  assert_null(queue_take(10));
  queue_start_run(&(struct queue_run){.queue_name = STR_EMPTY, .force = true, .force_frozen = true}, 10);
  struct queue_entry *got = queue_take(10);
  assert_ptr_equal(got, f);
  assert_true(got->forced_frozen);
  queue_remove(f);
  queue_remove(w);
  queue_clear();
}

static void all_queues_keep_their_names(void **state) {
  char id[24], name[24];
  for (int i = 0; i < 100; i++) {
    snprintf(id, sizeof id, "id%d", i);
    snprintf(name, sizeof name, "queue%d", i / 2);
    queue_add(id, str_c(name), QUEUE_NEVER);
  }
  for (int i = 0; i < 50; i++) {
    snprintf(name, sizeof name, "queue%d", i);
    queue_start_run(&(struct queue_run){.queue_name = str_c(name)}, i);
    for (int k = 0; k < 2; k++) {
      struct queue_entry *e = queue_take(i);
      assert_non_null(e);
      assert_true(str_eq_c(e->queue_name, name));
      queue_remove(e);
    }
    assert_null(queue_take(i));
  }
  queue_clear();
}

static void passing_until_it_has_its_place(void **state) {
  assert_true(queue_passing("new"));
  struct queue_entry *e = queue_hold("new", STR_EMPTY, false), *d = queue_take_now("delivered", STR_EMPTY);
  assert_true(queue_passing("new"));
  assert_false(queue_passing("delivered"));
  queue_put_back(e, QUEUE_NEVER, false);
  assert_false(queue_passing("new"));
  queue_remove(e);
  queue_remove(d);
  queue_clear();
}

static void run_counts_for_one_whose_files_are_being_written(void **state) {
  struct queue_entry *e = queue_hold("new", STR_EMPTY, false), *f = queue_hold("frozen", STR_EMPTY, true);
  struct queue_entry *n = queue_hold("other", STR("named"), false);
  assert_null(queue_take_now("new", STR_EMPTY));
  queue_start_run(&(struct queue_run){.queue_name = STR_EMPTY, .first_only = true, .force = true}, 10);
  queue_put_back(e, QUEUE_NEVER, false);
  queue_put_back(f, QUEUE_NEVER, true);
  queue_put_back(n, QUEUE_NEVER, false);
  assert_ptr_equal(queue_take(10), e);
  assert_true(e->forced);
  assert_null(queue_take(10));
  queue_put_back(e, QUEUE_NEVER, false); /* it has been tried */
  queue_start_run(&(struct queue_run){.queue_name = STR("named"), .first_only = true}, 10);
  queue_start_run(&(struct queue_run){.queue_name = STR_EMPTY, .first_only = true}, 10);
  assert_ptr_equal(queue_take(10), n);
  assert_null(queue_take(10));
  queue_clear();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(takes_in_order_of_due_time),
      cmocka_unit_test(active_message_runs_again_when_asked_meanwhile),
      cmocka_unit_test(run_wakes_all_but_frozen),
      cmocka_unit_test(all_queues_keep_their_names),
      cmocka_unit_test(passing_until_it_has_its_place),
      cmocka_unit_test(run_counts_for_one_whose_files_are_being_written),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
