#include "base/test.h"
#include "base/arena.h"
#include "base/str.h"

static void compares(void **state) {
  assert_true(str_eq(STR("abc"), STR("abc")));
  assert_false(str_eq(STR("abc"), STR("abC")));
  assert_true(str_ieq(STR("abc"), STR("aBC")));
  assert_true(str_eq(STR_UNSET, STR_EMPTY));
  assert_false(str_is_set(str_c(NULL)));
  assert_true(str_cmp(STR("a"), STR("ab")) < 0);
  assert_true(str_icmp(STR("B"), STR("a")) > 0);
  assert_true(str_starts(STR("abc"), STR("ab")) && !str_starts(STR("a"), STR("ab")));
  assert_true(str_iends(STR("abC"), STR("Bc")) && !str_ends(STR("abC"), STR("bc")));
  assert_int_equal(str_hash(STR("abc")), str_hash(STR("abc")));
  assert_int_equal(str_ihash(STR("abcdefghI")), str_ihash(STR("ABCDEFGHi")));
  assert_int_not_equal(str_hash(STR("abcdefghI")), str_hash(STR("abcdefghi")));
}

static void finds(void **state) {
  assert_int_equal(str_find(STR("hello"), STR("l")), 2);
  assert_int_equal(str_rfind_byte(STR("hello"), 'l'), 3);
  assert_int_equal(str_find_byte(STR("hello"), 'x'), -1);
  assert_int_equal(str_ifind(STR("hello"), STR("LO")), 3);
  assert_int_equal(str_ifind(STR("hel"), STR("hello")), -1);
  assert_int_equal(str_find_byte(STR_UNSET, 'x'), -1);
}

static void slices(void **state) {
  assert_str(str_slice(STR("hello"), 1, 3), "el");
  assert_str(str_slice(STR("hello"), 4, 99), "o");
  assert_str(str_slice(STR("hello"), 9, 3), "");
  assert_str(str_trim(STR(" \t a b\r\n")), "a b");
  assert_str(str_trim(STR(" \n")), "");
  struct str rest = STR("a:b:");
  assert_str(str_cut(&rest, ':'), "a");
  assert_str(str_cut(&rest, ':'), "b");
  assert_true(str_is_set(rest));
  assert_str(str_cut(&rest, ':'), "");
  assert_false(str_is_set(rest));
}

static void numbers(void **state) {
  uint64_t u;
  int64_t i;
  assert_true(str_to_u64(STR("18446744073709551615"), &u) && u == UINT64_MAX);
  assert_false(str_to_u64(STR("18446744073709551616"), &u));
  assert_false(str_to_u64(STR(""), &u) || str_to_u64(STR("1 "), &u) || str_to_u64(STR("-1"), &u));
  assert_true(str_to_i64(STR("-9223372036854775808"), &i) && i == INT64_MIN);
  assert_false(str_to_i64(STR("9223372036854775808"), &i) || str_to_i64(STR("-"), &i));
}

static void taint_joins(void **state) {
  const uint32_t quoted = STR_TAINTED | 3 << STR_QUOTED_SHIFT;
  assert_int_equal(str_taint_join(0, 0), 0);
  assert_int_equal(str_taint_join(0, quoted), quoted);
  assert_int_equal(str_taint_join(quoted, 0), quoted);
  assert_int_equal(str_taint_join(quoted, quoted), quoted);
  assert_int_equal(str_taint_join(quoted, STR_TAINTED), STR_TAINTED);
  assert_int_equal(str_taint_join(quoted, STR_TAINTED | 4 << STR_QUOTED_SHIFT), STR_TAINTED);
}

static void copies(void **state) {
  struct arena *a = arena_new("test");
  struct str t = str_dup(a, str_tainted(STR("Ab")));
  assert_true(str_is_tainted(t) && t.p[2] == '\0');
  assert_false(str_is_set(str_dup(a, STR_UNSET)));
  assert_str(str_lower(a, t), "ab");
  assert_str(str_upper(a, t), "AB");
  struct str cat = str_cat(a, STR("x"), t);
  assert_str(cat, "xAb");
  assert_true(str_is_tainted(cat));
  struct str longer = str_printf(a, "%300s|", "x");
  assert_int_equal(longer.len, 301);
  assert_int_equal(longer.p[300], '|');
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(compares), cmocka_unit_test(finds), cmocka_unit_test(slices),
      cmocka_unit_test(numbers), cmocka_unit_test(taint_joins), cmocka_unit_test(copies)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
