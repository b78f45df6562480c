#include "base/test.h"
#include "base/arena.h"
#include "base/buf.h"

static void builds(void **state) {
  struct arena *a = arena_new("test");
  struct buf b;
  buf_init(&b, a, 100000);
  assert_str(buf_str(&b), "");
  buf_add_c(&b, "a");
  buf_add_byte(&b, 'b');
  buf_printf(&b, "%d%s", 12, "");
  assert_int_equal(b.taint, 0);
  buf_add(&b, str_tainted(STR("!")));
  assert_str(buf_str(&b), "ab12!");
  assert_true(str_is_tainted(buf_str(&b)));
  assert_int_equal(buf_str(&b).p[5], 0);
  buf_truncate(&b, 2);
  for (int i = 0; i < 1000; i++)
    buf_printf(&b, "%010d", i);
  assert_int_equal(b.len, 10002);
  assert_memory_equal(b.p + 9992, "0000000999", 10);
  assert_false(b.overflow);
  arena_free(a);
}

static void keeps_its_maximum(void **state) {
  struct arena *a = arena_new("test");
  struct buf b;
  buf_init(&b, a, 5);
  buf_add_c(&b, "12345");
  assert_false(b.overflow);
  buf_add_byte(&b, '6');
  assert_true(b.overflow);
  assert_str(buf_str(&b), "12345");
  buf_init(&b, a, 5);
  buf_add_c(&b, "123");
  buf_printf(&b, "%s", "456");
  assert_true(b.overflow);
  buf_add_c(&b, "4"); /* nothing more after an overflow */
  assert_str(buf_str(&b), "123");
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(builds), cmocka_unit_test(keeps_its_maximum)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
