#include "filter/filter.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/test.h"
#include "config/config.h"
#include "expand/expand.h"
#include "expand/expand_test.h"
#include "loop/fiber.h"
#include "message/message.h"

static struct arena *a;
static struct config *config;
static struct ctx *c;

static int setup(void **state) {
  struct str errors;
  struct config_source s = {.paths = STR("test"), .text = STR("primary_hostname = host.test.ex\n"), .expand = expand_config_text};
  a = arena_new("test");
  if (config_read(&s, a, &config, &errors))
    return -1;
  c = ctx_new(a, config);
  c->message = message_new("test");
  c->message->reverse_path = str_tainted(STR("joe@x.y"));
  c->message->deliver_first_time = true;
  message_add_header(c->message, 0, str_tainted(STR("Subject: hello world\n")));
  message_add_header(c->message, 0, str_tainted(STR("From: Joe <joe@x.y>\n")));
  message_add_header(c->message, 0, str_tainted(STR("To: fred@test.ex\n")));
  message_add_recipient(c->message, STR("fred@test.ex"));
  c->client = &c->message->client;
  c->vars.local_part = STR("fred");
  c->vars.domain = STR("test.ex");
  c->vars.home = STR("/home/fred");
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

static struct filter_result run_with(const char *text, struct filter_rules rules) {
  struct filter_result r;
  filter_run(c, str_c(text), &rules, &r);
  if (r.outcome == FILTER_ERROR)
    print_message("%.*s\n", STRF(r.text));
  return r;
}

static struct filter_result run(const char *text) { return run_with(text, (struct filter_rules){0}); }

/* The items in short: A address, F file, P pipe, R reply. */
static struct str items(const struct filter_result *r) {
  struct buf b;
  buf_init(&b, a, 10000);
  for (size_t i = 0; i < r->items.n; i++)
    buf_printf(&b, "%c:%.*s ", "AFPR"[r->items.v[i].kind], STRF(r->items.v[i].text));
  return str_rtrim(buf_str(&b));
}

static void test_kinds(void **state) {
  assert_int_equal(filter_kind(STR("# Exim filter\nfinish")), FILTER_EXIM);
  assert_int_equal(filter_kind(STR(" \n#ExImFiLtEr <<== x")), FILTER_EXIM);
  assert_int_equal(filter_kind(STR("#Sieve Filter")), FILTER_SIEVE);
  assert_int_equal(filter_kind(STR("# a comment")), FILTER_NONE);
  assert_int_equal(filter_kind(STR("a@b # exim filter")), FILTER_NONE);
  assert_int_equal(filter_kind(STR("")), FILTER_NONE);
}

static void test_items(void **state) {
  struct filter_result r = run("deliver a@b save $home/x 640 unseen pipe \"/bin/p '$h_subject:' a b\" noerror deliver c");
  assert_int_equal(r.outcome, FILTER_DELIVERED);
  assert_str(items(&r), "A:a@b F:/home/fred/x P:|/bin/p '$h_subject:' a b A:c");
  assert_int_equal(r.items.v[1].mode, 0640);
  assert_true(r.items.v[3].noerror);
  assert_int_equal(r.items.v[2].argv_n, 4);
  assert_str(r.items.v[2].argv[1], "hello world");
  r = run("pipe \"/bin/p ${readfile{/nonexistent}}\"");
  assert_true(str_starts(r.items.v[0].pipe_error, STR("Expansion of \"${readfile{/nonexistent}}\" from command ")));
  r = run("unseen deliver a@b");
  assert_int_equal(r.outcome, FILTER_NOT_DELIVERED);
  r = run("seen finish deliver a@b");
  assert_int_equal(r.outcome, FILTER_DELIVERED);
  assert_int_equal(r.items.n, 0);
}

static void test_conditions(void **state) {
  static const struct {
    const char *text;
    bool yes;
  } cases[] = {
      {"$h_subject: contains WORLD", true}, {"$h_subject: CONTAINS WORLD", false}, {"$h_subject: does not contain x", true},
      {"$h_subject: begins Hello", true}, {"$h_subject: ends world", true}, {"$h_subject: is \"hello world\"", true},
      {"$h_subject: matches ^h.", true}, {"10k is above 10239", true}, {"1 is below 1", false}, {"1 is not below 1", true},
      {"1 is 1 or 1 is 2 and 1 is 3", true}, {"(1 is 1 or 1 is 2) and 1 is 3", false}, {"not (1 is 1)", false},
      {"foranyaddress $h_to:,$h_from: ($thisaddress is joe@x.y)", true}, {"foranyaddress \"\" (1 is 1)", false},
      {"personal", true}, {"first_delivery", true}, {"manually_thawed", false}, {"error_message", false}, {"delivered", false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str text = str_printf(a, "if %s then deliver yes@x else deliver no@x endif", cases[i].text);
    struct filter_result r = run(text.p);
    assert_str(items(&r), cases[i].yes ? "A:yes@x" : "A:no@x");
  }
}

static void test_rights(void **state) {
  struct filter_rules all = {.allow_defer = true, .allow_fail = true, .allow_freeze = true};
  struct filter_result r = run("fail text x");
  assert_int_equal(r.outcome, FILTER_ERROR);
  assert_str(r.text, "filtering command \"fail\" is disabled: near line 1 of filter file");
  r = run_with("fail text x deliver a@b", all);
  assert_int_equal(r.outcome, FILTER_FAIL);
  assert_str(r.text, "x");
  assert_int_equal(run_with("defer text x", all).outcome, FILTER_DEFER);
  assert_int_equal(run_with("freeze text x", all).outcome, FILTER_FREEZE);
  all.manually_thawed = true;
  assert_int_equal(run_with("freeze text x", all).outcome, FILTER_NOT_DELIVERED);
  assert_int_equal(run("headers add x").outcome, FILTER_ERROR);
  assert_int_equal(run("deliver a@b errors_to c@d").outcome, FILTER_ERROR);
  assert_int_equal(run("deliver a@b errors_to fred@test.ex").outcome, FILTER_DELIVERED);
  r = run("deliver $recipients");
  assert_int_equal(r.outcome, FILTER_ERROR);
  static const struct {
    unsigned bit;
    const char *text, *error;
  } forbidden[] = {
      {EXPAND_FORBID_RUN, "${run{/bin/true}}", "running a command is not permitted"},
      {EXPAND_FORBID_READFILE, "${readfile{/etc/passwd}}", "file insertions are not permitted"},
      {EXPAND_FORBID_EXISTS, "${if exists{/}{a}{b}}", "File existence tests are not permitted"},
      {EXPAND_FORBID_EXISTS, "${stat:/}", "Use of the stat() expansion is not permitted"},
      {EXPAND_FORBID_LOOKUP, "${lookup{x}lsearch{/etc/passwd}}", "lookup expansions are not permitted"},
      {EXPAND_FORBID_READSOCKET, "${readsocket{/x}{y}}", "socket insertions are not permitted"},
      {EXPAND_FORBID_PERL, "${perl{x}}", "Perl calls are not permitted"},
      {EXPAND_FORBID_DLFUNC, "${dlfunc{/x}{y}}", "dynamically-loaded functions are not permitted"},
  };
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
    r = run_with(str_printf(a, "save \"%s\"", forbidden[i].text).p, (struct filter_rules){.forbid = forbidden[i].bit});
    assert_int_equal(r.outcome, FILTER_ERROR);
    assert_true(str_ends(r.text, str_c(forbidden[i].error)));
  }
  assert_int_equal(run_with("logfile /dev/null logwrite x", (struct filter_rules){.forbid_logwrite = true}).outcome, FILTER_ERROR);
}

static void test_mail(void **state) {
  struct filter_result r = run("vacation to \"a@b, C <c@d>\" text x");
  assert_str(items(&r), "R:>a@b,c@d");
  const struct filter_reply *p = r.items.v[0].reply;
  assert_str(p->once, ".vacation");
  assert_int_equal(p->once_repeat, 7 * 86400);
  assert_true(p->file_expand);
  r = run("mail text x");
  assert_str(items(&r), "R:>joe@x.y");
  assert_int_equal(run("mail subject \"a\\nb\"").outcome, FILTER_ERROR);
  c->message->reverse_path = STR_EMPTY;
  r = run("mail text x");
  assert_int_equal(r.items.n, 0);
}

static void test_counts_and_headers(void **state) {
  struct filter_result r = run_with("add 5 to n3 add $n3 to n3 headers remove subject headers add \"X-A: b\\nX-C:\\n d\"",
      (struct filter_rules){.system = true});
  assert_int_equal(r.n[3], 10);
  assert_true(r.headers_changed);
  assert_null(message_find_header(c->message, STR("Subject"), NULL));
  assert_str(header_value(message_find_header(c->message, STR("X-C"), NULL)), "d");
  filter_set_system_counts(c->message, r.n);
  r = run("if $sn3 is 10 and $n3 is 0 then deliver a@b endif");
  assert_str(items(&r), "A:a@b");
}

static void test_bounds(void **state) {
  struct buf b;
  buf_init(&b, a, 1u << 20);
  for (int i = 0; i < 100; i++)
    buf_add_c(&b, "if (1 is 1) then ");
  assert_int_equal(run(buf_str(&b).p).outcome, FILTER_ERROR);
  buf_init(&b, a, 1u << 20);
  buf_add_c(&b, "if ");
  for (int i = 0; i < 100; i++)
    buf_add_c(&b, "(");
  assert_int_equal(run(buf_str(&b).p).outcome, FILTER_ERROR);
  buf_init(&b, a, 1u << 20);
  for (int i = 0; i < FILTER_ITEMS_MAX + 1; i++)
    buf_add_c(&b, "deliver a@b ");
  struct filter_result r = run(buf_str(&b).p);
  assert_str(r.text, "filter generates more than 10000 deliveries");
  buf_init(&b, a, 1u << 20);
  for (int i = 0; i < 1000; i++)
    buf_add_c(&b, "a@b,");
  message_add_header(c->message, 0, str_cat(a, STR("X: "), buf_str(&b)));
  r = run("if foranyaddress $h_x: (foranyaddress $h_x: (1 is 2)) then endif");
  assert_str(r.text, "filter takes more than 200000 steps");
}

static void test_compiled_once(void **state) {
  size_t before = filter_compilations();
  for (int i = 0; i < 3; i++)
    run("deliver once@only");
  assert_int_equal(filter_compilations(), before + 1);
  run_with("deliver once@only", (struct filter_rules){.allow_fail = true}); /* other rights, other language */
  assert_int_equal(filter_compilations(), before + 2);
}

/* In another process: here in this one. */
static void test_request(void **state) {
  struct buf request, answer;
  struct filter_rules rules = {.allow_fail = true};
  struct filter_result r;
  int64_t sn[10] = {0, 7};
  filter_set_system_counts(c->message, sn);
  message_make_id(c->message, -1);
  buf_init(&request, a, 1u << 20);
  buf_init(&answer, a, 1u << 20);
  assert_int_equal(filter_request_encode(c, FILTER_WORK_RUN,
      STR("save $home/$local_part.$sn1 600 pipe \"/bin/x '$h_subject:'\" mail text \"$sender_address\""), &rules, &request), 0);
  filter_request_serve(a, config, &rules, buf_str(&request), -1, &answer);
  assert_true(filter_answer_decode(a, buf_str(&answer), &r));
  assert_str(items(&r), "F:/home/fred/fred.7 P:|/bin/x '$h_subject:' R:>joe@x.y");
  assert_str(r.items.v[1].argv[1], "hello world");
  assert_str(r.items.v[2].reply->text, "joe@x.y");
  for (size_t n = 0; n < answer.len; n++)
    assert_false(filter_answer_decode(a, str_slice(buf_str(&answer), 0, n), &r));
  struct str whole = buf_str(&request);
  for (size_t n = 0; n < whole.len; n += 7) {
    buf_init(&answer, a, 1u << 20);
    filter_request_serve(a, config, &rules, str_slice(whole, 0, n), -1, &answer);
    assert_true(filter_answer_decode(a, buf_str(&answer), &r));
    assert_int_equal(r.outcome, FILTER_ERROR);
  }
}

static void test_log(void **state) {
  char path[] = "/tmp/martlet-filter-test-XXXXXX", text[100] = "";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  struct filter_result r = run(str_printf(a, "logfile %s logwrite \"$h_subject:\" logwrite two", path).p);
  assert_int_equal(r.outcome, FILTER_NOT_DELIVERED);
  assert_int_equal(read(fd, text, sizeof text - 1), 16);
  assert_string_equal(text, "hello world\ntwo\n");
  unlink(path);
  close(fd);
  assert_int_equal(run("logwrite x").outcome, FILTER_ERROR);
  assert_int_equal(run("logfile /tmp logwrite x").outcome, FILTER_ERROR);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
      cmocka_unit_test_setup_teardown(test_items, setup, teardown),
      cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
      cmocka_unit_test_setup_teardown(test_mail, setup, teardown),
      cmocka_unit_test_setup_teardown(test_counts_and_headers, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
      cmocka_unit_test_setup_teardown(test_compiled_once, setup, teardown),
      cmocka_unit_test_setup_teardown(test_request, setup, teardown),
      cmocka_unit_test_setup_teardown(test_log, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
