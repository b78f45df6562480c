#include "base/test.h"
#include "smtp/client/sts_policy.h"
#include "tls/dane.h"

static void policies(void **state) {
  struct sts_policy p;
  assert_int_equal(sts_policy_parse(STR("version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"), &p), 0);
  assert_int_equal(p.mode, STS_ENFORCE);
  assert_int_equal(p.max_age, 604800);
  assert_int_equal(p.mx_n, 2);
  assert_true(sts_policy_allows(&p, STR("MAIL.example.com")));
  assert_true(sts_policy_allows(&p, STR("a.example.net")));
  assert_false(sts_policy_allows(&p, STR("a.b.example.net")));
  assert_false(sts_policy_allows(&p, STR("example.net")));
  assert_false(sts_policy_allows(&p, STR(".example.net")));
  assert_false(sts_policy_allows(&p, STR("mail.example.com.evil.test")));
  assert_int_equal(sts_policy_parse(STR("version:STSv1\r\nfoo: bar\r\nmode:testing\r\nmx:m.x\r\nmax_age:99999999\r\nmode: none"), &p), 0);
  assert_int_equal(p.mode, STS_TESTING);
  assert_int_equal(p.max_age, STS_MAX_AGE);
  assert_int_equal(sts_policy_parse(STR("version: STSv1\nmode: none\nmax_age: 1"), &p), 0);
  static const char *const bad[] = {"", "version: STSv1\nmode: enforce\nmax_age: 1", "mode: none\nmax_age: 1", "version: STSv2\nmode: none\nmax_age: 1",
      "version: STSv1\nmode: maybe\nmax_age: 1", "version: STSv1\nmode: none\nmax_age: -1", "version: STSv1\nmode: none",
      "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", "version: STSv1\nmode: enforce\nmx: a..b\nmax_age: 1", "<html>\n",
      "version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(sts_policy_parse(str_c(bad[i]), &p), -1);
}

static void records(void **state) {
  struct str id;
  assert_int_equal(sts_record_parse(STR("v=STSv1; id=20160831085700Z;"), &id), 0);
  assert_true(str_eq_c(id, "20160831085700Z"));
  assert_int_equal(sts_record_parse(STR("v=STSv1;foo=bar;id=a"), &id), 0);
  assert_int_equal(sts_record_parse(STR("v=spf1 -all"), &id), -1);
  assert_int_equal(sts_record_parse(STR("v=STSv1"), &id), -2);
  assert_int_equal(sts_record_parse(STR("v=STSv1; id=a-b"), &id), -2);
  assert_int_equal(sts_record_parse(STR("v=STSv1; id=123456789012345678901234567890123"), &id), -2);
}

/* TLSA data: usage, selector, matching type, and n bytes. */
static bool usable(unsigned char u, unsigned char s, unsigned char m, size_t n) {
  static char data[512];
  struct tls_tlsa r;
  data[0] = (char)u, data[1] = (char)s, data[2] = (char)m;
  return tls_tlsa_read(str_n(data, n + 3), &r);
}

static void tlsa(void **state) {
  struct tls_tlsa r;
  assert_true(usable(3, 1, 1, 32));
  assert_true(usable(2, 0, 2, 64));
  assert_false(usable(3, 1, 1, 31));
  assert_false(usable(3, 1, 1, 33));
  assert_false(usable(3, 1, 2, 32));
  assert_false(usable(1, 1, 1, 32));
  assert_false(usable(0, 1, 1, 32));
  assert_false(usable(255, 1, 1, 32));
  assert_false(usable(3, 2, 1, 32));
  assert_false(usable(3, 1, 3, 32));
  assert_false(usable(3, 0, 0, 100));
  assert_false(usable(3, 1, 1, 0));
  assert_false(tls_tlsa_read(STR("\3"), &r));
  assert_false(tls_tlsa_read(STR_EMPTY, &r));
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(policies), cmocka_unit_test(records), cmocka_unit_test(tlsa)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
