#include "base/test.h"

#include "core/module.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "message/rewrite.h"
#include "message/rewrite_rules.h"

static struct arena *a;
static struct ctx *c;

static void read_rules(const char *rules) {
  struct str errors;
  struct config *config;
  struct config_source s = {.paths = STR("test")};
  s.text = str_printf(a, "qualify_domain = q.test\nqualify_recipient = qr.test\nprimary_hostname = me.test\n"
                         "begin rewrite\n%s", rules);
  int rc = config_read(&s, a, &config, &errors);
  if (rc)
    fail_msg("%.*s", STRF(errors));
  expand_compile_config(config);
  c = ctx_new(a, config);
}

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  match_done();
  arena_free(a);
  return 0;
}

static const char rules[] =
  "*@hdr.test   $1@h.new.test   h\n"
  "*@from.test  $1@f.new.test   f\n"
  "*@env.test   $1@e.new.test   E\n"
  "*@w.test     \"Whole Name <$1@w.new.test>\"   w\n"
  "*@q.test2    new  Q\n"
  "*@unq.test   new\n"
  "*@bad.test   a@b@c\n"
  "*@fail.test  \"${if eq{1}{2}{x@y}fail}\"\n"
  "fail@fail.test  later@x.test\n"
  "*@qfail.test \"${if eq{1}{2}{x@y}fail}\" q\n"
  "*@qfail.test  later@x.test\n"
  "*@rr.test    a$1@rr.test R\n"
  "*@stop.test  *\n"
  "*@stop.test  never@never\n"
  "*@qq.test    $1@qq2.test q\n"
  "*@qq2.test   never@never\n"
  "*@long.test  $1@a-very-very-very-long-domain-name-indeed.which-is.much-longer.than.before.test\n"
  "\\N^(.*)@re.test$\\N ${lc:$1}@${uc:$domain}\n"
  "lp*@*.wild.test  $1@$2.x.test\n"
  "plain.test  $local_part@dom-only.test\n"
  "empty@e.test  <> F\n"
  "\\N^<x!y>$\\N  <y@x.test> S\n";

/* Envelope recipients and what becomes of them. */
static const char *const envelope[][2] = {
  {"A.B@hdr.test", "A.B@hdr.test"},
  {"a@env.test", "a@e.new.test"},
  {"a@w.test", "a@w.new.test"},
  {"a@q.test2", "new@qr.test"},
  {"a@unq.test", "a@unq.test"},
  {"a@bad.test", "a@bad.test"},
  {"fail@fail.test", "later@x.test"},
  {"fail@qfail.test", "fail@qfail.test"},
  {"x@rr.test", "aaaaaaaaaaax@rr.test"},
  {"a@stop.test", "a@stop.test"},
  {"a@qq.test", "a@qq2.test"},
  {"AbC@re.test", "abc@RE.TEST"},
  {"lpFoo@b.wild.test", "lpFoo@b.wild.test"}, /* not a pattern with a star in front */
  {"J@plain.test", "J@dom-only.test"},
};

static void test_envelope(void **state) {
  read_rules(rules);
  for (size_t i = 0; i < sizeof envelope / sizeof *envelope; i++) {
    struct str address = str_c(envelope[i][0]);
    bool changed = rewrite_envelope_recipient(c, &address);
    assert_str(address, envelope[i][1]);
    assert_int_equal(changed, strcmp(envelope[i][0], envelope[i][1]) != 0);
  }
  struct str sender = STR("empty@e.test");
  assert_true(rewrite_envelope_sender(c, &sender));
  assert_str(sender, "");
  sender = STR_EMPTY;
  assert_false(rewrite_envelope_sender(c, &sender));
  struct str smtp = STR("<x!y>");
  assert_true(rewrite_smtp(c, true, &smtp));
  assert_str(smtp, "<y@x.test>");
  assert_false(rewrite_smtp(c, true, &smtp));
}

/* Header lines as Exim 4.96 leaves them. */
static const char *const lines[][2] = {
  {"To: a@hdr.test", "To: a@h.new.test\n"},
  {"To: a@hdr.test , b", "To: a@h.new.test , b@qr.test\n"},
  {"To: g: a@hdr.test, b, c@x; , d", "To: g: a@h.new.test, b@qr.test, c@x; , d@qr.test\n"},
  {"From: a", "From: a@q.test\n"},
  {"Reply-To: <a>", "Reply-To: <a@q.test>\n"},
  {"To: a@@b, c", "To: a@@b, c@qr.test\n"},
  {"To: <a@w.test>, Old Name <b@w.test> (c)", "To: Whole Name <a@w.new.test>, Whole Name <b@w.new.test>\n"},
  {"To: (only comment) a@hdr.test (x)", "To: (only comment) a@h.new.test (x)\n"},
  {"To: undisclosed-recipients:;", "To: undisclosed-recipients:;\n"},
  {"To: \"q\" <a(c)@hdr.test>", "To: \"q\" <a@h.new.test>\n"},
  {"To: <@x,@y:a@hdr.test>", "To: <a@h.new.test>\n"},
  {"To: x <@x,@y:a>", "To: x <@x,@y:a>\n"},
  {"To: a, ,, b", "To: a@qr.test, ,, b@qr.test\n"},
  {"To:  \n a", "To:  \n a@qr.test\n"},
  {"Cc: \"a b\" <c>,", "Cc: \"a b\" <c@qr.test>,\n"},
  {"To: Fred <fred@\n  hdr.test>, x@y", "To: Fred <fred@h.new.test>, x@y\n"},
  {"Subject: a@hdr.test", "Subject: a@hdr.test\n"},
  {"Cc:a@long.test,b@long.test,c@hdr.test,d",
    "Cc:a@a-very-very-very-long-domain-name-indeed.which-is.much-longer.than.before.test,\n"
    "\tb@a-very-very-very-long-domain-name-indeed.which-is.much-longer.than.before.test,\n"
    "\tc@h.new.test,d@qr.test\n"},
  {"To: a,b,c,d,e,f,g,h,i,j", "To: a@qr.test,b@qr.test,c@qr.test,d@qr.test,\n"
                              "\te@qr.test,f@qr.test,g@qr.test,h@qr.test,\n\ti@qr.test,j@qr.test\n"},
  {"To: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,\n  bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, c",
    "To: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@qr.test,\n"
    "  bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@qr.test, \n\tc@qr.test\n"},
  {"To: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa (x), b",
    "To: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@qr.test (x), \n\tb@qr.test\n"},
};

static void test_header(void **state) {
  read_rules(rules);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    struct message *m = message_new("test");
    m->allow_unqualified_sender = m->allow_unqualified_recipient = true;
    m->reverse_path = STR("a@env.test");
    message_add_recipient(m, STR("x@y"));
    message_add_recipient(m, STR("r@env.test"));
    struct header *h = message_add_header(m, 0, str_c(lines[i][0]));
    rewrite_received(c, m);
    rewrite_received(c, m);
    while (h->type == HEADER_DELETED)
      h = h->next;
    assert_str(h->text, lines[i][1]);
    assert_str(m->reverse_path, "a@e.new.test");
    assert_str(m->recipients.v[1].address, "r@e.new.test");
    message_free(m);
  }
}

static void test_no_qualification(void **state) {
  read_rules("");
  struct message *m = message_new("test");
  message_add_header(m, 0, STR("To: a, b@c"));
  rewrite_received(c, m);
  assert_str(m->headers->text, "To: a, b@c\n");
  assert_int_equal(m->headers->type, HEADER_TO);
  rewrite_change_domain(c, m, STR("c"), STR("c.full.test"));
  assert_int_equal(m->headers->type, HEADER_DELETED);
  assert_str(m->headers->next->text, "To: a, b@c.full.test\n");
  message_free(m);
}

static void test_errors(void **state) {
  static const struct {
    const char *rule;
    bool transport;
    const char *error;
  } cases[] = {
    {"a@b", false, "missing rewrite replacement string"},
    {"\"a@b c@d", false, "missing rewrite replacement string"},
    {"a@b c@d z", false, "unknown rewrite flag character 'z' (could be missing quotes round replacement item)"},
    {"a@b c@d S", false, "rewrite rule has the S flag but is not a regular expression"},
    {"a@b c@d E", true, "rewrite rule specifies a non-header rewrite - not allowed at transport time -"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct rewrite_rule rule;
    struct str error = STR_UNSET;
    assert_int_equal(rewrite_parse_rule(a, str_c(cases[i].rule), cases[i].transport, &rule, &error), OUTCOME_ERROR);
    assert_str(error, cases[i].error);
  }
}

static void test_transport_rules(void **state) {
  read_rules("");
  const struct rewrite_rules *r = rewrite_rules_of_option(c, STR("*@a.test $1@b.test f : x@c.test \"${if eq::1::::{y@d}{z@e}}\""));
  assert_non_null(r);
  struct message *m = message_new("test");
  struct header *h = message_add_header(m, 0, STR("From: k@a.test, x@c.test"));
  assert_str(rewrite_header_text(c, r, h), "From: k@b.test, x@c.test\n");
  assert_null(rewrite_rules_of_option(c, STR("")));
  message_free(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_envelope, setup, teardown),
    cmocka_unit_test_setup_teardown(test_header, setup, teardown),
    cmocka_unit_test_setup_teardown(test_no_qualification, setup, teardown),
    cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    cmocka_unit_test_setup_teardown(test_transport_rules, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
