#include "base/test.h"

#include "base/arena.h"
#include "base/outcome.h"
#include "message/address.h"
#include "route/manualroute.h"
#include "route/redirect_parse.h"

static struct arena *arena;

static int setup(void **state) {
  arena = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(arena);
  return 0;
}

static int reads;

static int read_file(void *arg, struct arena *a, struct str path, struct str *ret, struct str *ret_error) {
  reads++;
  if (str_eq_c(path, "/lists/self")) {
    *ret = STR(":include:/lists/self");
    return 0;
  }
  if (str_eq_c(path, "/lists/two")) {
    *ret = STR("# members\nann@a.example\nbob@b.example, # the other\n");
    return 0;
  }
  *ret_error = str_printf(a, "failed to open included file %.*s: No such file or directory", STRF(path));
  return OUTCOME_ERROR;
}

static struct redirect_rules rules(void) {
  return (struct redirect_rules){.allow_defer = true, .allow_fail = true, .include_directory = STR_UNSET, .items_max = 100,
      .read_file = read_file};
}

/* "a@b.example|pipe…" with one letter for the kind of each item. */
static struct str shown(const struct redirect_parsed *p) {
  static const char *const result[] = {"", "BLACKHOLE", "FAIL ", "DEFER ", "UNKNOWN", "ERROR ", "INCLUDE "};
  struct str s = str_printf(arena, "%s%.*s", result[p->result], STRF(p->text));
  for (size_t i = 0; p->result == REDIRECT_ITEMS && i < p->items.n; i++)
    s = str_printf(arena, "%.*s[%c%s%.*s]", STRF(s), "AFP"[p->items.v[i].kind], p->items.v[i].backslash ? "\\" : "",
        STRF(p->items.v[i].text));
  return s;
}

static struct str parse_with(const char *data, const struct redirect_rules *r) {
  struct redirect_parsed p;
  redirect_parse(arena, str_c(data), r, &p);
  return shown(&p);
}

static struct str parse(const char *data) {
  struct redirect_rules r = rules();
  return parse_with(data, &r);
}

static void test_items(void **state) {
  assert_str(parse("a@b.example"), "[Aa@b.example]");
  assert_str(parse("a@b.example, c@d.example\ne"), "[Aa@b.example][Ac@d.example][Ae]");
  assert_str(parse(" , ,\n\n"), "");
  assert_str(parse("# only a comment\n"), "");
  assert_str(parse("a@b.example, # rest, of the line\nc@d.example"), "[Aa@b.example][Ac@d.example]");
  assert_str(parse("\\postmaster"), "[A\\postmaster]");
  assert_str(parse("Some One <a@b.example>"), "[Aa@b.example]");
  assert_str(parse("a@b.example (x, y), c@d.example"), "[Aa@b.example][Ac@d.example]");
  assert_str(parse("\"a, b\"@c.example, d@e.example"), "[A\"a, b\"@c.example][Ad@e.example]");
  assert_str(parse("<@x.example,@y.example:a@b.example>, c@d.example"), "[Aa@b.example][Ac@d.example]");
}

static void test_pipes_and_files(void **state) {
  assert_str(parse("|/bin/cat -n, /var/x"), "[P|/bin/cat -n][F/var/x]");
  assert_str(parse("\"|/bin/cat ready,steady,go\""), "[P|/bin/cat ready,steady,go]");
  assert_str(parse("\"|/bin/cat \\\"a b\\\"\""), "[P|/bin/cat \"a b\"]");
  assert_str(parse("/dir/, a"), "[F/dir/][Aa]");
  /* What parses as an address with a domain is one (manual: X.400). */
  assert_str(parse("/s=molari/o=babylon/@x400gate.example"), "[A/s=molari/o=babylon/@x400gate.example]");
}

static void test_special(void **state) {
  assert_str(parse(":fail: Gone away, no address\nmore of it\n"), "FAIL Gone away, no address\nmore of it");
  assert_str(parse(":defer:"), "DEFER ");
  assert_str(parse("a@b.example, :blackhole:"), "BLACKHOLE");
  assert_str(parse(":unknown:"), "UNKNOWN");
  struct redirect_rules r = rules();
  r.allow_fail = r.allow_defer = false;
  r.forbid_blackhole = true;
  assert_str(parse_with(":fail: no", &r), "ERROR \":fail: no\" is not permitted");
  assert_str(parse_with(":defer: later ", &r), "ERROR \":defer: later\" is not permitted");
  assert_str(parse_with(":blackhole:", &r), "ERROR \":blackhole:\" is not permitted");
}

static void test_include(void **state) {
  struct redirect_rules r = rules();
  assert_str(parse(":include:/lists/two, c@d.example"), "[Aann@a.example][Abob@b.example][Ac@d.example]");
  assert_str(parse(":include:two"), "ERROR included file \"two\" is not an absolute path");
  assert_str(parse(":include:/lists/none"), "ERROR failed to open included file /lists/none: No such file or directory");
  r.include_directory = STR("/lists");
  assert_str(parse_with(":include:/lists/two", &r), "[Aann@a.example][Abob@b.example]");
  assert_str(parse_with(":include:/other/two", &r), "ERROR included file /other/two is not in directory /lists");
  assert_str(parse_with(":include:/listsx/two", &r), "ERROR included file /listsx/two is not in directory /lists");
  assert_str(parse_with(":include:/lists/../etc/two", &r), "ERROR included file /lists/../etc/two is not in directory /lists");
  r.forbid_include = true;
  assert_str(parse_with(":include:/lists/two", &r), "ERROR included files not permitted");
}

static void test_include_is_bounded(void **state) {
  reads = 0;
  assert_true(str_starts(parse(":include:/lists/self"), STR("ERROR included files are nested too deeply")));
  assert_true(reads > 1 && reads < 100);
}

static void test_tainted_include(void **state) {
  struct redirect_rules r = rules();
  struct redirect_parsed p;
  redirect_parse(arena, str_tainted(STR(":include:/lists/two")), &r, &p);
  assert_int_equal(p.result, REDIRECT_ERROR);
  redirect_parse(arena, str_tainted(STR("|/bin/cat")), &r, &p);
  assert_true(p.items.n == 1 && str_is_tainted(p.items.v[0].text));
}

static void test_errors(void **state) {
  struct redirect_rules r = rules();
  struct redirect_parsed p;
  assert_true(str_starts(parse("a b@c.example"), STR("ERROR ")));
  assert_true(str_ends(parse("a b@c.example"), STR(" in \"a b@c.example\"")));
  assert_str(parse("<>"), "ERROR missing or malformed local part in \"<>\"");
  r.skip_syntax_errors = true;
  redirect_parse(arena, STR("a b@c.example, d@e.example, @@f.example"), &r, &p);
  assert_str(shown(&p), "[Ad@e.example]");
  assert_int_equal(p.skipped.n, 2);
  assert_str(p.skipped.v[0].item, "a b@c.example");
}

static void test_too_many(void **state) {
  struct redirect_rules r = rules();
  r.items_max = 3;
  assert_str(parse_with("a,b,c", &r), "[Aa][Ab][Ac]");
  assert_true(str_starts(parse_with("a,b,c,d", &r), STR("ERROR too many items")));
}

static void test_route_rules(void **state) {
  struct manualroute_rule r;
  assert_true(manualroute_parse_rule(arena, STR("*.example  host1:host2  randomize bydns"), &r));
  assert_str(r.pattern, "*.example");
  assert_str(r.hosts, "host1:host2");
  assert_str(r.options, "randomize bydns");
  assert_true(manualroute_parse_rule(arena, STR("\"^a b\\\"$\" \"h1 : h2\" byname"), &r));
  assert_str(r.pattern, "^a b\"$");
  assert_str(r.hosts, "h1 : h2");
  assert_str(r.options, "byname");
  assert_true(manualroute_parse_rule(arena, STR("domain"), &r));
  assert_str(r.hosts, "");
  assert_false(manualroute_parse_rule(arena, STR("  "), &r));
  manualroute_parse_data(arena, STR("host1 smtp_transport"), &r);
  assert_str(r.hosts, "host1");
  assert_str(r.options, "smtp_transport");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_items, setup, teardown),
      cmocka_unit_test_setup_teardown(test_pipes_and_files, setup, teardown),
      cmocka_unit_test_setup_teardown(test_special, setup, teardown),
      cmocka_unit_test_setup_teardown(test_include, setup, teardown),
      cmocka_unit_test_setup_teardown(test_include_is_bounded, setup, teardown),
      cmocka_unit_test_setup_teardown(test_tainted_include, setup, teardown),
      cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
      cmocka_unit_test_setup_teardown(test_route_rules, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
