#include "match/match.h"

#include <stdlib.h>
#include <unistd.h>
#include "base/test.h"
#include "config/config.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "lookup/lookup.h"

static struct arena *a;
static struct config *config;
static struct ctx *c;
static char dir[] = "/tmp/match_test.XXXXXX";

static struct str path(const char *name) { return str_printf(a, "%s/%s", dir, name); }

static void write_file(const char *name, const char *text) {
  FILE *f = fopen(path(name).p, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static const char *const names[] = {"ls", "ips", "file", "hosts"};

static void read_config(void) {
  struct config_source s = {.paths = STR("test")};
  s.text = str_printf(a,
    "primary_hostname = my.host.ex\n"
    "domainlist dl = a.b : *.c\n"
    "domainlist dyn = ${if eq{$domain}{x.ex}{x.ex}{none}} : +dl\n"
    "domainlist neg = !a.b\n"
    "domainlist loop = +loop\n"
    "domainlist file = %s/file\n"
    "localpartlist lp = +caseful : Joe : joe2\n"
    "addresslist al = a@b : *@+dl\n"
    "hostlist hl = 10.0.0.0/8 : +hl2\n"
    "hostlist hl2 = 1.2.3.4\n", dir);
  struct str errors;
  if (config_read(&s, a, &config, &errors) != 0)
    fail_msg("%.*s", STRF(errors));
  expand_compile_config(config);
  match_compile_config(config);
}

static int setup(void **state) {
  a = arena_new("test");
  assert_non_null(mkdtemp(dir));
  write_file("ls", "*.pass.wd: partial data\ncont: one\n  two\natat: u1 : !u2 : >loop\nloop: u4 : >loop\nlist: u1:!u2:u*\n"
                   "*@y.z: wild\n*: dflt\nuser@x.y: whole\n1.2.3.4: four\n");
  write_file("ips", "1.2.0.0/16 b\n\"abcd::/16\": c\n");
  write_file("file", "y # comment\n\n!w\n*.z\nx#\n");
  write_file("hosts", "192.168.34.0/24: net\n");
  read_config();
  c = ctx_new(a, config);
  return 0;
}

static int teardown(void **state) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    unlink(path(names[i]).p);
  rmdir(dir);
  lookup_tidy();
  match_done();
  arena_free(a);
  return 0;
}

/* %D in a list stands for the directory of the files. */
static struct str list_text(const char *text) {
  struct str s = str_c(text);
  for (ptrdiff_t at; (at = str_find(s, STR("%D"))) >= 0;)
    s = str_printf(a, "%.*s%s%.*s", (int)at, s.p, dir, STRF(str_from(s, (size_t)at + 2)));
  return s;
}

struct check {
  const char *list, *subject, *value; /* value NULL: not in */
};

static void run(enum list_kind kind, const struct check *checks, size_t n) {
  for (size_t i = 0; i < n; i++) {
    struct str value;
    int r = match_text(c, kind, list_text(checks[i].list), str_c(checks[i].subject), 0, &value);
    if (r != (checks[i].value ? OUTCOME_OK : OUTCOME_FAIL))
      fail_msg("'%s' in '%s': %d %.*s", checks[i].subject, checks[i].list, r, STRF(c->error));
    if (checks[i].value && !str_eq(str_is_set(value) ? value : STR_EMPTY, str_c(checks[i].value)))
      fail_msg("'%s' in '%s': value '%.*s'", checks[i].subject, checks[i].list, STRF(value));
  }
}

static void test_domains(void **state) {
  static const struct check checks[] = {
    {"a.b", "A.B", "a.b"}, {"a.b", "a.c", NULL}, {"", "a", NULL}, {":", "", ""}, {"", "", NULL},
    {"*", "x", "*"}, {"*.c", "x.c", "*.c"}, {"*.c", "c", NULL}, {"**c", "xc", NULL},
    {"!a", "", ""}, {"!a:b", "a", NULL}, {"!a:b", "c", NULL}, {"! b", "a", ""}, {"!", "a", ""}, {"!", "", NULL},
    {"@", "my.host.ex", "my.host.ex"}, {"@[]", "[127.0.0.1]", "@[]"}, {"@[]", "[192.0.2.77]", NULL},
    {"@foo", "@foo", "@foo"}, {"@mx_foo", "x", NULL},
    {"+dl", "a.B", "a.b"}, {"+dl", "x.c", "*.c"}, {"+dl", "d", NULL}, {"! +dl", "d", ""}, {"! +dl", "a.b", NULL},
    {"+neg", "a.b", NULL}, {"+neg", "z", ""}, {"+dyn", "a.b", "a.b"}, {"+dyn", "zz", NULL},
    {"^(.)\\.", "x.y", "^(.)\\."}, {"^x$", "X", "^x$"}, {"^(?-i)X", "x", NULL},
    {"<; lsearch,ret=key;%D/ls", "cont", NULL}, {"lsearch;%D/ls", "CONT", "one two"},
    {"lsearch,ret=key;%D/ls", "cont", "cont"}, {"lsearch;%D/ls", "nope", NULL}, {"lsearch*;%D/ls", "nope", "dflt"},
    {"partial-lsearch;%D/ls", "a.b.pass.wd", "partial data"}, {"partial-lsearch;%D/ls", "pass.wd", "partial data"},
    /* The whole key has no minimum. */
    {"partial3-lsearch;%D/ls", "pass.wd", "partial data"},
    {"partial3-lsearch;%D/ls", "a.pass.wd", NULL}, {"%D/file", "y", "y"}, {"%D/file", "q.z", "*.z"}, {"%D/file", "x#", NULL},
    {"! %D/file : *", "w", "w"}, {"%D/file : *", "w", NULL}, {"%D/file : *", "v", "*"}, {"+file", "y", "y"},
  };
  run(LIST_DOMAIN, checks, sizeof checks / sizeof *checks);
}

static void test_captures(void **state) {
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("*b.c"), STR("a.b.c"), 0, NULL), OUTCOME_OK);
  assert_str(c->expand.capture[0], "a.b.c");
  assert_str(c->expand.capture[1], "a.");
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("^(.).(.)"), STR("a.b.c"), 0, NULL), OUTCOME_OK);
  assert_str(c->expand.capture[2], "b");
  assert_str(c->expand.capture[0], "a.b.c");
  assert_int_equal(match_text(c, LIST_DOMAIN, list_text("partial-lsearch;%D/ls"), STR("a.pass.wd"), 0, NULL), OUTCOME_OK);
  assert_str(c->expand.capture[0], "a.pass.wd");
  assert_str(c->expand.capture[1], "a");
  assert_str(c->expand.capture[2], "pass.wd");
  c->expand.capture[1] = STR("kept");
  assert_int_equal(match_text(c, LIST_ADDRESS, STR("^(a)"), STR("a@b"), 0, NULL), OUTCOME_OK);
  assert_str(c->expand.capture[1], "kept");
}

static void test_addresses(void **state) {
  static const struct check checks[] = {
    {"*@b", "a@B", "*@*"}, {"A@b", "a@B", "A@b"}, {"+caseful:A@b", "a@B", NULL}, {"+caseful:A@b", "A@B", "A@b"}, {"+caseful:A@B", "A@B", NULL},
    {":", "", ""}, {"*", "", NULL}, {"*", "a", NULL}, {"b", "a@b", "@b"}, {"*b", "a@xb", "@*b"}, {"*@*", "", NULL},
    {"@b", "a@b", NULL}, {"a@@", "a@my.host.ex", "a@my.host.ex"}, {"a@@[]", "a@[127.0.0.1]", "a@@[]"},
    {"+al", "a@b", "a@b"}, {"+al", "q@x.c", "*@*.c"}, {"^u(.)@", "U9@loop", "^u(.)@"}, {"*9@*p", "u9@loop", "*9@*p"},
    {"lsearch;%D/ls", "user@x.y", "whole"}, {"lsearch*@;%D/ls", "c@y.z", "wild"}, {"*@lsearch*;%D/ls", "a@b", "*@dflt"},
    {"partial-lsearch*@;%D/ls", "c@y.z", "wild"},
    {"@@lsearch;%D/ls", "u1@atat", "u1"}, {"@@lsearch;%D/ls", "u2@atat", NULL}, {"@@lsearch;%D/ls", "u4@atat", "u4"},
    {"@@lsearch;%D/ls", "u4@nowhere", NULL}, {"@@lsearch;%D/ls", "u2@list", NULL}, {"@@lsearch;%D/ls", "ux@list", NULL},
    {"!a@b : *@*", "a@b", NULL}, {"!a@b : *@*", "x@b", "*@*"}, {"+dl", "a@b", NULL},
  };
  /* the first: the local part's pattern, @, and what the domain list gave */
  struct str value;
  assert_int_equal(match_text(c, LIST_ADDRESS, STR("*@b"), STR("a@B"), 0, &value), OUTCOME_OK);
  assert_str(value, "*@b");
  run(LIST_ADDRESS, checks + 1, sizeof checks / sizeof *checks - 2);
  assert_int_equal(match_text(c, LIST_ADDRESS, list_text("@@lsearch;%D/ls"), STR("u3@atat"), 0, NULL), OUTCOME_DEFER);
  assert_true(str_starts(c->error, STR("Loop detected in lookup of local part of u3@atat in @@lsearch;")));
}

static void test_local_parts(void **state) {
  static const struct check checks[] = {
    {"A", "a", "A"}, {"+caseful:A", "a", NULL}, {"+lp", "joe", NULL}, {"+lp", "Joe", "Joe"}, {"+lp:joe", "Joe", "Joe"},
    {"%D/file", "x#", "x#"}, {"+lp:jim", "Jim", "jim"}, {"+caseful:+lp:jim", "Jim", NULL}, {"@", "my.host.ex", NULL},
  };
  run(LIST_LOCAL_PART, checks, sizeof checks / sizeof *checks);
}

static void test_ips(void **state) {
  static const struct check checks[] = {
    {"1.2.3.4", "1.2.3.4", "1.2.3.4"}, {"1.2.3.0/24", "1.2.3.9", "1.2.3.0/24"}, {"1.2.3.0/24", "1.2.4.9", NULL},
    {"*", "1.2.3.4", "*"}, {"*", "", "*"}, {":", "", ""}, {":", "1.2.3.4", NULL}, {"1.2.3.0/33", "1.2.3.4", NULL},
    {"1.2.3", "1.2.3.4", NULL}, {"1.2.3.400", "1.2.3.4", NULL}, {"foo.bar", "1.2.3.4", NULL}, {"*.foo", "1.2.3.4", NULL},
    {"@[]", "127.0.0.1", "@[]"}, {"lsearch;%D/ls", "1.2.3.4", "four"}, {"net-lsearch;%D/ls", "1.2.3.4", "four"},
    {"iplsearch;%D/ips", "1.2.9.9", "b"}, {"<: iplsearch;%D/ips", "abcd::9", "c"}, {"net24-lsearch;%D/hosts", "192.168.34.6", "net"},
    {"net24-lsearch;%D/hosts", "192.168.35.6", NULL}, {"3ffe::ffff::836f::::/48", "3ffe:ffff:836f::1", "3ffe:ffff:836f::/48"},
    {"1.2.3.4", "::ffff:1.2.3.4", "1.2.3.4"}, {"+hl", "10.9.9.9", "10.0.0.0/8"}, {"+hl", "1.2.3.4", "1.2.3.4"},
    {"! +hl", "1.2.3.4", NULL}, {"<; 127.0.0.1 ; ::1 ;", "", NULL}, {"<; ; 127.0.0.1", "", ""},
  };
  run(LIST_HOST, checks, sizeof checks / sizeof *checks);
}

static void deferred(enum list_kind kind, const char *list, const char *subject, const char *error) {
  int r = match_text(c, kind, list_text(list), str_c(subject), 0, NULL);
  if (r != OUTCOME_DEFER)
    fail_msg("%s in %s: %d", subject, list, r);
  if (!str_eq(c->error, list_text(error)))
    fail_msg("%s in %s: error '%.*s'", subject, list, STRF(c->error));
}

static void test_errors(void **state) {
  deferred(LIST_DOMAIN, "+nope", "x", "unknown named domain list \"+nope\"");
  deferred(LIST_ADDRESS, "+dl", "a@b", "unknown named address list \"+dl\"");
  deferred(LIST_LOCAL_PART, "+nope", "x", "unknown named local part list \"+nope\"");
  deferred(LIST_HOST, "+nope", "1.2.3.4", "unknown named host list \"+nope\"");
  deferred(LIST_DOMAIN, "nosuch;/x", "x", "unknown lookup type \"nosuch\"");
  deferred(LIST_ADDRESS, "@@nosuch;/x", "x@y", "unknown lookup type \"nosuch\"");
  deferred(LIST_DOMAIN, "lsearch;/nonex", "x", "failed to open /nonex for linear search: No such file or directory");
  deferred(LIST_DOMAIN, "/nonex", "x", "failed to open /nonex when checking \"/nonex\": No such file or directory");
  deferred(LIST_DOMAIN, "^(", "x", "regular expression error in \"^(\": missing closing parenthesis at offset 2");
  deferred(LIST_DOMAIN, "+loop", "x", "named domain lists are nested too deeply at \"+loop\"");
  deferred(LIST_DOMAIN, "iplsearch;%D/ips", "x", "\"x\" is not a valid iplsearch key (an IP address, with optional CIDR mask, "
    "is wanted): in a host list, use net-iplsearch as the search type");
  c->match_what = "local_parts";
  assert_int_equal(match_text(c, LIST_LOCAL_PART, str_tainted(list_text("%D/file")), STR("x"), 0, NULL), OUTCOME_DEFER);
  assert_true(str_find(c->error, STR(" when checking local_parts: Permission denied (euid=")) > 0);
  c->match_what = NULL;
}

/* A file is read again when it has changed, also when its size stays the same. */
static void test_file_changes(void **state) {
  assert_int_equal(match_text(c, LIST_DOMAIN, list_text("%D/hosts"), STR("one"), 0, NULL), OUTCOME_FAIL);
  write_file("hosts", "one\n");
  assert_int_equal(match_text(c, LIST_DOMAIN, list_text("%D/hosts"), STR("one"), 0, NULL), OUTCOME_OK);
  write_file("hosts", "two\n");
  assert_int_equal(match_text(c, LIST_DOMAIN, list_text("%D/hosts"), STR("one"), 0, NULL), OUTCOME_FAIL);
  assert_int_equal(match_text(c, LIST_DOMAIN, list_text("%D/hosts"), STR("two"), 0, NULL), OUTCOME_OK);
}

/* The last line of a file decides about what was in none, as the last item of a list does. */
static void test_file_ends_negated(void **state) {
  static const struct {
    const char *list, *subject;
    int result;
  } cases[] = {{"%D/hosts", "one", OUTCOME_OK}, {"%D/hosts", "two", OUTCOME_FAIL}, {"%D/hosts", "other", OUTCOME_OK},
    {"!%D/hosts", "two", OUTCOME_OK}, {"!%D/hosts", "other", OUTCOME_FAIL}, {"%D/hosts : x", "other", OUTCOME_FAIL},
    {"%D/hosts : !x", "other", OUTCOME_OK}, {"x : %D/hosts", "other", OUTCOME_OK}};
  write_file("hosts", "one\n!two\n");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (match_text(c, LIST_DOMAIN, list_text(cases[i].list), str_c(cases[i].subject), 0, NULL) != cases[i].result)
      fail_msg("%s in %s", cases[i].subject, cases[i].list);
  write_file("hosts", "!10.0.0.1\n");
  assert_int_equal(match_text(c, LIST_HOST, list_text("%D/hosts"), STR("10.0.0.2"), 0, NULL), OUTCOME_OK);
  assert_int_equal(match_text(c, LIST_HOST, list_text("%D/hosts"), STR("10.0.0.1"), 0, NULL), OUTCOME_FAIL);
}

/* A name cannot be compared with an address alone: undecided, as with any host whose name is not known. */
static void test_ip_and_names(void **state) {
  static const char *const names_of[] = {"some.host", "*.host", "^h", "not a name", "@"};
  for (size_t i = 0; i < sizeof names_of / sizeof *names_of; i++) {
    struct str list = str_printf(a, "%s : 10.0.0.1", names_of[i]);
    assert_int_equal(match_text(c, LIST_HOST, list, STR("10.0.0.1"), 0, NULL), OUTCOME_FAIL);
    list = str_printf(a, "+ignore_unknown : %s : 10.0.0.1", names_of[i]);
    assert_int_equal(match_text(c, LIST_HOST, list, STR("10.0.0.1"), 0, NULL), OUTCOME_OK);
    list = str_printf(a, "+include_unknown : %s", names_of[i]);
    assert_int_equal(match_text(c, LIST_HOST, list, STR("10.0.0.1"), 0, NULL), OUTCOME_OK);
  }
  assert_int_equal(match_text(c, LIST_HOST, STR("10.0.0.300 : 10.0.0.1"), STR("10.0.0.1"), 0, NULL), OUTCOME_FAIL);
  assert_int_equal(match_text(c, LIST_HOST, STR("+ignore_unknown : 10.0.0.300 : 10.0.0.1"), STR("10.0.0.1"), 0, NULL), OUTCOME_OK);
}

static void test_no_address(void **state) {
  static const char *const lists[] = {"*", "lsearch*;%D/ls", "^x", "!a@b : *", "*@*"};
  c->is_test = true;
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    assert_int_equal(match_text(c, LIST_ADDRESS, list_text(lists[i]), STR("x"), 0, NULL), OUTCOME_FAIL);
  c->is_test = false;
  assert_int_equal(match_text(c, LIST_ADDRESS, STR("!a@b"), STR("x"), 0, NULL), OUTCOME_OK);
}

/* A named list without expansions is asked once a message: its file may vanish meanwhile. */
static void test_named_cache(void **state) {
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("+file"), STR("r.z"), 0, NULL), OUTCOME_OK);
  unlink(path("file").p);
  struct str value;
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("+file"), STR("r.z"), 0, &value), OUTCOME_OK);
  assert_str(value, "*.z");
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("+file"), STR("s.z"), 0, NULL), OUTCOME_DEFER);
}

static void test_taint(void **state) {
  struct str value;
  assert_int_equal(match_text(c, LIST_DOMAIN, STR("a.b"), str_tainted(STR("a.b")), 0, &value), OUTCOME_OK);
  assert_false(str_is_tainted(value));
  assert_int_equal(match_text(c, LIST_DOMAIN, str_tainted(STR("a.b")), STR("a.b"), 0, &value), OUTCOME_OK);
  assert_true(str_is_tainted(value));
  assert_int_equal(match_text(c, LIST_DOMAIN, str_tainted(STR("<;a;b")), STR("b"), 0, NULL), OUTCOME_DEFER);
  assert_int_equal(match_text(c, LIST_DOMAIN, str_tainted(STR("<;a;b")), STR("b"), MATCH_LITERAL_SEPARATOR, NULL), OUTCOME_OK);
}

static void test_option(void **state) {
  struct named_list *l = config_list(config, LIST_DOMAIN, STR("dyn"));
  assert_null(l->value.list);
  assert_non_null(config_list(config, LIST_DOMAIN, STR("dl"))->value.list);
  c->vars.domain = STR("x.ex");
  assert_int_equal(match_domain(c, &l->value, STR("x.ex"), NULL), OUTCOME_OK);
  c->vars.domain = STR("y.ex");
  assert_int_equal(match_domain(c, &l->value, STR("x.ex"), NULL), OUTCOME_FAIL);
  struct option_expr unset = {0};
  assert_int_equal(match_domain(c, &unset, STR("x.ex"), NULL), OUTCOME_FAIL);
}

/* Local submission: no host. */
static void test_no_host(void **state) {
  assert_int_equal(match_client_host_text(c, STR(":"), NULL), OUTCOME_OK);
  assert_int_equal(match_client_host_text(c, STR("*"), NULL), OUTCOME_OK);
  assert_int_equal(match_client_host_text(c, STR("1.2.3.4 : *.foo : lsearch;/nonex"), NULL), OUTCOME_FAIL);
  assert_int_equal(match_client_host_text(c, STR("! 1.2.3.4"), NULL), OUTCOME_OK);
}

static void test_host_names(void **state) {
  assert_int_equal(match_host_text(c, STR("*.b.ex"), STR("a.b.ex"), STR("1.2.3.4"), NULL), OUTCOME_OK);
  assert_int_equal(match_host_text(c, STR("^a"), STR("a.b.ex"), STR("1.2.3.4"), NULL), OUTCOME_OK);
  assert_int_equal(match_host_text(c, list_text("lsearch;%D/ls"), STR("cont"), STR("9.2.3.4"), NULL), OUTCOME_OK);
  assert_int_equal(match_host_text(c, STR("127.0.0.0/8"), STR("x"), STR("127.0.0.1"), NULL), OUTCOME_OK);
  /* what cannot be a name to look up is compared with the name */
  assert_int_equal(match_host_text(c, STR("odd name"), STR("odd name"), STR("1.2.3.4"), NULL), OUTCOME_OK);
  assert_int_equal(match_host_text(c, STR("[1.2.3.4]"), STR("x"), STR("1.2.3.4"), NULL), OUTCOME_FAIL);
  /* the name is needed and not known */
  assert_int_equal(match_host_text(c, STR("*.b.ex : 1.2.3.4"), STR_EMPTY, STR("1.2.3.4"), NULL), OUTCOME_FAIL);
  assert_int_equal(match_host_text(c, STR("+ignore_unknown : *.b.ex : 1.2.3.4"), STR_EMPTY, STR("1.2.3.4"), NULL), OUTCOME_OK);
  assert_int_equal(match_host_text(c, STR("+include_unknown : *.b.ex"), STR_EMPTY, STR("1.2.3.4"), NULL), OUTCOME_OK);
}

static void test_item(void **state) {
  assert_int_equal(match_item(c, STR("^(\\d)"), STR("1"), false), OUTCOME_OK);
  assert_int_equal(match_item(c, STR("*X"), STR("yx"), false), OUTCOME_OK);
  assert_int_equal(match_item(c, STR("*X"), STR("yx"), true), OUTCOME_FAIL);
  assert_int_equal(match_item(c, STR("a:b"), STR("A:b"), false), OUTCOME_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_domains), cmocka_unit_test(test_captures), cmocka_unit_test(test_addresses),
    cmocka_unit_test(test_local_parts), cmocka_unit_test(test_ips), cmocka_unit_test(test_errors),
    cmocka_unit_test(test_taint), cmocka_unit_test(test_option), cmocka_unit_test(test_no_host),
    cmocka_unit_test(test_host_names), cmocka_unit_test(test_item), cmocka_unit_test(test_file_changes),
    cmocka_unit_test(test_file_ends_negated), cmocka_unit_test(test_ip_and_names), cmocka_unit_test(test_no_address),
    cmocka_unit_test(test_named_cache),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
