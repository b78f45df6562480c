#include "base/punycode.h"

#include "base/arena.h"
#include "base/test.h"

static struct arena *a;

/* Examples of RFC 3492, section 7.1, and of domain names. */
static void test_both_ways(void **state) {
  static const struct {
    const char *utf8, *punycode;
  } cases[] = {
    {"b\u00fccher", "bcher-kva"}, {"m\u00fcnchen", "mnchen-3ya"}, {"\u00dc", "wca"}, {"", ""}, {"abc", "abc-"}, {"\u20acuro", "uro-j50a"},
    {"\u4ed6\u4eec\u4e3a\u4ec0\u4e48\u4e0d\u8bf4\u4e2d\u6587", "ihqwcrb4cv8a8dqg056pqjye"},
    {"Porqu\u00e9nopuedensimplementehablarenEspa\u00f1ol", "PorqunopuedensimplementehablarenEspaol-fmd56a"},
    {"3\u5e74B\u7d44\u91d1\u516b\u5148\u751f", "3B-ww4c5e180e575a65lsy2b"}, {"-> $1.00 <-", "-> $1.00 <--"},
    {"\xf0\x9f\x98\x80", "e28h"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str s;
    assert_true(punycode_encode(a, str_c(cases[i].utf8), &s));
    assert_str(s, cases[i].punycode);
    assert_true(punycode_decode(a, str_c(cases[i].punycode), &s));
    assert_str(s, cases[i].utf8);
  }
}

static void test_bad(void **state) {
  static const char *const bad_utf8[] = {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"};
  static const char *const bad[] = {"zzzzzzzz", "99999999", "a-!", "\xc3\xbc-a", "a-z", "-\xff", "999999b"};
  struct str s;
  for (size_t i = 0; i < sizeof bad_utf8 / sizeof *bad_utf8; i++)
    assert_false(punycode_encode(a, str_c(bad_utf8[i]), &s));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(punycode_decode(a, str_c(bad[i]), &s));
}

static void test_long(void **state) {
  char text[2050];
  struct str s;
  memset(text, 'a', sizeof text);
  assert_false(punycode_decode(a, str_n(text, sizeof text), &s));
  assert_false(punycode_encode(a, str_n(text, sizeof text), &s));
  for (size_t i = 0; i < 2048; i += 2)
    memcpy(text + i, "\u00fc", 2);
  assert_true(punycode_encode(a, str_n(text, 2048), &s));
  struct str back;
  if (punycode_decode(a, s, &back))
    assert_int_equal(back.len, 2048);
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
    cmocka_unit_test(test_both_ways),
    cmocka_unit_test(test_bad),
    cmocka_unit_test(test_long),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
