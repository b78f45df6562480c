#include <stdlib.h>
#include <unistd.h>
#include "base/test.h"
#include "base/test_tree.h"
#include "hints/hints.h"
#include "smtp/client/tlsrpt.h"

#define DAY 86400
#define NOW (1800000000 / DAY * DAY)

static char spool[] = "/tmp/tlsrpt_test_XXXXXX";

static int setup(void **state) {
  assert_non_null(mkdtemp(spool));
  assert_int_equal(hints_open_directory(str_c(spool)), OUTCOME_OK);
  return 0;
}

static int teardown(void **state) {
  hints_close();
  return test_tree_remove(spool);
}

struct all {
  int results, sizes;
  int64_t count, bytes;
};

static bool look(struct str key, struct str value, void *arg) {
  struct all *all = arg;
  struct tlsrpt_result r;
  if (tlsrpt_decode(key, value, &r)) {
    all->results++;
    all->count += r.count;
    all->bytes += key.len + r.policy.len;
  } else {
    all->sizes++;
  }
  return true;
}

static struct all stored(void) {
  struct all all = {0};
  assert_int_equal(hints_each(NULL, TLSRPT_DATABASE, look, &all), OUTCOME_OK);
  return all;
}

static void test_counts(void **state) {
  tlsrpt_keep(NULL, NOW, STR("a.test tlsa - mx.a.test 192.0.2.1 192.0.2.2 -"), STR("3 1 1 00\n"));
  tlsrpt_keep(NULL, NOW, STR("a.test tlsa - mx.a.test 192.0.2.1 192.0.2.2 -"), STR("3 1 1 00\n"));
  tlsrpt_keep(NULL, NOW, STR("a.test tlsa tlsa-invalid mx.a.test 192.0.2.1 192.0.2.2 no_use"), STR_EMPTY);
  struct all all = stored();
  assert_int_equal(all.results, 2);
  assert_int_equal(all.count, 3);
  assert_int_equal(all.sizes, 1);
}

/* A day has room for so much, whoever asks for reports; what is there goes on to be counted. */
static void test_bounded(void **state) {
  static char policy[8000];
  struct arena *a = arena_new("test");
  memset(policy, 'x', sizeof policy);
  for (int i = 0; i < (int)(TLSRPT_DAY_BYTES / sizeof policy) + 50; i++)
    tlsrpt_keep(NULL, NOW, str_printf(a, "d%d.test sts - mx.a.test 192.0.2.1 192.0.2.2 -", i), str_n(policy, sizeof policy));
  struct all all = stored();
  assert_true(all.bytes <= TLSRPT_DAY_BYTES);
  assert_true(all.bytes > TLSRPT_DAY_BYTES - 3 * (int64_t)sizeof policy);
  tlsrpt_keep(NULL, NOW, STR("a.test tlsa - mx.a.test 192.0.2.1 192.0.2.2 -"), STR("3 1 1 00\n"));
  assert_int_equal(stored().count, all.count + 1);
  /* The next day has room of its own. */
  tlsrpt_keep(NULL, NOW + DAY, STR("late.test tlsa - mx.a.test 192.0.2.1 192.0.2.2 -"), STR_EMPTY);
  assert_int_equal(stored().results, all.results + 1);
  assert_int_equal(stored().sizes, 2);
  arena_free(a);
}

static void test_forgets(void **state) {
  for (int i = 0; i < 5; i++)
    tlsrpt_keep(NULL, NOW + (1 + TLSRPT_DAYS) * DAY + i * 100, STR("new.test tlsa - mx.a.test 192.0.2.1 192.0.2.2 -"), STR_EMPTY);
  struct all all = stored();
  assert_int_equal(all.results, 2); /* of the next day, which is just not too old, and this one */
  assert_int_equal(all.sizes, 2);
}

static bool https(const char *uri, const char *host, int port) {
  struct tlsrpt_uri u;
  return tlsrpt_https_parse(str_c(uri), &u) && str_eq_c(u.host, host) && u.port == port;
}

static void test_uris(void **state) {
  struct tlsrpt_uri u;
  assert_true(https("https://reports.test/x?y=1", "reports.test", 443));
  assert_true(https("HTTPS://reports.test:8443", "reports.test", 8443));
  static const char *const bad[] = {"http://reports.test/", "https://", "https:///x", "https://localhost/", "https://a.test:0/", "https://a.test:65536/",
      "https://a.test:x/", "https://u@a.test/", "https://a.test/#f", "https://a.test/ x", "https://[::1]/", "https://a.test,b.test/", "https://a.test/\n",
      "mailto:a@b.test", "https://a.test/{1,2}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(tlsrpt_https_parse(str_c(bad[i]), &u));
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(test_counts), cmocka_unit_test(test_bounded), cmocka_unit_test(test_forgets), cmocka_unit_test(test_uris)};
  return cmocka_run_group_tests(all, setup, teardown);
}
