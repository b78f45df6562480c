#include "base/test.h"
#include "base/test_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include "core/module.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/retry.h"
#include "queue/retry_rules.h"
#include "route/options.h"
#include "smtp/client/options.h"
#include "transport/options.h"

static char root[64];
static struct arena *a;
static struct ctx *c;

static void read_rules(const char *rules) {
  struct str errors;
  struct config *config;
  struct config_source s = {.paths = STR("test")};
  s.text = str_printf(a, "qualify_domain = q.test\nprimary_hostname = me.test\nbegin retry\n%s\n", rules);
  int rc = config_read(&s, a, &config, &errors);
  if (rc)
    fail_msg("%.*s", STRF(errors));
  expand_compile_config(config);
  c = ctx_new(a, config);
  c->message = message_new("test");
  c->message->reverse_path = STR("s@q.test");
  c->message->received_time.tv_sec = time(NULL);
  message_make_id(c->message, -1);
}

static int setup(void **state) {
  snprintf(root, sizeof root, "%s/retry_test.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  if (!mkdtemp(root))
    return -1;
  a = arena_new("test");
  return hints_open_directory(str_c(root));
}

static int teardown(void **state) {
  hints_close();
  match_done();
  if (c)
    message_free(c->message);
  c = NULL;
  arena_free(a);
  return test_tree_remove(root);
}

/* --- rules --- */

static const char rules[] =
  "*       *     senders=:                    G,1d,1m,1.5\n"
  "*       *     senders = \"a@b.c : d@e.f\"    G,2d,2m,1.5\n"
  "rcpt45x.test.ex              rcpt_45x      F,10d,2m\n"
  "rcpt463.test.ex              rcpt_463      F,10d,3m\n"
  "rcpt4xx.test.ex              rcpt_4xx      F,10d,1m\n"
  "alice@quota.test             quota_5d      F,7d,3h\n"
  "quota.test                   quota_5d\n"
  "*                            lookup        F,10d,30m\n"
  "* refused_MX F,1h,1m\n"
  "* timeout_connect_A F,1h,2m\n"
  "* timeout F,1h,3m\n"
  "*@\\N^\\d                      *             F,5d,1m\n"
  "\\N^[^@]+@xyz\\d+\\.abc\\.example$\\N        *  G,1h,10m,2\n"
  "*@*.abcd.ex                  *             F,5d,2m\n"
  "*.star.ex                    *             F,3d,10m\n"
  "!*.not.ex                    *             F,2d,20m; H,90m,1h,2\n"
  "*                            *             F,12d,150m\n";

/* Arguments of -brt, -f and the answer. */
static const struct {
  const char *words[3], *sender, *answer;
} cases[] = {
  {{"x@dark.star.ex"}, NULL, "Retry rule: *.star.ex  *  F,3d,10m; \n"},
  {{"dark.star.ex"}, NULL, "Retry rule: *.star.ex  *  F,3d,10m; \n"},
  {{"x@9CDE.ex"}, NULL, "Retry rule: *@\\N^\\d  *  F,5d,1m; \n"},
  {{"9CDE.ex"}, NULL, "Retry rule: *@\\N^\\d  *  F,5d,1m; \n"},
  {{"xyz12.abc.example"}, NULL, "Retry rule: \\N^[^@]+@xyz\\d+\\.abc\\.example$\\N  *  G,1h,10m,2.0; \n"},
  {{"x@Q.abcd.ex"}, NULL, "Retry rule: *@*.abcd.ex  *  F,5d,2m; \n"},
  {{"x@Q.abcd.ex"}, "", "Retry rule: *  *  G,1d,1m,1.5; \n"},
  {{"x@Q.abcd.ex"}, "d@e.f", "Retry rule: *  *  G,2d,2m,1.5; \n"},
  {{"x@not.not.ex"}, NULL, "Retry rule: *  *  F,1w5d,2h30m; \n"},
  {{"x@other.ex"}, NULL, "Retry rule: !*.not.ex  *  F,2d,20m; H,1h30m,1h; \n"},
  {{"x@not.not.ex", "dark.star.ex"}, NULL, "Retry rule: *.star.ex  *  F,3d,10m; \n"},
  {{"x@rcpt4xx.test.ex", "rcpt_4xx"}, NULL, "Retry rule: rcpt4xx.test.ex  *  F,1w3d,1m; \n"},
  {{"x@rcpt45x.test.ex", "rcpt_451"}, NULL, "Retry rule: rcpt45x.test.ex  *  F,1w3d,2m; \n"},
  {{"x@rcpt463.test.ex", "rcpt_463"}, NULL, "Retry rule: rcpt463.test.ex  *  F,1w3d,3m; \n"},
  {{"x@rcpt463.test.ex", "rcpt_464"}, NULL, "Retry rule: !*.not.ex  *  F,2d,20m; H,1h30m,1h; \n"},
  {{"alice@quota.test", "quota_6d"}, NULL, "Retry rule: alice@quota.test  quota_5d  F,1w,3h; \n"},
  {{"bob@quota.test", "quota_6d"}, NULL, "Retry rule: quota.test  quota_5d  \n"},
  {{"alice@quota.test", "quota_4d"}, NULL, "Retry rule: !*.not.ex  *  F,2d,20m; H,1h30m,1h; \n"},
  {{"a.b", "lookup"}, NULL, "Retry rule: *  *  F,1w3d,30m; \n"},
  {{"a.b", "refused_MX"}, NULL, "Retry rule: *  refused_MX  F,1h,1m; \n"},
  {{"a.b", "refused_A"}, NULL, "Retry rule: !*.not.ex  *  F,2d,20m; H,1h30m,1h; \n"},
  {{"a.b", "timeout_connect_A"}, NULL, "Retry rule: *  timeout_connect_A  F,1h,2m; \n"},
  {{"a.b", "timeout_A"}, NULL, "Retry rule: *  timeout  F,1h,3m; \n"},
  {{"a.b", "zork"}, NULL, "unknown or malformed retry error \"zork\"\n"},
  {{NULL}, NULL, "-brt needs a domain or address argument\n"},
};

static void test_rules(void **state) {
  read_rules(rules);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str words[3];
    size_t n = 0, size;
    char *text;
    while (n < 3 && cases[i].words[n]) {
      words[n] = str_c(cases[i].words[n]);
      n++;
    }
    FILE *out = open_memstream(&text, &size);
    int rc = retry_test(c, words, n, str_c(cases[i].sender), out);
    fclose(out);
    assert_string_equal(text, cases[i].answer);
    assert_int_equal(rc, strncmp(text, "Retry", 5) != 0);
    free(text);
  }
}

static void test_bad_rules(void **state) {
  static const char *const bad[][2] = {
    {"a", "missing error type in retry rule"},
    {"a b", "unknown or malformed retry error \"b\""},
    {"a * F", "comma expected"},
    {"a * F,1h", "comma expected"},
    {"a * F,1h,", "bad parameters for retry rule"},
    {"a * F,1h,1m x", "semicolon expected"},
    {"a * X,1h,1m", "unknown retry rule letter"},
    {"a * G,1h,1m", "comma expected"},
    {"a * G,1h,1m,0.5", "bad parameters for retry rule"},
    {"a * F,1h,0s", "bad parameters for retry rule"},
    {"a quota_x F,1h,1m", "bad time value"},
    {"a rcpt_5xx F,1h,1m", "unknown or malformed retry error \"rcpt_5xx\""},
    {"a rcpt_4x2 F,1h,1m", "rcpt_4 must be followed by xx, dx, or dd, where x is literal and d is any digit"},
    {"a * senders", "\"=\" expected after \"senders\" in retry rule"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct str errors;
    struct config *config;
    struct config_source s = {.paths = STR("test")};
    s.text = str_printf(a, "primary_hostname = x.test\nbegin retry\n%s\n", bad[i][0]);
    assert_int_equal(config_read(&s, a, &config, &errors), OUTCOME_ERROR);
    if (str_find(errors, str_c(bad[i][1])) < 0)
      fail_msg("%s: %.*s", bad[i][0], STRF(errors));
  }
}

/* --- records --- */

static struct address *new_address(const char *local_part, const char *domain, struct instance *transport) {
  struct address *d = arena_new_of(a, struct address);
  d->address = str_printf(a, "%s@%s", local_part, domain);
  d->unique = d->address;
  d->local_part = d->lc_local_part = d->cc_local_part = str_c(local_part);
  d->domain = str_c(domain);
  d->transport = transport;
  d->message = STR("not now");
  d->basic_errno = ERROR_UNKNOWN;
  return d;
}

static struct hint_retry record(const char *key) {
  struct hint_retry r = {0};
  struct str value;
  if (hints_get(c, "retry", str_c(key), a, &value) != OUTCOME_OK || !hint_retry_decode(value, &r))
    fail_msg("no record %s", key);
  return r;
}

static bool has_record(const char *key) {
  struct str value;
  return hints_get(c, "retry", str_c(key), a, &value) == OUTCOME_OK;
}

/* Moves a record's times into the past. */
static void age(const char *key, int64_t seconds) {
  struct hint_retry r = record(key);
  r.first_failed -= seconds;
  r.last_try -= seconds;
  r.next_try -= seconds;
  hints_put(c, "retry", str_c(key), hint_retry_encode(a, &r));
}

static void test_routing(void **state) {
  read_rules("* * F,1h,10m; G,2h,15m,2");
  struct address *d = new_address("x", "a.test", NULL);
  assert_true(retry_address_ready(c, d, true));
  assert_false(retry_address_deferred(c, d));
  struct hint_retry r = record("R:a.test");
  assert_int_equal(r.next_try - r.last_try, 600);
  assert_int_equal(c->message->next_attempt, r.next_try);
  assert_false(r.expired);
  assert_str(r.text, "not now");
  assert_false(retry_address_ready(c, d, true));
  age("R:a.test", 600);
  assert_true(retry_address_ready(c, d, true));
  age("R:a.test", 3000);
  assert_false(retry_address_deferred(c, d)); /* the second rule: longer than the 10 minutes before */
  r = record("R:a.test");
  assert_int_equal(r.next_try - r.last_try, 900);
  assert_false(retry_address_deferred(c, d));
  r = record("R:a.test");
  assert_int_equal(r.next_try - r.last_try, 1800);
  age("R:a.test", 3600);
  assert_true(retry_address_deferred(c, d));
  assert_true(record("R:a.test").expired);
  assert_true(retry_address_ready(c, d, true)); /* to fail at once */
  retry_address_succeeded(c, d);
  assert_false(has_record("R:a.test"));
}

static void test_old_message(void **state) {
  read_rules("* * F,1h,10m");
  struct address *d = new_address("x", "a.test", NULL);
  assert_false(retry_address_deferred(c, d));
  assert_false(retry_address_ready(c, d, true));
  c->message->received_time.tv_sec -= 3700;
  assert_true(retry_address_ready(c, d, true));
  assert_true(retry_address_deferred(c, d));
  assert_false(record("R:a.test").expired);
}

static void test_no_rules(void **state) {
  read_rules("b.test * F,1h,1m");
  struct address *d = new_address("x", "a.test", NULL);
  assert_true(retry_address_deferred(c, d));
  assert_false(has_record("R:a.test"));
  d->basic_errno = ERROR_ROUTING_RETRY;
  assert_false(retry_address_deferred(c, d));
}

static void test_expired_data(void **state) {
  read_rules("* * F,1d,10h");
  struct address *d = new_address("x", "a.test", NULL);
  assert_false(retry_address_deferred(c, d));
  struct hint_retry r = record("R:a.test");
  r.last_try -= 8 * 86400;
  r.first_failed = r.last_try;
  hints_put(c, "retry", STR("R:a.test"), hint_retry_encode(a, &r));
  assert_true(retry_address_ready(c, d, true));
  assert_false(retry_address_deferred(c, d));
  assert_true(record("R:a.test").first_failed >= time(NULL) - 5);
}

static void test_local(void **state) {
  static struct transport_options options = {.retry_use_local_part = -1};
  static struct transport_def def = {.local = true};
  static struct instance transport = {.generic = &options, .driver = &def.driver};
  read_rules("y@a.test quota_1d\nx@a.test quota F,1h,7m\n* * F,1h,10m");
  struct address *d = new_address("x", "a.test", &transport);
  d->basic_errno = ERROR_QUOTA;
  assert_false(retry_address_deferred(c, d));
  struct hint_retry r = record("T:x@a.test");
  assert_int_equal(r.next_try - r.last_try, 420);
  assert_false(retry_address_ready(c, d, false));
  assert_true(retry_address_ready(c, d, true));
  /* A quota failure counts from the message's arrival. */
  age("T:x@a.test", 500);
  c->message->received_time.tv_sec -= 3000;
  assert_false(retry_address_deferred(c, d));
  r = record("T:x@a.test");
  assert_int_equal(r.first_failed, c->message->received_time.tv_sec);
  retry_address_succeeded(c, d); /* routed: nothing to do with the transport */
  assert_true(has_record("T:x@a.test"));
  d->time_taken = 1;
  retry_address_succeeded(c, d);
  assert_false(has_record("T:x@a.test"));
  /* A rule without times. */
  d = new_address("y", "a.test", &transport);
  d->basic_errno = ERROR_QUOTA;
  d->more_errno = 86400;
  assert_true(retry_address_deferred(c, d));
  r = record("T:y@a.test");
  assert_true(r.expired && r.next_try == r.last_try);
}

static void test_hosts(void **state) {
  static struct smtp_client_options options = {.address_retry_include_sender = true};
  static struct transport_def def;
  static struct instance transport = {.options = &options, .driver = &def.driver};
  static struct host second = {.name = STR("h2.test"), .address = STR("::1"), .mx = -1, .port = 25};
  static struct host first = {.name = STR("10.0.0.1"), .address = STR("10.0.0.1"), .mx = 5, .port = 2525, .next = &second};
  read_rules("h2.test * F,1h,5m\na.test refused_MX F,1h,7m\n* rcpt_451 F,1h,3m\n* * F,1h,10m");
  options.retry_include_ip_address.text = STR("true");
  options.retry_include_ip_address.tree = expr_compile(a, STR("true"), NULL);
  struct address *d = new_address("x", "a.test", &transport);
  c->address = d;
  d->hosts = &first;
  assert_true(retry_host_ready(c, &transport, &first, 2525));
  retry_host_failed(c, &transport, &first, 2525, ECONNREFUSED, STR("Connection refused"));
  struct hint_retry r = record("T:[10.0.0.1]:10.0.0.1:2525");
  assert_int_equal(r.next_try - r.last_try, 420);
  assert_int_equal(r.more_errno, 'M');
  assert_false(retry_host_ready(c, &transport, &first, 2525));
  assert_true(retry_host_ready(c, &transport, &second, 25));
  retry_host_failed(c, &transport, &second, 25, ERROR_CONNECT_TIMEOUT, STR("Connection timed out"));
  r = record("T:h2.test:[::1]");
  assert_int_equal(r.basic_errno, ETIMEDOUT);
  assert_int_equal(r.more_errno, 'A' | RETRY_CONNECT_TIMEOUT);
  assert_false(retry_hosts_exhausted(c, &transport, d));
  age("T:h2.test:[::1]", 4000);
  age("T:[10.0.0.1]:10.0.0.1:2525", 4000);
  retry_host_failed(c, &transport, &second, 25, ECONNREFUSED, STR("Connection refused"));
  assert_false(retry_hosts_exhausted(c, &transport, d));
  retry_host_failed(c, &transport, &first, 2525, ECONNREFUSED, STR("Connection refused"));
  assert_true(retry_hosts_exhausted(c, &transport, d));
  retry_host_ok(c, &transport, &first, 2525);
  assert_false(has_record("T:[10.0.0.1]:10.0.0.1:2525"));
  /* An error of the message concerns this message with this host. */
  retry_host_failed(c, &transport, &first, 2525, ERROR_MAIL_4XX,
    STR("SMTP error from remote mail server after MAIL FROM:<s@q.test>: 452 no room"));
  char key[100];
  snprintf(key, sizeof key, "T:[10.0.0.1]:10.0.0.1:2525:%s", c->message->id);
  r = record(key);
  assert_int_equal(r.more_errno, 52 << 8 | 'M');
  assert_false(retry_host_ready(c, &transport, &first, 2525));
  /* A recipient. */
  d->basic_errno = ERROR_RCPT_4XX;
  d->host_used = &first;
  d->message = STR("SMTP error from remote mail server after RCPT TO:<x@a.test>: 451 later");
  assert_false(retry_address_deferred(c, d));
  r = record("R:x@a.test:<s@q.test>");
  assert_int_equal(r.next_try - r.last_try, 180);
  assert_int_equal(r.basic_errno, ERROR_RCPT_4XX);
  assert_str(r.text, "H=10.0.0.1 [10.0.0.1]: SMTP error from remote mail server after RCPT TO:<x@a.test>: 451 later");
  assert_false(retry_address_ready(c, d, true));
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST(test_rules), TEST(test_bad_rules), TEST(test_routing), TEST(test_old_message), TEST(test_no_rules),
    TEST(test_expired_data), TEST(test_local), TEST(test_hosts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
