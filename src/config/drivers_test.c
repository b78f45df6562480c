/* Sections, drivers and what modules add, with modules made for the test. */
#include <stddef.h>
#include <stdlib.h>
#include "base/arena.h"
#include "base/test.h"
#include "config/config.h"
#include "config/print.h"
#include "core/main_options.h"
#include "core/module.h"

struct generic {
  struct option_expr domains, condition_text;
  struct str headers, removed, next_name;
  bool plain;
  int tri;
  struct option_expr flag;
  struct option_user user;
  struct instance *next;
};

struct one {
  int64_t number, mode, size, fixed, time;
  struct option_times times;
  struct str text, custom, later;
};

struct extra {
  struct str added;
};

static int parse_custom(struct config_reader *r, const struct option_def *def, void *block, struct str value) {
  if (str_eq_c(value, "bad"))
    return config_error(r, "custom value is bad");
  ((struct one *)block)->custom = value;
  return 0;
}

#define G(member) offsetof(struct generic, member)
static const struct option_def generic_options[] = {
  {"domains", OPTION_LIST, G(domains), .list = LIST_DOMAIN},
  {"flag", OPTION_EXPR_BOOL, G(flag)},
  {"headers", OPTION_STRING, G(headers), .flags = OPTION_REPEATS},
  {"next", OPTION_STRING, G(next_name)},
  {"plain", OPTION_BOOL, G(plain), "true"},
  {"removed", OPTION_STRING, G(removed), .flags = OPTION_REPEATS | OPTION_JOIN_COLON},
  {"tri", OPTION_BOOL, G(tri), .flags = OPTION_TRISTATE},
  {"user", OPTION_USER, G(user)},
  OPTIONS_END
};

#define O(member) offsetof(struct one, member)
static const struct option_def one_options[] = {
  {"custom", OPTION_CUSTOM, O(custom), .parse = parse_custom},
  {"fixed", OPTION_FIXED, O(fixed)},
  {"later", OPTION_STRING, O(later), .flags = OPTION_LATER},
  {"mode", OPTION_OCTAL, O(mode), "0600"},
  {"number", OPTION_INT, O(number), "7"},
  {"old_number", OPTION_INT, O(number), .flags = OPTION_ALIAS, .alias_of = "number"},
  {"size", OPTION_SIZE, O(size)},
  {"text", OPTION_STRING, O(text)},
  {"time", OPTION_TIME, O(time), "5m"},
  {"times", OPTION_TIME_LIST, O(times)},
  OPTIONS_END
};

static const struct option_def extra_options[] = {
  {"added", OPTION_STRING, offsetof(struct extra, added), "default"},
  OPTIONS_END
};

static int init_generic(struct config_reader *r, struct instance *i) {
  struct generic *g = i->generic;
  return str_eq_c(g->next_name, "self-check") ? config_error(r, "\"next\" may not be used so") : 0;
}

static int link_generic(struct config_reader *r, struct instance *i) {
  struct generic *g = i->generic;
  if (!str_is_set(g->next_name))
    return 0;
  g->next = config_driver(config_reader_config(r), DRIVER_ROUTER, g->next_name);
  return g->next != NULL ? 0 : config_error_at(r, i->where, "next \"%.*s\" not found", STRF(g->next_name));
}

static int init_one(struct config_reader *r, struct instance *i) {
  const struct one *o = i->options;
  return str_eq_c(o->text, "refuse") ? config_error(r, "refused") : 0;
}

static const struct driver_class_def router_class = {
  .class = DRIVER_ROUTER, .options = generic_options, .options_size = sizeof(struct generic), .init = init_generic,
  .link = link_generic,
};
static const struct driver_def driver_one = {
  .name = "one", .class = DRIVER_ROUTER, .options = one_options, .options_size = sizeof(struct one), .init = init_one,
};
static const struct driver_def driver_two = {.name = "two", .class = DRIVER_ROUTER};

static size_t n_lines, n_ends;
static char lines[10][100];

static int section_line(struct config_reader *r, struct str line) {
  if (str_eq_c(line, "bad"))
    return config_error(r, "bad line");
  if (n_lines < 10)
    snprintf(lines[n_lines++], sizeof *lines, "%.*s", STRF(line));
  return 0;
}

static int section_end(struct config_reader *r) {
  n_ends++;
  return 0;
}

static const struct module base_module = {
  .name = "base",
  .driver_class = &router_class,
  .drivers = (const struct driver_def *const[]){&driver_one, &driver_two, NULL},
  .sections = (const struct config_section_def[]){{"things", section_line, section_end}, {0}},
};
static const struct module extra_module = {
  .name = "extra",
  .driver_options =
      (const struct module_driver_options[]){{DRIVER_ROUTER, "one", extra_options, sizeof(struct extra)}, {0}},
  .macros = (const char *const[]){"_HAVE_EXTRA", "_EXTRA_LIST=a : b", NULL},
};

const struct module *const modules[] = {&core_module, &base_module, &extra_module, NULL};

static struct arena *a;
static struct config *config;
static struct str errors;

static int setup(void **state) {
  a = arena_new("test");
  n_lines = n_ends = 0;
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static int read_text(const char *text) {
  const struct config_source s = {.paths = STR("test"), .text = str_c(text)};
  return config_read(&s, a, &config, &errors);
}

static void good(const char *text) {
  if (read_text(text) != 0)
    fail_msg("%s\n%.*s", text, STRF(errors));
}

static void bad(const char *text, const char *expected) {
  assert_int_equal(read_text(text), OUTCOME_ERROR);
  if (str_find(errors, str_c(expected)) < 0)
    fail_msg("%s\nexpected: %s\ngot: %.*s", text, expected, STRF(errors));
}

static struct instance *router(const char *name) {
  struct instance *i = config_driver(config, DRIVER_ROUTER, str_c(name));
  assert_non_null(i);
  return i;
}

static void instances(void **state) {
  good("begin routers\n"
       "r1:\n  domains = a : b\n  driver = one\n  number = 3\n  no_plain\n  custom = \"as is\"\n  added = x\n"
       "MAC = value\n"
       "r2 :\n  driver = \"two\"\n  tri\n  flag = ${if eq{a}{b}}\n  next = r1\n"
       "R3:\n  driver = one\n  text = MAC\n  no_tri\n  no_flag\n  user = root\n");
  const struct instance *r1 = router("r1"), *r2 = router("r2"), *r3 = router("R3");
  const struct generic *g1 = r1->generic, *g2 = r2->generic, *g3 = r3->generic;
  const struct one *o1 = r1->options, *o3 = r3->options;
  assert_ptr_equal(config->drivers[DRIVER_ROUTER], r1);
  assert_ptr_equal(r1->next, r2);
  assert_int_equal(r3->number, 2);
  assert_ptr_equal(r1->driver, &driver_one);
  assert_str(g1->domains.text, "a : b");
  assert_int_equal(o1->number, 3);
  assert_int_equal(o1->mode, 0600);
  assert_int_equal(o1->fixed, -1);
  assert_int_equal(o1->time, 300);
  assert_str(o1->custom, "\"as is\"");
  assert_false(g1->plain);
  assert_int_equal(g1->tri, -1);
  assert_int_equal(g2->tri, 1);
  assert_int_equal(g3->tri, 0);
  assert_str(g2->flag.text, "${if eq{a}{b}}");
  assert_str(g3->flag.text, "false");
  assert_ptr_equal(g2->next, r1);
  assert_str(o3->text, "value");
  assert_true(g3->user.set && g3->user.gid_set && g3->user.id == 0);
  assert_str(((const struct extra *)r1->extra[module_number(&extra_module)])->added, "x");
  assert_str(((const struct extra *)r3->extra[module_number(&extra_module)])->added, "default");
  assert_null(r2->extra[module_number(&extra_module)]);
  assert_int_equal(r1->where.line, 2);
}

static void options_given_again(void **state) {
  good("begin routers\nr:\n headers = A: b\n headers = \"C: d\\n\"\n removed = X\n removed = Y\n driver = one\n");
  const struct generic *g = router("r")->generic;
  assert_str(g->headers, "A: b\nC: d\n");
  assert_str(g->removed, "X:Y");
}

static void old_names(void **state) {
  good("begin routers\nr:\n driver = one\n old_number = 5\n");
  assert_int_equal(((const struct one *)router("r")->options)->number, 5);
  assert_int_equal(config->warnings.n, 1);
  bad("begin routers\nr:\n driver = one\n old_number = 5\n number = 6\n", "\"number\" option set for the second time");
}

static void driver_errors(void **state) {
  static const struct {
    const char *text, *error;
  } cases[] = {
    {"begin routers\nfoo", "line 2 of test:\n  router name missing"},
    {"begin routers\n driver = one", "router name missing"},
    {"begin routers\n9foo:\n driver = one", "router name missing"},
    {"begin routers\nf-o:\n driver = one", "router name missing"},
    {"begin routers\nfoo:", "no driver defined for router \"foo\""},
    {"begin routers\nfoo: bar\n driver = one", "extra characters follow driver name foo"},
    {"begin routers\nfoo:\n driver = nosuch", "router foo: cannot find router driver \"nosuch\""},
    {"begin routers\nfoo:\n driver = ona", "(did you mean \"one\"?)"},
    {"begin routers\nfoo:\n driver = one\nfoo:\n driver = one", "there are two routers called \"foo\""},
    {"begin routers\nfoo:\n number = 3\n driver = one",
      "line 3 of test:\n  option \"number\" unknown (\"driver\" must be specified before any private options)"},
    {"begin routers\nfoo:\n driver = one\n numbr = 3", "option \"numbr\" unknown\n  (did you mean \"number\"?)"},
    {"begin routers\nfoo:\n driver = one\n plane", "option \"plane\" unknown\n  (did you mean \"plain\"?)"},
    {"begin routers\nfoo:\n driver = one\n driver = two", "\"driver\" option set for the second time"},
    {"begin routers\nfoo:\n driver", "unexpected end of line (data missing) after driver"},
    {"begin routers\nfoo:\n driver one", "missing \"=\" after driver"},
    {"begin routers\nfoo:\n driver = one\n number = 3\n number = 4", "\"number\" option set for the second time"},
    {"begin routers\nfoo:\n driver = one\n mode = 9", "octal integer expected for mode"},
    {"begin routers\nfoo:\n driver = one\n custom = bad", "custom value is bad"},
    {"begin routers\nfoo:\n driver = one\n user = no-such-user", "user no-such-user was not found"},
    {"begin routers\nfoo:\n driver = one\n later = x", "option \"later\" is not supported yet"},
    {"begin routers\nfoo:\n driver = one\n text = refuse", "Exim configuration error for foo router:\n  refused"},
    {"begin routers\nfoo:\n driver = one\n next = self-check", "Exim configuration error for foo router:\n  \"next\" may"},
    {"begin routers\nfoo:\n driver = one\n next = nobody", "Exim configuration error:\n  next \"nobody\" not found"},
    {"begin routers\nfoo:\n driver = one\n = 5", "option setting expected: = 5"},
    {"begin routers\naaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg:\n driver = one",
      "exim item name too long (>64)"},
    {"begin transports\nt:\n driver = x\nbegin routers\nr:\n driver = nosuch", "transports are not supported yet"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    bad(cases[i].text, cases[i].error);
}

static void sections(void **state) {
  good("begin THINGS\na\n  b \\\n  c\nbegin routers\nr:\n driver = two\n");
  assert_int_equal(n_lines, 2);
  assert_string_equal(lines[0], "a");
  assert_string_equal(lines[1], "b c");
  assert_int_equal(n_ends, 1);
  bad("begin things\na\nbegin routers\nBegin\tThings\nd\n", "line 4 of test:\n  \"Things\" section is repeated in the configuration file");
  bad("begin things\nbad\nx\nbad", "in line 2 of test:\n  bad line\nExim configuration error in line 4 of test:\n  bad line");
}

static void macros_of_modules(void **state) {
  good(".ifdef _DRIVER_ROUTER_ONE\n.ifdef _OPT_ROUTER_ONE_NUMBER\n.ifdef _OPT_ROUTER_ONE_ADDED\n.ifdef _OPT_ROUTERS_DOMAINS\n"
       ".ifndef _OPT_ROUTER_ONE_LATER\n.ifdef _HAVE_EXTRA\nqualify_domain = _EXTRA_LIST\n"
       ".endif\n.endif\n.endif\n.endif\n.endif\n.endif\n");
  assert_str(main_options(config)->qualify_domain, "a : b");
}

static char *printed(bool admin, size_t n, const char *const *names, int *ret_status) {
  struct str args[8];
  char *text = NULL;
  size_t size;
  for (size_t i = 0; i < n; i++)
    args[i] = str_c(names[i]);
  const struct config_print p = {.out = open_memstream(&text, &size), .admin = admin};
  *ret_status = config_print(&p, config, args, n);
  fclose(p.out);
  return text;
}

static void print_is(bool admin, const char *expected, size_t n, const char *const *names) {
  int status;
  char *text = printed(admin, n, names, &status);
  assert_string_equal(text, expected);
  free(text);
}

static void printing(void **state) {
  good("begin routers\nr:\n driver = one\n hide text = secret\n flag = $x\n times = 1h:2h\n custom = \"a\"\n user = $u\n"
       "s:\n driver = two\n headers = x\n");
  static const char all[] = "domains = \ndriver = one\nflag = $x\nheaders = \nnext = \nplain\nremoved = \nno_tri\nuser = $u\n"
                            "added = default\ncustom = \"a\"\nfixed = \nlater = \nmode = 0600\nnumber = 7\nsize = 0\ntext = secret\n"
                            "time = 5m\ntimes = 1h:2h\n";
  print_is(true, all, 2, (const char *[]){"router", "r"});
  print_is(true, "r\ns\n", 1, (const char *[]){"router_list"});
  print_is(true, "router x not found\n", 2, (const char *[]){"router", "x"});
  int status;
  char *text = printed(false, 1, (const char *[]){"routers"}, &status);
  assert_non_null(strstr(text, "\nr router:\ndomains = \ndriver = one\n"));
  assert_non_null(strstr(text, "\ntext = <value not displayable>\n"));
  assert_non_null(strstr(text, "\n\ns router:\n"));
  free(text);
  text = printed(true, 1, (const char *[]){"config"}, &status);
  assert_non_null(strstr(text, "\n\nbegin routers\n\n  r:\n    driver = one\n"));
  free(text);
}

static size_t n_exprs;

static void count_expr(struct config *c, struct option_expr *e, enum option_type type, enum list_kind list, void *arg) {
  if (c->files.n > 0 && e->where.file == 0)
    n_exprs++;
}

static void all_expressions_are_seen(void **state) {
  good("acl_smtp_rcpt = $a\nhostlist h = a\nbegin routers\nr:\n driver = one\n domains = x\n flag = $f\n user = $u\n");
  n_exprs = 0;
  config_each_expr(config, count_expr, NULL);
  assert_int_equal(n_exprs, 5);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {
    TEST(instances), TEST(options_given_again), TEST(old_names), TEST(driver_errors), TEST(sections),
    TEST(macros_of_modules), TEST(printing), TEST(all_expressions_are_seen),
  };
  return cmocka_run_group_tests(all, NULL, NULL);
}
