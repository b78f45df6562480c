#include "base/test.h"
#include "base/arena.h"
#include "base/pcre.h"

static struct arena *a;
static int setup(void **state) {
  a = arena_new("test");
  return 0;
}
static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void matches(void **state) {
  struct str g[5] = {STR_EMPTY, STR_EMPTY, STR_EMPTY, STR_EMPTY, STR("kept")}, error = STR_UNSET;
  const struct pcre *p = pcre_compile(a, STR("^(a+)(x)?(?<tail>b*)$"), PCRE_CASELESS, &error);
  assert_non_null(p);
  assert_int_equal(pcre_capture_count(p), 3);
  assert_int_equal(pcre_match(p, str_tainted(STR("AAbb")), g, 5), 4);
  assert_str(g[0], "AAbb");
  assert_str(g[1], "AA");
  assert_str(g[2], "");
  assert_str(g[3], "bb");
  assert_str(g[4], "kept");
  assert_true(str_is_tainted(g[1]));
  assert_int_equal(pcre_match(p, STR("c"), g, 5), 0);
  assert_int_equal(pcre_match(p, STR("aab"), NULL, 0), 4);
  assert_int_equal(pcre_match(p, STR_UNSET, g, 1), 0);
}

static void reports_errors(void **state) {
  struct str error = STR_UNSET;
  assert_null(pcre_compile(a, STR("a(b"), 0, &error));
  assert_true(str_find(error, STR("missing closing parenthesis")) >= 0 && str_find(error, STR("offset 3")) >= 0);
  assert_null(pcre_get(a, STR("["), 0, &error));
  assert_int_equal(pcre_match_text(a, STR("a(b"), STR("x"), NULL, 0), -2);
  assert_int_equal(pcre_match_text(a, STR("a(b)"), STR("xaby"), NULL, 0), 2);
}

/* Offsets, as ${sg} needs them for empty matches. */
static void matches_from(void **state) {
  size_t v[2];
  const struct pcre *p = pcre_get(a, STR("b*"), 0, NULL);
  assert_int_equal(pcre_match_at(p, STR("abb"), 0, false, v, 1), 1);
  assert_int_equal(v[0] * 10 + v[1], 0);
  assert_int_equal(pcre_match_at(p, STR("abb"), 0, true, v, 1), 0);
  assert_int_equal(pcre_match_at(p, STR("abb"), 1, false, v, 1), 1);
  assert_int_equal(v[0] * 10 + v[1], 13);
}

static void names(void *arg, struct str name, int number) {
  if (str_eq_c(name, "one") && number == 1)
    ++*(int *)arg;
  if (str_eq_c(name, "two") && number == 3)
    ++*(int *)arg;
}

static void has_names(void **state) {
  int found = 0;
  pcre_names(pcre_get(a, STR("(?<one>x)(y)(?<two>z)"), 0, NULL), names, &found);
  assert_int_equal(found, 2);
}

/* The cache is bounded: far more patterns than places, each right. */
static void caches(void **state) {
  for (int i = 0; i < 2000; i++) {
    struct str pattern = str_printf(a, "^x%d$", i % 700);
    const struct pcre *p = pcre_get(a, pattern, 0, NULL);
    assert_int_equal(pcre_match(p, str_printf(a, "x%d", i % 700), NULL, 0), 1);
    assert_int_equal(pcre_match(p, str_printf(a, "x%d", i % 700 + 1), NULL, 0), 0);
  }
  assert_int_equal(pcre_match(pcre_get(a, STR("^X$"), PCRE_CASELESS, NULL), STR("x"), NULL, 0), 1);
  assert_int_equal(pcre_match(pcre_get(a, STR("^X$"), 0, NULL), STR("x"), NULL, 0), 0);
}

/* A hostile subject costs bounded work and memory. */
static void has_limits(void **state) {
  char *subject = arena_bytes(a, 200000);
  memset(subject, 'a', 200000);
  assert_int_equal(pcre_match_text(a, STR("^(a+)+$"), str_cat(a, str_n(subject, 40), STR("b")), NULL, 0), -1);
  /* Deep, but finite: more than the first stack of the JIT holds. */
  struct str g[1];
  assert_int_equal(pcre_match_text(a, STR("^(?:a|b)*$"), str_n(subject, 20000), g, 1), 1);
  assert_int_equal(g[0].len, 20000);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(matches), cmocka_unit_test(reports_errors),
      cmocka_unit_test(matches_from), cmocka_unit_test(has_names), cmocka_unit_test(caches),
      cmocka_unit_test(has_limits)};
  return cmocka_run_group_tests(all, setup, teardown);
}
