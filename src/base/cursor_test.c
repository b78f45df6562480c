#include "base/test.h"
#include "base/ascii.h"
#include "base/checked.h"
#include "base/cursor.h"

static void reads_binary(void **state) {
  struct cursor c = cursor_of(str_tainted(STR("\x01\x02\x03\x04\x05\x06\x07xy")));
  assert_int_equal(cursor_u8(&c), 1);
  assert_int_equal(cursor_u16(&c), 0x0203);
  assert_int_equal(cursor_u32(&c), 0x04050607);
  assert_int_equal(cursor_left(&c), 2);
  assert_false(c.failed);
  assert_int_equal(cursor_u64(&c), 0); /* too short */
  assert_true(c.failed);
  assert_str(cursor_take(&c, 1), ""); /* and so it stays */
  assert_int_equal(cursor_left(&c), 2);
  assert_true(str_is_tainted(cursor_rest(&c)));
}

static void reads_text(void **state) {
  struct cursor c = cursor_of(STR("Name \t: 42,rest"));
  assert_str(cursor_take_while(&c, ascii_is_alpha), "Name");
  cursor_skip_blanks(&c);
  assert_false(cursor_accept(&c, ';'));
  assert_true(cursor_accept(&c, ':'));
  cursor_skip_space(&c);
  assert_int_equal(cursor_decimal(&c), 42);
  assert_str(cursor_take_until(&c, ','), "");
  assert_true(cursor_accept_word(&c, STR("RE")));
  assert_int_equal(cursor_peek(&c), 's');
  assert_str(cursor_take_until(&c, '!'), "");
  assert_true(c.failed);
  assert_str(cursor_rest(&c), "st");
  c = cursor_of(STR("99999999999999999999"));
  cursor_decimal(&c);
  assert_true(c.failed);
  c = cursor_of(STR_UNSET);
  assert_int_equal(cursor_peek(&c), -1);
  assert_true(cursor_at_end(&c) && !c.failed);
}

static void checks_arithmetic(void **state) {
  size_t s;
  int64_t i;
  int n;
  assert_false(checked_add_size(SIZE_MAX, 1, &s));
  assert_true(checked_mul_size(3, 4, &s) && s == 12);
  assert_false(checked_div_i64(INT64_MIN, -1, &i) || checked_div_i64(1, 0, &i));
  assert_true(checked_sub_i64(1, 2, &i) && i == -1);
  assert_false(checked_mul_i64(INT64_MAX, 2, &i) || checked_add_i64(INT64_MAX, 1, &i));
  assert_false(checked_int(1LL << 40, &n));
  assert_true(checked_int(-5, &n) && n == -5);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(reads_binary), cmocka_unit_test(reads_text),
      cmocka_unit_test(checks_arithmetic)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
