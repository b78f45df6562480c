#include "base/arena.h"
#include "base/test.h"
#include "sasl/dovecot_wire.h"

static struct arena *a;

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void greeting(void **state) {
  struct dovecot_hello h = {0};
  struct str error;
  assert_true(dovecot_hello_line(&h, STR("VERSION\t1\t2"), &error));
  assert_int_equal(h.minor, 2);
  assert_true(dovecot_hello_line(&h, STR("MECH\tPLAINER"), &error));
  assert_null(dovecot_mechanism(&h, STR("plain")));
  assert_true(dovecot_hello_line(&h, STR("MECH\tPLAIN\tx\tplaintext"), &error));
  assert_true(dovecot_mechanism(&h, STR("plain"))->plaintext && !dovecot_mechanism(&h, STR("PLAINER"))->plaintext && !h.done);
  assert_true(dovecot_hello_line(&h, STR("MECH\tPLAINER\tplaintext"), &error));
  assert_true(dovecot_mechanism(&h, STR("PLAINER"))->plaintext && h.n == 2);
  assert_true(dovecot_hello_line(&h, STR("MECH\tA2345678901234567890123456789012345678901"), &error) && h.n == 2);
  for (int i = 0; i < 100; i++)
    assert_true(dovecot_hello_line(&h, str_printf(a, "MECH\tX%d", i), &error));
  assert_int_equal(h.n, DOVECOT_MECHANISMS_MAX);
  assert_true(dovecot_hello_line(&h, STR("DONE"), &error));
  assert_true(h.done);
  h = (struct dovecot_hello){0};
  assert_false(dovecot_hello_line(&h, STR("VERSION\t2\t0"), &error));
  assert_false(dovecot_hello_line(&h, STR("VERSION\t"), &error));
  h = (struct dovecot_hello){0};
  assert_false(dovecot_hello_line(&h, STR("DONE"), &error));
}

static void answers(void **state) {
  struct dovecot_answer r = dovecot_answer_line(a, 1, STR("OK\t1\tuser=a\001tb\001\061c\001\tx=y"));
  assert_int_equal(r.kind, DOVECOT_OK);
  assert_str(r.user, "a\tb\001c\001");
  assert_true(str_is_tainted(r.user));
  assert_int_equal(dovecot_answer_line(a, 1, STR("OK\t1\tuser=x\tnologin")).kind, DOVECOT_FAIL);
  assert_int_equal(dovecot_answer_line(a, 1, STR("OK\t1\tuser=x\tnologin\tproxy=y")).kind, DOVECOT_OK);
  assert_int_equal(dovecot_answer_line(a, 1, STR("FAIL\t1\tuser=x\treason=y")).kind, DOVECOT_FAIL);
  assert_int_equal(dovecot_answer_line(a, 1, STR("FAIL\t1\ttemp")).kind, DOVECOT_FAIL_TEMPORARY);
  assert_int_equal(dovecot_answer_line(a, 1, STR("FAIL\t2")).kind, DOVECOT_BROKEN);
  assert_int_equal(dovecot_answer_line(a, 2, STR("FAIL\t2")).kind, DOVECOT_FAIL);
  assert_int_equal(dovecot_answer_line(a, 2, STR("OK\t1\tuser=x")).kind, DOVECOT_BROKEN);
  assert_int_equal(dovecot_answer_line(a, 1, STR("OK\t4294967297\tuser=x")).kind, DOVECOT_BROKEN);
  assert_int_equal(dovecot_answer_line(a, 1, STR("OK")).kind, DOVECOT_BROKEN);
  assert_int_equal(dovecot_answer_line(a, 1, STR("NEWS\t1")).kind, DOVECOT_IGNORED);
  assert_int_equal(dovecot_answer_line(a, 1, STR("CONT\t1\t!")).kind, DOVECOT_BROKEN);
  r = dovecot_answer_line(a, 1, STR("CONT\t1\tYWI="));
  assert_int_equal(r.kind, DOVECOT_CONTINUE);
  assert_str(r.data, "ab");
  assert_str(dovecot_answer_line(a, 1, STR("CONT\t1\t")).data, "");
  assert_str(dovecot_escape(a, STR("a\tb\nc\rd\001e")), "a\001tb\001nc\001rd\0011e");
}

static void places(void **state) {
  struct dovecot_place *p;
  struct str error;
  assert_true(dovecot_places(a, STR(" host.example  \t 12345 "), &p, &error));
  assert_str(p->host, "host.example");
  assert_int_equal(p->port, 12345);
  assert_false(dovecot_is_near(p));
  assert_true(dovecot_places(a, STR("::1 24"), &p, &error));
  assert_str(p->host, "::1");
  assert_true(p->next == NULL && dovecot_is_near(p));
  assert_true(dovecot_places(a, STR("[2001:db8::1] 24"), &p, &error));
  assert_str(p->host, "2001:db8::1");
  assert_true(dovecot_places(a, STR("/run/a : 127.0.0.1 1 : h 2"), &p, &error));
  assert_str(p->path, "/run/a");
  assert_str(p->next->host, "127.0.0.1");
  assert_str(p->next->next->host, "h");
  assert_true(dovecot_places(a, STR("<; /run/a ; ::1 5"), &p, &error));
  assert_str(p->next->host, "::1");
  assert_true(dovecot_places(a, STR("/run/a:b c"), &p, &error));
  assert_str(p->path, "/run/a:b c");
  static const char *const bad[] = {"", "host", "host 0", "host 65536", "host x", "host 1 2", "run/auth 5", "::g 5", "h 1 : host"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (dovecot_places(a, str_c(bad[i]), &p, &error))
      fail_msg("%s is no place", bad[i]);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {TEST(greeting), TEST(answers), TEST(places)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
