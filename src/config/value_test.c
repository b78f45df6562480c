#include "base/arena.h"
#include "base/test.h"
#include "config/config.h"
#include "config/value.h"

static struct arena *a;

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void integers(void **state) {
  static const struct {
    const char *text;
    bool wide;
    enum value_result rc;
    int64_t n;
  } cases[] = {
    {"0", false, VALUE_OK, 0},
    {"10", false, VALUE_OK, 10},
    {"-5", false, VALUE_OK, -5},
    {"010", false, VALUE_OK, 8},
    {"0x1F", false, VALUE_OK, 31},
    {"2K", false, VALUE_OK, 2048},
    {"3m", false, VALUE_OK, 3 << 20},
    {"1G", false, VALUE_OK, 1 << 30},
    {"2147483647", false, VALUE_OK, INT32_MAX},
    {"2147483648", false, VALUE_OVERFLOW, 0},
    {"2147483648", true, VALUE_OK, INT64_C(2147483648)},
    {"999999M", false, VALUE_OVERFLOW, 0},
    {"4000G", true, VALUE_OK, INT64_C(4000) << 30},
    {"4000Z", true, VALUE_OVERFLOW, 0},
    {"99999999999999999999", true, VALUE_OVERFLOW, 0},
    {"", false, VALUE_BAD, 0},
    {"x", false, VALUE_BAD, 0},
    {"-", false, VALUE_BAD, 0},
    {"5 K", false, VALUE_EXTRA, 0},
    {"40MK", false, VALUE_EXTRA, 0},
    {"08", false, VALUE_EXTRA, 0},
    {"0x", false, VALUE_EXTRA, 0},
    {"0xg", false, VALUE_EXTRA, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t n = 0;
    enum value_result rc = value_int_limited(str_c(cases[i].text), cases[i].wide, &n);
    if (rc != cases[i].rc || (rc == VALUE_OK && n != cases[i].n))
      fail_msg("\"%s\": %d %lld", cases[i].text, rc, (long long)n);
  }
}

static void octal_and_fixed(void **state) {
  int64_t n = 0;
  assert_int_equal(value_octal(STR("0640"), &n), VALUE_OK);
  assert_int_equal(n, 0640);
  assert_int_equal(value_octal(STR("640"), &n), VALUE_OK);
  assert_int_equal(n, 0640);
  assert_int_equal(value_octal(STR("9"), &n), VALUE_BAD);
  assert_int_equal(value_octal(STR("78"), &n), VALUE_EXTRA);
  assert_int_equal(value_fixed(STR("1.5"), &n), VALUE_OK);
  assert_int_equal(n, 1500);
  assert_int_equal(value_fixed(STR("2"), &n), VALUE_OK);
  assert_int_equal(n, 2000);
  assert_int_equal(value_fixed(STR("0.0019"), &n), VALUE_OK);
  assert_int_equal(n, 1);
  assert_int_equal(value_fixed(STR(".5"), &n), VALUE_BAD);
  assert_int_equal(value_fixed(STR("1.5x"), &n), VALUE_EXTRA);
  assert_int_equal(value_fixed(STR("4000000000000000.1"), &n), VALUE_OVERFLOW);
  assert_str(value_fixed_text(a, 1500), "1.5");
  assert_str(value_fixed_text(a, 2000), "2.0");
  assert_str(value_fixed_text(a, 1), "0.001");
  assert_str(value_fixed_text(a, -1), "");
}

static void times(void **state) {
  static const struct {
    const char *text;
    int64_t t;
  } good[] = {{"0s", 0}, {"3h50m", 13800}, {"1w2d3h4m5s", 788645}, {"90m", 5400}, {"5s5s", 10}};
  static const char *const bad[] = {"", "5", "s", "5x", "5 m", "-5s", "1.5h", "99999999999999999999s", "9999999999w"};
  int64_t t;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(value_time(str_c(good[i].text), &t), VALUE_OK);
    assert_int_equal(t, good[i].t);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_not_equal(value_time(str_c(bad[i]), &t), VALUE_OK);
  assert_str(value_time_text(a, 788645), "1w2d3h4m5s");
  assert_str(value_time_text(a, 5400), "1h30m");
  assert_str(value_time_text(a, 0), "0s");
}

static void sizes_back(void **state) {
  assert_str(value_size_text(a, 0), "0");
  assert_str(value_size_text(a, 1024), "1K");
  assert_str(value_size_text(a, 50 << 20), "50M");
  assert_str(value_size_text(a, INT64_C(4000) << 30), "4000G");
  assert_str(value_size_text(a, 1025), "1025");
}

static void quotes(void **state) {
  struct str value, rest;
  assert_int_equal(value_unquote(a, STR("\"a\\nb\\t\\x41\\101\\\\\\\"\\q\" tail"), &value, &rest), VALUE_OK);
  assert_str(value, "a\nb\tAA\\\"q");
  assert_str(rest, " tail");
  assert_int_equal(value_unquote(a, STR("\"abc"), &value, &rest), VALUE_BAD);
  assert_int_equal(value_unquote(a, STR("\"abc\\"), &value, &rest), VALUE_BAD);
  assert_int_equal(value_unquote(a, STR("\"\""), &value, &rest), VALUE_OK);
  assert_str(value, "");
}

static void list_is(const char *list, size_t n, const char *const *items) {
  struct str rest = str_c(list), item;
  char sep = 0;
  size_t i = 0;
  for (; value_list_next(a, &rest, &sep, &item); i++) {
    assert_true(i < n);
    assert_str(item, items[i]);
  }
  assert_int_equal(i, n);
}

static void lists(void **state) {
  list_is("", 0, NULL);
  list_is("  ", 0, NULL);
  list_is("a : b:c :", 3, (const char *[]){"a", "b", "c"});
  list_is(":", 1, (const char *[]){""});
  list_is("a : : b", 3, (const char *[]){"a", "", "b"});
  list_is("127.0.0.1 : ::::1", 2, (const char *[]){"127.0.0.1", "::1"});
  list_is("<; 127.0.0.1 ; ::1", 2, (const char *[]){"127.0.0.1", "::1"});
  list_is("<, a,,b , c", 2, (const char *[]){"a,b", "c"});
  list_is("<\n a \n\n b", 3, (const char *[]){"a", "", "b"});
  list_is("<ab", 1, (const char *[]){"<ab"});
}

static void users(void **state) {
  uint32_t id;
  int64_t gid;
  assert_true(value_user(STR("root"), &id, &gid));
  assert_int_equal(id, 0);
  assert_int_equal(gid, 0);
  assert_true(value_user(STR("12345"), &id, &gid));
  assert_int_equal(id, 12345);
  assert_int_equal(gid, -1);
  assert_false(value_user(STR("no-such-user-here"), &id, NULL));
  assert_false(value_user(STR(""), &id, NULL));
  assert_false(value_user(STR("4294967295"), &id, NULL));
  assert_false(value_user(STR("99999999999999"), &id, NULL));
  assert_true(value_group(STR("root"), &id));
  assert_false(value_group(STR("no-such-group-here"), &id));
}

static void nearest(void **state) {
  static const char *const names[] = {"qualify_domain", "qualify_recipient", "queue_only", "driver"};
  assert_string_equal(config_nearest(STR("qualify_domian"), names, sizeof *names, 4), "qualify_domain");
  assert_string_equal(config_nearest(STR("QUALIFY_RECIPENT"), names, sizeof *names, 4), "qualify_recipient");
  assert_string_equal(config_nearest(STR("dirver"), names, sizeof *names, 4), "driver");
  assert_null(config_nearest(STR("something_else"), names, sizeof *names, 4));
  assert_null(config_nearest(STR(""), names, sizeof *names, 4));
  assert_null(config_nearest(STR("x"), names, sizeof *names, 4));
}

int main(void) {
  const struct CMUnitTest all[] = {
    cmocka_unit_test_setup_teardown(integers, setup, teardown),
    cmocka_unit_test_setup_teardown(octal_and_fixed, setup, teardown),
    cmocka_unit_test_setup_teardown(times, setup, teardown),
    cmocka_unit_test_setup_teardown(sizes_back, setup, teardown),
    cmocka_unit_test_setup_teardown(quotes, setup, teardown),
    cmocka_unit_test_setup_teardown(lists, setup, teardown),
    cmocka_unit_test_setup_teardown(users, setup, teardown),
    cmocka_unit_test_setup_teardown(nearest, setup, teardown),
  };
  return cmocka_run_group_tests(all, NULL, NULL);
}
