#include "base/arena.h"
#include "base/test.h"
#include "scan/bmi.h"
#include "scan/dcc.h"
#include "scan/malware.h"
#include "scan/spam.h"

static struct arena *arena;
static int warnings;

static void warn(void *arg, const char *what, struct str option) { warnings++; }

static void test_spamd(void **state) {
  struct spam_answer a;
  assert_true(spam_read_answer(arena, str_c("SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: True ; 15.2 / 5.0\r\n\r\na\r\nb\n\n"), false, &a));
  assert_true(a.score > 15.19 && a.score < 15.21 && a.threshold == 5.0);
  assert_str(a.report, "a\n b");
  assert_true(spam_read_answer(arena, str_c("SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\n\r\n5.6/5.0\r\na\n"), false, &a));
  assert_true(a.score == 5.6 && a.threshold == 5.0 && str_eq_c(a.report, "a"));
  assert_false(spam_read_answer(arena, str_c("SPAMD/1.1 0 EX_OK\r\nSpam: 1\r\n\r\n5.6/5.0\r\na\n"), false, &a));
  assert_false(spam_read_answer(arena, str_c("SPAMD/1.1 76 EX\r\nSpam: True ; 15.2 / 5.0\r\n\r\n"), false, &a));
  assert_false(spam_read_answer(arena, str_c("SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1e / 5.0\r\n\r\n"), false, &a));
  assert_false(spam_read_answer(arena, str_c("SPAMD/1.1 0 EX_OK\r\n\r\nSpam: True ; 1 / 5.0\r\n"), false, &a));
  assert_true(spam_read_answer(arena, str_c("RSPAMD/1.3 0 EX_OK\r\nContent-Length: 60\r\n\r\nMetric: default; True; 15.5 / 10.0 / 20.0\r\nAction: reject\r\n"), true, &a));
  assert_true(a.score == 15.5 && a.threshold == 10 && str_eq_c(a.action, "reject"));
  assert_true(spam_read_answer(arena, str_c("RSPAMD/1.3 0 EX_OK\r\nMetric: default; False; -1.5 / 15.00 / 0.0\r\nAction: no action\r\n"), true, &a));
  assert_true(a.score == -1.5);
  assert_str(a.action, "no action");
}

static void test_servers(void **state) {
  struct spam_server s;
  warnings = 0;
  assert_null(spam_read_server(str_c("192.0.2.1  783 pri=5 weight=2 time=9.30-17 retry=20s tmo=1m variant=rspamd"), &s, warn, NULL));
  assert_int_equal(s.priority, 5);
  assert_int_equal(s.from, 9 * 3600 + 30 * 60);
  assert_int_equal(s.to, 17 * 3600);
  assert_int_equal(s.seconds, 60);
  assert_true(s.rspamd && s.retry == 20 && warnings == 0);
  assert_null(spam_read_server(str_c("/path pri=x"), &s, warn, NULL));
  assert_int_equal(warnings, 1);
  assert_int_equal(s.priority, 1);
  assert_non_null(spam_read_server(str_c("host"), &s, warn, NULL));
}

static void test_dcc(void **state) {
  struct dcc_answer a;
  assert_true(dcc_read_answer(arena, str_c("S\nAGR\nX-DCC: a\n\tb\n"), &a));
  assert_int_equal(a.result, 'S');
  assert_str(a.recipients, "AGR");
  assert_str(a.header, "X-DCC: a\n\tb\n");
  assert_true(dcc_read_answer(arena, str_c("A\nA\nno header\n"), &a));
  assert_str(a.header, "");
  assert_false(dcc_read_answer(arena, str_c("X\n"), &a));
  assert_false(dcc_read_answer(arena, str_c(""), &a));
  assert_false(dcc_read_answer(arena, str_c("A\nAT\n"), &a));
  assert_true(dcc_address_valid(str_c("::1 6277")) && dcc_address_valid(str_c("/run/dcc")));
  assert_false(dcc_address_valid(str_c("127.0.0.1 70000")) || dcc_address_valid(str_c("localhost 1")) || dcc_address_valid(str_c("/a b")));
}

static void test_clamd(void **state) {
  struct str name;
  assert_int_equal(malware_clamd_read(str_c("stream: Eicar-Test FOUND\n"), &name), CLAMD_FOUND);
  assert_str(name, "Eicar-Test");
  assert_int_equal(malware_clamd_read(str_c("/a: b/c: A.B FOUND"), &name), CLAMD_FOUND);
  assert_str(name, "A.B");
  /* ExtendedDetectionInfo's hash and size go, other parentheses do not. */
  assert_int_equal(malware_clamd_read(str_c("stream: A.B(44d88612fea8a8f36de82e1278abb02f:68) FOUND"), &name), CLAMD_FOUND);
  assert_str(name, "A.B");
  assert_int_equal(malware_clamd_read(str_c("stream: A(unofficial) FOUND"), &name), CLAMD_FOUND);
  assert_str(name, "A(unofficial)");
  assert_int_equal(malware_clamd_read(str_c("stream: OK"), &name), CLAMD_CLEAN);
  assert_int_equal(malware_clamd_read(str_c("stream: no memory. ERROR"), &name), CLAMD_ERROR);
  assert_int_equal(malware_clamd_read(str_c("PONG"), &name), CLAMD_NO_COLON);
  assert_int_equal(malware_clamd_read(str_c("stream: FOUND"), &name), CLAMD_UNKNOWN);
  assert_int_equal(malware_clamd_read(str_c("stream: "), &name), CLAMD_NO_COLON);
}

static void test_clamd_numbers(void **state) {
  static const struct {
    const char *text;
    uint32_t number;
    const char *rest; /* NULL: not its answer */
  } tests[] = {
    {"1: stream: OK", 1, "stream: OK"}, {"12: stream: A: B FOUND", 12, "stream: A: B FOUND"}, {"4294967295: x", 4294967295u, "x"}, {"1: ", 1, ""},
    {"2: stream: OK", 1, NULL}, {"stream: OK", 1, NULL}, {": stream: OK", 0, NULL}, {"1:stream: OK", 1, NULL}, {"", 1, NULL},
    {"4294967297: stream: OK", 1, NULL}, {"-1: stream: OK", 4294967295u, NULL}, {"1 : stream: OK", 1, NULL}, {"UNKNOWN COMMAND", 1, NULL},
  };
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    struct str text = str_c(tests[i].text);
    assert_int_equal(malware_clamd_numbered(&text, tests[i].number), tests[i].rest != NULL);
    assert_str(text, tests[i].rest ? tests[i].rest : tests[i].text);
  }
}

static void test_verdicts(void **state) {
  static const struct str to[] = {{"a@b", 3, 0}, {"c d@e", 5, 0}};
  struct bmi_set s, again;
  assert_true(bmi_read_answer(arena, str_c("VERDICT 2 alternate rules=5,8 loc=WC1BOiBi verdict=YQ== tracker=\nVERDICT 1 drop\nDONE\n"), to, 2, &s));
  assert_str(bmi_find(&s, to[1])->location, "X-A: b");
  assert_int_equal(bmi_find(&s, to[0])->action, BMI_DROP);
  assert_true(bmi_decode(arena, bmi_encode(arena, &s), &again));
  assert_str(bmi_find(&again, to[1])->location, "X-A: b");
  assert_true(bmi_rule_fired(bmi_find(&again, to[1]), str_c("1 : 8")));
  assert_false(bmi_rule_fired(bmi_find(&again, to[1]), str_c("58")));
  static const char *const bad[] = {"", "DONE\nmore\n", "VERDICT 3 drop\nDONE\n", "VERDICT 0 drop\nDONE\n", "VERDICT 1 drop rules=x\nDONE\n",
    "VERDICT 1 drop verdict=%\nDONE\n", "VERDICT 1 drop", "VERDICT 1,1,1 drop\nDONE\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(bmi_read_answer(arena, str_c(bad[i]), to, 2, &s));
  s = (struct bmi_set){0};
  assert_true(bmi_read_rspamd(arena, str_c("{\"action\":\"reject\",\"score\":1.5,\"symbols\":{\"A\":{\"b\":1},\"C\":{}}}"), to, 2, &s));
  assert_int_equal(bmi_find(&s, to[0])->action, BMI_DROP);
  assert_str(bmi_find(&s, to[0])->tracker, "QSxD");
  assert_false(bmi_read_rspamd(arena, str_c("{\"action\":\"explode\"}"), to, 2, &s));
  assert_false(bmi_read_rspamd(arena, str_c("[]"), to, 2, &s));
}

int main(void) {
  arena = arena_new("test");
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_spamd), cmocka_unit_test(test_servers), cmocka_unit_test(test_dcc), cmocka_unit_test(test_clamd), cmocka_unit_test(test_clamd_numbers), cmocka_unit_test(test_verdicts),
  };
  int rc = cmocka_run_group_tests(tests, NULL, NULL);
  arena_free(arena);
  return rc;
}
