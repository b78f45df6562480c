#include "lookup/ldap_query.h"

#include "base/test.h"
#include "lookup/lookup.h"

static struct arena *a;
static struct ctx *c;

static int setup(void **state) {
  a = arena_new("test");
  c = ctx_new(a, NULL);
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void quoted(const char *option, const char *text, const char *want) {
  struct buf b;
  buf_init(&b, a, 10000);
  assert_int_equal(ldap_quote(c, str_c(text), str_c(option), &b), OUTCOME_OK);
  if (!str_eq_c(buf_str(&b), want))
    fail_msg("%s: %s", text, buf_str(&b).p);
}

/* The manual's examples, and what Debian's Exim says. */
static void test_quote(void **state) {
  quoted(NULL, " a(bc)*, a<yz>; ", "%20a%5C28bc%5C29%5C2A%2C%20a%3Cyz%3E%3B%20");
  quoted("dn", " a(bc)*, a<yz>; ", "%5C%20a(bc)*%5C%2C%20a%5C%3Cyz%5C%3E%5C%3B%5C%20");
  quoted("dn", "##a", "%5C%23%5C%23a");
  quoted("dn", " #a", "%5C%20%5C%23a");
  quoted("dn", "   ", "%5C%20%5C%20%5C%20");
  quoted("dn", "a  b  ", "a%20%20b%5C%20%5C%20");
  quoted("dn", "a#\\ ", "a%23%5C%5C%5C%20");
  quoted(NULL, "a\\ b", "a%5C5C%20b");
  quoted(NULL, "!$'-._+=\303\274", "!$'-._+%3D%C3%BC");
  struct buf b;
  buf_init(&b, a, 100);
  assert_int_equal(ldap_quote(c, STR("a"), STR("x"), &b), OUTCOME_ERROR);
  assert_str(c->error, "\"x\" unrecognized after \"${quote_ldap\"");
}

static void test_parse(void **state) {
  struct ldap_query q;
  assert_int_equal(ldap_query_parse(c, STR(" user=\"cn=a b,o=x\" PASS=\"s \\\"p\" time=5 size=2 connect=7 dereference=always "
    "referrals=nofollow servers=a:b\nldap://host:99/o=b?c?sub?(d=e)"), false, &q), OUTCOME_OK);
  assert_str(q.user, "cn=a b,o=x");
  assert_str(q.password, "s \"p");
  assert_str(q.servers, "a:b");
  assert_str(q.url, "ldap:///o=b?c?sub?(d=e)");
  assert_str(q.host, "host:99");
  assert_int_equal(q.time, 5);
  assert_int_equal(q.size, 2);
  assert_int_equal(q.net_time, 7);
  assert_int_equal(q.dereference, LDAP_DEREFERENCE_ALWAYS);
  assert_true(q.no_referrals);
  assert_int_equal(ldap_query_parse(c, STR("user=cn%3Da%20b LDAPS:///o=b"), false, &q), OUTCOME_OK);
  assert_str(q.user, "cn=a b");
  assert_false(str_is_set(q.password));
  assert_int_equal(q.scheme, LDAP_TLS);
  assert_str(q.host, "");
  assert_int_equal(ldap_query_parse(c, STR("ldapi://%2Frun%2Fsock/o=b"), false, &q), OUTCOME_OK);
  assert_int_equal(q.scheme, LDAP_LOCAL);
  assert_str(q.host, "/run/sock");
  assert_int_equal(ldap_query_parse(c, STR("user=a pass="), true, &q), OUTCOME_OK);
  assert_true(str_is_set(q.password));
  assert_int_equal(q.password.len, 0);
}

static void bad(const char *text, const char *error) {
  struct ldap_query q;
  assert_int_equal(ldap_query_parse(c, str_c(text), false, &q), OUTCOME_DEFER);
  assert_str(c->error, error);
}

static void test_errors(void **state) {
  static const char malformed[] = "malformed parameter setting precedes LDAP URL";
  bad("", malformed);
  bad("x", malformed);
  bad("user=a", malformed);
  bad("=a ldap:///", malformed);
  bad("pass=\"open ldap:///", malformed);
  bad("bad=x ldap:///", "unknown parameter \"bad=\" precedes LDAP URL");
  bad("size=x ldap:///", "LDAP option SIZE is not a number");
  bad("time=99999999999999999999 ldap:///", "LDAP option TIME is not a number");
  bad("referrals=x ldap:///", "LDAP option REFERRALS is not \"follow\" or \"nofollow\"");
  bad("dereference=x ldap:///", "LDAP option DEREFERENCE is not \"never\", \"searching\", \"finding\" or \"always\"");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_quote), cmocka_unit_test(test_parse), cmocka_unit_test(test_errors)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
