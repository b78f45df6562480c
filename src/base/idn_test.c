#include "base/idn.h"

#include "base/arena.h"
#include "base/test.h"

static struct arena *a;

static void test_utf8_valid(void **state) {
  static const char *const good[] = {"", "abc", "\u00e4", "\u4ed6", "\U0001f600", "a\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80"};
  static const char *const bad[] = {"\x80", "\xc3", "a\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xe2\x82z", "\xf0\x9f\x98"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_true(utf8_valid(str_c(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(utf8_valid(str_c(bad[i])));
  assert_true(utf8_valid(str_n("a\0b", 3)));
  assert_true(str_is_ascii(STR("a.b@\x7f")));
  assert_false(str_is_ascii(STR("\x80")));
}

static void test_domains(void **state) {
  static const struct {
    const char *utf8, *ascii; /* NULL: refused */
  } cases[] = {
      {"b\u00fccher.example", "xn--bcher-kva.example"}, {"B\u00dcCHER.example", "xn--bcher-kva.example"}, {"example", "example"},
      {"", ""}, {"stra\u00dfe.example", "xn--strae-oqa.example"}, {"\u03c0.test.ex", "xn--1xa.test.ex"},
      {"b\u00fccher\u3002example", "xn--bcher-kva.example"}, /* the ideographic full stop is a dot, too */
      {"a_b.b\u00fccher.example", "a_b.xn--bcher-kva.example"}, {"\xff.example", NULL}, {"\u00e4\xc3", NULL}, {"\u200d.example", NULL},
      {"xn--\u00e4.example", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str s;
    const char *error;
    bool ok = idn_domain_to_ascii(a, str_c(cases[i].utf8), &s, &error);
    if (ok != (cases[i].ascii != NULL))
      fail_msg("%s: %s", cases[i].utf8, ok ? "was taken" : error);
    if (ok)
      assert_str(s, cases[i].ascii);
    else
      assert_non_null(error);
  }
  char label[2048];
  struct str s;
  const char *error;
  memset(label, 'a', sizeof label);
  memcpy(label, "\u00e4", 2);
  assert_false(idn_domain_to_ascii(a, str_n(label, 64), &s, &error)); /* a label has 63 bytes at most */
  assert_false(idn_domain_to_ascii(a, str_n(label, sizeof label), &s, &error));
}

static void test_addresses(void **state) {
  struct str s, tainted = str_tainted(str_c("j\u00f6@b\u00fccher.example"));
  const char *error;
  assert_true(idn_address_to_ascii(a, tainted, &s, &error));
  assert_str(s, "xn--j-1ga@xn--bcher-kva.example");
  assert_true(str_is_tainted(s));
  assert_true(idn_address_to_ascii(a, STR("a@b.example"), &s, &error));
  assert_str(s, "a@b.example");
  assert_true(idn_address_to_ascii(a, STR("j\u00f6@b.example"), &s, &error));
  assert_str(s, "xn--j-1ga@b.example");
  assert_true(idn_address_to_ascii(a, STR("j\u00f6"), &s, &error));
  assert_str(s, "xn--j-1ga");
  assert_false(idn_address_to_ascii(a, STR("j\xff@b.example"), &s, &error));
  assert_false(idn_address_to_ascii(a, STR("j\u00f6@\xff.example"), &s, &error));
}

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_utf8_valid),
      cmocka_unit_test(test_domains),
      cmocka_unit_test(test_addresses),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
