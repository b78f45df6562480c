#include "base/test.h"

#include <stdlib.h>
#include "base/arena.h"
#include "base/time.h"

static struct arena *a;
static int setup(void **state) {
  a = arena_new("test");
  setenv("TZ", "XYZ-05:30", 1); /* east of Greenwich */
  tzset();
  return 0;
}
static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void intervals(void **state) {
  static const struct {
    const char *text;
    int64_t seconds;
  } good[] = {{"0s", 0}, {"1w2d3h4m5s", 788645}, {"90m", 5400}, {"1d", 86400}, {"1h30m", 5400}, {"0m", 0}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_int_equal(time_parse_interval(str_c(good[i].text)), good[i].seconds);
  static const char *const bad[] = {"", "5", "5x", "s", "1m1h", "1h1h", "-1s", "1 s", "99999999999s",
      "99999999999999999999999s"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (time_parse_interval(str_c(bad[i])) != -1)
      fail_msg("'%s' was taken for a time", bad[i]);
  assert_str(time_format_interval(a, 788645), "1w2d3h4m5s");
  assert_str(time_format_interval(a, 90), "1m30s");
  assert_str(time_format_interval(a, 0), "0s");
  assert_str(time_format_duration(a, 1234567, true), "1.234s");
  assert_str(time_format_duration(a, 1934567, false), "1s");
  assert_str(time_format_duration(a, 61000000, true), "1m1s");
}

static void dates(void **state) {
  assert_str(time_rfc2822(a, 920367873), "Tue, 02 Mar 1999 15:14:33 +0530");
  assert_str(time_bsd_inbox(a, 920367873), "Tue Mar 02 15:14:33 1999");
}

static void stamps(void **state) {
  char text[40];
  size_t n = time_log_stamp(text, 920367873123456, false, false, false);
  assert_string_equal(text, "1999-03-02 15:14:33");
  assert_int_equal(n, 19);
  time_log_stamp(text, 920367873123456, true, true, false);
  assert_string_equal(text, "1999-03-02 15:14:33.123 +0530");
  time_log_stamp(text, 920367873123456, false, true, true); /* the same second, another zone */
  assert_string_equal(text, "1999-03-02 09:44:33 +0000");
  time_log_stamp(text, 920367874000000, false, false, false);
  assert_string_equal(text, "1999-03-02 15:14:34");
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(intervals), cmocka_unit_test(dates), cmocka_unit_test(stamps)};
  return cmocka_run_group_tests(all, setup, teardown);
}
