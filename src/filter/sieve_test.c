/* Sieve scripts run for a message: what they make of it, and what bounds them. The many texts of errors are in
tests/e2e/sieve_recorded.json. */

#include "filter/sieve.h"

#include "base/test.h"
#include "config/config.h"
#include "expand/expand.h"
#include "expand/expand_test.h"
#include "loop/fiber.h"
#include "message/message.h"

static struct arena *a;
static struct config *config;
static struct ctx *c;

static void add(const char *line) { message_add_header(c->message, 0, str_tainted(str_c(line))); }

static int setup(void **state) {
  struct str errors;
  struct config_source s = {.paths = STR("test"), .text = STR("primary_hostname = host.test.ex\n"), .expand = expand_config_text};
  a = arena_new("test");
  if (config_read(&s, a, &config, &errors))
    return -1;
  c = ctx_new(a, config);
  c->message = message_new("test");
  c->message->reverse_path = str_tainted(STR("joe@x.y"));
  c->message->size = 2000;
  c->client = &c->message->client;
  c->vars.local_part = STR("fred");
  c->vars.local_part_prefix = STR_EMPTY;
  c->vars.local_part_suffix = STR("-ext");
  c->vars.domain = STR("test.ex");
  add("Subject: hello\n world\n");
  add("Subject: second\n");
  add("From: Joe <joe@x.y>\n");
  add("To: Friends: fred-ext@test.ex, b@c.d;\n");
  add("Reply-To: other@x.y\n");
  add("X-Word: =?utf-8?Q?caf=C3=A9?=\n");
  add("X-Empty:\n");
  return 0;
}

static int teardown(void **state) {
  filter_cache_clear();
  expand_cache_clear();
  message_free(c->message);
  arena_free(a);
  loop_done();
  return 0;
}

static const struct filter_rules all = {.sieve_subaddress = {"ext", sizeof("ext") - 1, 0}, .sieve_useraddress = {"fred", sizeof("fred") - 1, 0}, .sieve_inbox = {"inbox", sizeof("inbox") - 1, 0},
    .sieve_vacation_directory = {"/v", sizeof("/v") - 1, 0}, .sieve_enotify_owner = {"owner@test.ex", sizeof("owner@test.ex") - 1, 0}};

static struct filter_result run(const char *script) {
  struct filter_result r;
  filter_run(c, str_cat(a, STR("# Sieve filter\n"), str_c(script)), &all, &r);
  assert_int_equal(r.outcome, FILTER_DELIVERED);
  return r;
}

/* The items in short, and the error. */
static struct str done(const char *script) {
  struct filter_result r = run(script);
  struct buf b;
  buf_init(&b, a, 1000000);
  for (size_t i = 0; i < r.items.n; i++)
    buf_printf(&b, "%c:%.*s ", "AFPRN"[r.items.v[i].kind], STRF(r.items.v[i].text));
  if (r.keep)
    buf_printf(&b, "[%.*s]", STRF(r.text));
  return str_rtrim(buf_str(&b));
}

static bool is_true(const char *test) {
  struct str script = str_printf(a, "require [\"envelope\",\"subaddress\",\"comparator-i;ascii-numeric\",\"enotify\"];if %s { discard; }", test);
  struct str got = done(script.p);
  if (got.len && !str_eq_c(got, "F:inbox"))
    fail_msg("%s: %.*s", test, STRF(got));
  return !got.len;
}

static void test_actions(void **state) {
  assert_str(done(""), "F:inbox");
  assert_str(done("discard;"), "");
  assert_str(done("redirect \"A B <a@b.c>\"; keep;"), "A:a@b.c F:inbox");
  assert_str(done("redirect \"a@under_score.c\";"), "A:a@under_score.c");
  assert_str(done("require [\"fileinto\",\"copy\"]; fileinto :copy \"x/y\"; redirect :copy \"a@b.c\";"), "F:x/y A:a@b.c F:inbox");
  assert_str(done("if false { discard; } elsif true { redirect \"a@b.c\"; } else { keep; }"), "A:a@b.c");
  assert_str(done("if true { stop; } discard;"), "F:inbox");
}

/* What comes before an error is done, and the message is kept; what comes behind a stop is not looked at. */
static void test_errors(void **state) {
  assert_str(done("redirect \"a@b.c\";\ngarbage; discard;"), "A:a@b.c F:inbox [syntax error in line 3]");
  assert_str(done("if true { discard;\n redirect \"a@b.c\"; garbage"), "A:a@b.c F:inbox [expecting command or closing brace in line 3]");
  assert_str(done("discard; stop; garbage"), "");
  assert_str(done("if false { stop; } discard; \"x\""), "F:inbox [syntax error in line 2]");
  assert_str(done("/* a\nb */\nx"), "F:inbox [syntax error in line 4]");
  assert_str(done("keep; # no end"), "F:inbox F:inbox [missing end of comment in line 2]");
  assert_str(done("redirect \"a b@c\";"), "F:inbox [malformed recipient address in line 2]");
  assert_str(done("require \"fileinto\"; fileinto \"a\tb\";"), "F:inbox [invalid folder in line 2]");
  struct filter_rules none = {.sieve_enotify_owner = STR_UNSET, .sieve_vacation_directory = STR_UNSET, .sieve_inbox = STR("mine")};
  struct filter_result r;
  filter_run(c, STR("# Sieve filter\nrequire \"vacation\";"), &none, &r);
  assert_str(r.text, "vacation disabled in line 2");
  assert_str(r.items.v[0].text, "mine");
}

static void test_tests(void **state) {
  static const struct {
    const char *test;
    bool yes;
  } cases[] = {
      /* Each field of the name by itself (RFC 5228, section 5.7). */
      {"header \"subject\" \"hello world\"", true}, {"header \"subject\" \"SECOND\"", true}, {"header :comparator \"i;octet\" \"subject\" \"SECOND\"", false},
      {"header :contains \"x-empty\" \"\"", true}, {"header :is \"x-empty\" \"\"", true}, {"header :contains \"nothere\" \"\"", false},
      {"header \"x-word\" \"café\"", true}, {"header :matches \"subject\" \"h*w?rld\"", true}, {"header :matches \"subject\" \"h*w\\\\?rld\"", false},
      {"header :matches \"subject\" \"*w*o*d*\"", true}, {"header :matches \"subject\" \"\"", false}, {"header :matches \"x-empty\" \"*\"", true},
      {"address :localpart \"to\" \"b\"", true}, {"address \"to\" \"fred-ext@TEST.ex\"", true}, {"address :domain \"reply-to\" \"x.y\"", true},
      {"envelope \"to\" \"fred-ext@test.ex\"", true}, {"envelope :user \"to\" \"fred\"", true}, {"envelope :detail \"to\" \"ext\"", true},
      {"envelope :detail \"from\" \"\"", false}, {"envelope \"from\" \"joe@x.y\"", true}, {"envelope \"from\" \"\"", false},
      {"exists [\"subject\",\"x-empty\"]", true}, {"exists [\"subject\",\"nope\"]", false}, {"exists \"\"", false},
      {"size :over 1999", true}, {"size :over 2000", false}, {"size :under 2k", true}, {"size :under 2000", false},
      {"anyof(false, not false)", true}, {"allof(true, not false, true)", true}, {"allof(true, false)", false},
      {"valid_notify_method [\"mailto:a@b.c\",\"MAILTO:d@e.f?subject=x&body=%41\"]", true}, {"valid_notify_method \"xmpp:a@b\"", false},
      {"valid_notify_method \"mailto:a\"", false}, {"valid_notify_method \"mailto:a@b?cc=x@y\"", false},
      {"valid_notify_method \"mailto:a@b?subject=%0Ax\"", false}, {"notify_method_capability \"mailto:a@b\" \"ONLINE\" \"maybe\"", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (is_true(cases[i].test) != cases[i].yes)
      fail_msg("%s is not %s", cases[i].test, cases[i].yes ? "true" : "false");
  c->message->reverse_path = STR_EMPTY;
  assert_true(is_true("envelope \"from\" \"\""));
}

static void test_matching(void **state) {
  assert_true(sieve_matches(SIEVE_IS, SIEVE_ASCII_NUMERIC, STR("0042x"), STR("42")));
  assert_true(sieve_matches(SIEVE_IS, SIEVE_ASCII_NUMERIC, STR("x"), STR("")));
  assert_false(sieve_matches(SIEVE_IS, SIEVE_ASCII_NUMERIC, STR("0"), STR("")));
  assert_true(sieve_matches(SIEVE_IS, SIEVE_ASCII_NUMERIC, STR("0"), STR("000")));
  assert_true(sieve_matches(SIEVE_MATCHES, SIEVE_OCTET, STR("a*b"), STR("a\\*b")));
  assert_false(sieve_matches(SIEVE_MATCHES, SIEVE_OCTET, STR("axb"), STR("a\\*b")));
  assert_true(sieve_matches(SIEVE_MATCHES, SIEVE_OCTET, STR("a\\"), STR("a\\")));
  assert_true(sieve_matches(SIEVE_CONTAINS, SIEVE_OCTET, STR("a\0def"), STR("def")));
}

static void test_strings(void **state) {
  assert_str(done("require \"fileinto\"; fileinto \"a\\b\\\"c\\\\\";"), "F:ab\"c\\");
  assert_str(done("require [\"fileinto\",\"encoded-character\"]; fileinto \"${hex:41 42}${hex:4}x${hex:zz}${unicode:e9}${hex:c3 a9}\";"),
      "F:inbox [invalid folder in line 2]"); /* ${hex:4} is a control character */
  assert_str(done("require [\"fileinto\",\"encoded-character\"]; fileinto \"${hex:41\r\n 42}x${hex:zz}${hex:}${unicode:e9}${hex:c3 a9}\";"),
      "F:ABx${hex:zz}${hex:}éé");
  assert_str(done("require \"vacation\"; vacation :handle \"x\" text: # c\r\n..a\r\n.\r\n;"), "R:>joe@x.y F:inbox");
}

static const struct filter_reply *reply(const char *script) {
  struct filter_result r = run(script);
  return r.items.n && r.items.v[0].reply ? r.items.v[0].reply : NULL;
}

static void test_vacation(void **state) {
  const struct filter_reply *p = reply("require \"vacation\"; vacation :days 3 \"a=b \n\";");
  assert_non_null(p);
  assert_str(p->to, "joe@x.y");
  assert_str(p->from, "fred-ext@test.ex");
  assert_str(p->subject, "=?utf-8?Q?Auto=3A_hello_world?=");
  assert_str(p->text, "a=3Db=20\n");
  assert_int_equal(p->once_repeat, 3 * 86400);
  p = reply("require \"vacation\"; vacation \"gone\";");
  assert_str(p->once, "/v/2B6ABF2360C1B97F720D3D37A49012D1"); /* Exim's name for it */
  assert_int_equal(p->once_repeat, 7 * 86400);
  p = reply("require \"vacation\"; vacation :mime \"X-A: b\n\n<b>x</b>\";");
  assert_str(p->headers, "X-A: b");
  assert_str(p->text, "<b>x</b>");
  assert_str(done("require \"vacation\"; vacation :mime \"no header\n\n<b>x</b>\";"), "F:inbox [MIME reason string has a malformed header in line 4]");
  assert_str(done("require \"vacation\"; vacation \"x\"; vacation \"x\";"), "R:>joe@x.y F:inbox [trying to execute vacation more than once in line 2]");
}

static void test_whom_vacation_does_not_answer(void **state) {
  static const char *const lines[] = {"List-Id: x\n", "List-Unsubscribe: x\n", "Precedence: BULK\n", "Auto-Submitted: auto-replied\n"};
  static const char *const senders[] = {"", "MAILER-DAEMON@x.y", "owner-l@x.y", "l-request@x.y", "majordomo@x.y"};
  const char *script = "require \"vacation\"; vacation \"x\";";
  struct header **tail = c->message->headers_tail;
  add("Auto-Submitted: no; x=y\n");
  assert_non_null(reply(script));
  for (size_t i = 0; i < 4; i++) {
    *tail = NULL;
    c->message->headers_tail = tail;
    add(lines[i]);
    assert_null(reply(script));
  }
  *tail = NULL;
  c->message->headers_tail = tail;
  for (size_t i = 0; i < 5; i++) {
    c->message->reverse_path = str_c(senders[i]);
    assert_null(reply(script));
  }
  c->message->reverse_path = STR("joe@x.y");
  c->vars.local_part = STR("bob");
  assert_null(reply(script));
  assert_non_null(reply("require \"vacation\"; vacation :addresses [\"x@y\",\"B@c.d\"] \"x\";"));
}

static void test_notify(void **state) {
  const struct filter_reply *p = reply("require \"enotify\"; notify :importance \"1\" \"mailto:a@b.c,d@e.f?X-H=%41&received=x&body=l%0Am\";");
  assert_non_null(p);
  assert_str(p->to, "a@b.c,d@e.f");
  assert_str(p->from, "fred-ext@test.ex");
  assert_str(p->subject, "hello world");
  assert_str(p->text, "l\nm");
  assert_true(str_starts(p->headers, STR("Auto-Submitted: auto-notified; owner-email=\"owner@test.ex\"\nImportance: High\nX-H: A\nMIME-Version")));
  assert_str(done("require \"enotify\"; notify \"mailto:a@b.c\"; notify \"mailto:A@b.c\"; notify \"mailto:d@e.f\";"), "N:a@b.c N:d@e.f F:inbox");
  assert_str(reply("require \"enotify\"; notify :message \"m\" \"mailto:a@b.c?subject=s\";")->subject, "m");
  add("Auto-Submitted: auto-notified\n");
  assert_str(done("require \"enotify\"; notify \"mailto:a@b.c\";"), "F:inbox");
}

static struct buf repeated(const char *text, int n) {
  struct buf b;
  buf_init(&b, a, 8u << 20);
  for (int i = 0; i < n; i++)
    buf_add_c(&b, text);
  return b;
}

static void test_bounds(void **state) {
  struct buf b = repeated("if true { ", 100);
  assert_str(done(buf_str(&b).p), "F:inbox [tests and blocks are nested too deeply in line 2]");
  struct buf nots = repeated("not ", 100);
  assert_str(done(str_printf(a, "if %.*s true {}", STRF(buf_str(&nots))).p), "F:inbox [tests and blocks are nested too deeply in line 2]");
  struct buf redirects = repeated("redirect \"a@b.c\";", SIEVE_REDIRECTS_MAX + 1);
  struct filter_result r = run(buf_str(&redirects).p);
  assert_str(r.text, "more than 1000 redirects in line 2");
  struct buf keeps = repeated("keep;", FILTER_ITEMS_MAX + 1);
  r = run(buf_str(&keeps).p);
  assert_str(r.text, "filter generates more than 10000 deliveries");
  assert_int_equal(r.items.n, FILTER_ITEMS_MAX);
  /* A row of elsif is no deeper than one. */
  struct buf row = repeated(" elsif false {}", 20000);
  assert_str(done(str_printf(a, "if false {}%.*s else { discard; }", STRF(buf_str(&row))).p), "");
  struct buf value = repeated("aaaaaaaa", 20000), keys = repeated("\"*a*a*a*a*ab\",", 10000);
  add(str_printf(a, "X-Long: %.*s\n", STRF(buf_str(&value))).p);
  r = run(str_printf(a, "if header :matches \"x-long\" [%.*s\"x\"] {}", STRF(buf_str(&keys))).p);
  assert_str(r.text, "the script's comparisons take too much work");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_actions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_tests, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matching, setup, teardown),
      cmocka_unit_test_setup_teardown(test_strings, setup, teardown),
      cmocka_unit_test_setup_teardown(test_vacation, setup, teardown),
      cmocka_unit_test_setup_teardown(test_whom_vacation_does_not_answer, setup, teardown),
      cmocka_unit_test_setup_teardown(test_notify, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
