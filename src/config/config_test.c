#include "config/config.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/test.h"
#include "config/print.h"
#include "core/main_options.h"
#include "core/module.h"

static struct arena *a;
static struct config *config;
static struct str errors;
static char directory[] = "/tmp/config_test.XXXXXX";

static int setup(void **state) {
  a = arena_new("test");
  config = NULL;
  errors = STR_EMPTY;
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static int expand_fake(struct config *c, struct arena *arena, struct str text, struct str *ret, struct str *ret_error) {
  if (str_find(text, STR("$bad")) >= 0) {
    *ret_error = STR("unknown variable name \"bad\"");
    return OUTCOME_ERROR;
  }
  ptrdiff_t at = str_find(text, STR("$primary_hostname"));
  *ret = at < 0 ? text
                : str_printf(arena, "%.*s%.*s%.*s", (int)at, text.p, STRF(main_options(c)->primary_hostname),
                      STRF(str_from(text, (size_t)at + 17)));
  return 0;
}

static int read_source(struct config_source *s) {
  s->expand = expand_fake;
  return config_read(s, a, &config, &errors);
}

static int read_text(const char *text) {
  struct config_source s = {.paths = STR("test"), .text = str_c(text)};
  return read_source(&s);
}

static const struct main_options *good(const char *text) {
  if (read_text(text) != 0)
    fail_msg("%s\n%.*s", text, STRF(errors));
  return main_options(config);
}

static void bad(const char *text, const char *expected) {
  assert_int_equal(read_text(text), OUTCOME_ERROR);
  if (str_find(errors, str_c(expected)) < 0)
    fail_msg("%s\nexpected: %s\ngot: %.*s", text, expected, STRF(errors));
}

static void defaults_are_valid(void **state) {
  const struct main_options *o = good("");
  assert_true(o->accept_8bitmime);
  assert_int_equal(o->callout_positive_expire, 86400);
  assert_int_equal(o->check_spool_space, 10 << 20);
  assert_int_equal(o->smtp_load_reserve, -1);
  assert_int_equal(o->delay_warning.n, 1);
  assert_int_equal(o->localhost_number_value, -1);
  assert_str(o->daemon_smtp_ports, "smtp");
  assert_false(str_is_set(o->acl_smtp_rcpt.text));
  assert_true(o->primary_hostname.len > 0);
  assert_str(o->qualify_recipient, str_dup_c(a, o->qualify_domain));
}

static void main_table_is_sorted(void **state) {
  for (const struct option_def *d = core_module.main_options; d[1].name != NULL; d++)
    assert_true(strcmp(d->name, d[1].name) < 0);
}

static void values_of_all_types(void **state) {
  const struct main_options *o = good("queue_only\n"
                                      "no_tcp_nodelay\n"
                                      "not_message_logs\n"
                                      "local_from_check = No\n"
                                      "received_headers_max = 0x10\n"
                                      "check_log_space = 5\n"
                                      "queue_only_load = 2.25\n"
                                      "ignore_bounce_errors_after = 1d2h\n"
                                      "delay_warning = 1h:2h:1d\n"
                                      "trusted_users = root : 42\n"
                                      "qualify_domain = \"a b\\x2e\"\n"
                                      "acl_smtp_rcpt = ${if eq{a}{b}{c}{d}}\n"
                                      "host_lookup =   *  \n"
                                      "spool_directory = /spool/$primary_hostname/x\n"
                                      "primary_hostname = h.example\n"
                                      "never_users =\n"
                                      "localhost_number = 3\n"
                                      "sqlite_lock_timeout = 7\n");
  assert_true(o->queue_only);
  assert_false(o->tcp_nodelay);
  assert_false(o->message_logs);
  assert_false(o->local_from_check);
  assert_int_equal(o->received_headers_max, 16);
  assert_int_equal(o->check_log_space, 5120);
  assert_int_equal(o->queue_only_load, 2250);
  assert_int_equal(o->ignore_bounce_errors_after, 93600);
  assert_int_equal(o->delay_warning.n, 3);
  assert_int_equal(o->delay_warning.v[1], 7200);
  assert_int_equal(o->trusted_users.n, 2);
  assert_int_equal(o->trusted_users.v[1], 42);
  assert_str(o->qualify_domain, "a b.");
  assert_str(o->acl_smtp_rcpt.text, "${if eq{a}{b}{c}{d}}");
  assert_int_equal(o->acl_smtp_rcpt.where.line, 12);
  assert_str(o->host_lookup.text, "*");
  assert_str(o->spool_directory, "/spool/h.example/x");
  assert_int_equal(o->localhost_number_value, 3);
  assert_int_equal(o->sqlite_lock_timeout, 7);
}

static void errors_of_settings(void **state) {
  static const struct {
    const char *text, *error;
  } cases[] = {
    {"foo = 1", "Exim configuration error in line 1 of test:\n  main option \"foo\" unknown"},
    {"\nqualify_domian = x", "line 2 of test:\n  main option \"qualify_domian\" unknown\n  (did you mean \"qualify_domain\"?)"},
    {"no_foo", "main option \"no_foo\" unknown"},
    {"no_qualify_domain", "negation prefix applied to a non-boolean option"},
    {"queue_only = maybe", "\"maybe\" is not a valid value for the \"queue_only\" option"},
    {"queue_only yes", "extra characters follow boolean option queue_only"},
    {"queue_only # off", "extra characters follow boolean option queue_only (# is comment only at line start)"},
    {"queue_only = yes please", "extra characters follow \"yes\" for boolean option queue_only"},
    {"queue_only = 0", "\n  \"\" is not a valid value for the \"queue_only\" option"},
    {"no_queue_only = true", "extra characters follow boolean option no_queue_only"},
    {"qualify_domain", "unexpected end of line (data missing) after qualify_domain"},
    {"qualify_domain x", "missing \"=\" after qualify_domain"},
    {"qualify_domain = a\nqualify_domain = b", "\"qualify_domain\" option set for the second time"},
    {"bounce_return_size_limit = 1\nreturn_size_limit = 1", "\"return_size_limit\" option set for the second time"},
    {"retry_interval_max = 5", "invalid time value for retry_interval_max"},
    {"smtp_receive_timeout = 5x", "invalid time value for smtp_receive_timeout"},
    {"delay_warning = 4h:2h", "time value out of order for delay_warning"},
    {"finduser_retries = x", "integer expected for finduser_retries"},
    {"finduser_retries = 9 x", "extra characters follow integer value for finduser_retries"},
    {"finduser_retries = 9 # x", "extra characters follow integer value for finduser_retries (# is comment only at line start)"},
    {"queue_only_load = -1.5", "\n  integer \"-1.5\" is too large (overflow)"},
    {"finduser_retries = 999999M", "absolute value of integer \"999999M\" is too large (overflow)"},
    {"queue_only_load = 4000000000000000.1", "\n  integer \"4000000000000000.1\" is too large (overflow)"},
    {"queue_only_load = x", "fixed-point number expected for queue_only_load"},
    {"exim_user = no-such-user", "user no-such-user was not found"},
    {"trusted_groups = root : no-such-group", "group no-such-group was not found"},
    {"\nnever_users = $bad", "in line 2 of test:\n  failed to expand never_users: unknown variable name \"bad\""},
    {"qualify_domain = \"abc", "missing quote at end of string value for qualify_domain"},
    {"qualify_domain = \"abc\" d", "extra characters follow string value for qualify_domain"},
    {"qualify_domain = \"abc\"#d", "(# is comment only at line start)"},
    {"localhost_number = 99", "Exim configuration error:\n  localhost_number is greater than the maximum allowed value (16)"},
    {"log_selector = +foo", "unknown log_selector setting: +foo"},
    {"log_selector = pid", "malformed log_selector setting: + or - expected but found \"pid\""},
    {"log_file_path = /x/y", "log_file_path \"/x/y\" does not contain \"%s\""},
    {"syslog_facility = x", "failed to interpret syslog_facility \"x\""},
    {"begin foo", "\"foo\" is not a known configuration section name"},
    {"begin local_scan\nx = y", "local_scan() options not supported"},
    {"12foo = x", "option setting expected: 12foo = x"},
    {"hide", "main option \"\" unknown"},
    {"oracle_servers = a/b/c/d", "option \"oracle_servers\" is not supported yet"},
    {"drop_cr", "main option \"drop_cr\" unknown"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    bad(cases[i].text, cases[i].error);
  struct config_source s = {.paths = STR("test"), .text = STR("qualify_domain = a\0b\n")};
  assert_int_equal(read_source(&s), OUTCOME_ERROR);
  assert_true(str_find(errors, STR("NUL byte in the line")) >= 0);
}

static void several_errors_are_told(void **state) {
  bad("foo = 1\nqueue_only = maybe\n.endif\n", "\"maybe\"");
  assert_true(str_find(errors, STR("\"foo\"")) >= 0);
  assert_true(str_find(errors, STR(".endif without matching .ifdef")) >= 0);
}

static void off_is_no_error(void **state) {
  good("no_mua_wrapper\nmysql_servers =\ndsn_advertise_hosts =\nsystem_filter = \"\"\nno_perl_at_start\n"
       "proxy_protocol_timeout = 3s\nlimits_advertise_hosts =\n");
}

static void offers_warn(void **state) {
  good("slow_lookup_log = 5\n");
  assert_int_equal(config->warnings.n, 1);
  assert_str(config->warnings.v[0],
      "Warning: option \"slow_lookup_log\" is not supported yet: it has no effect (line 1 of test)");
}

static void aliases_warn(void **state) {
  good("proxy_required_hosts =\n");
  assert_int_equal(config->warnings.n, 1);
  assert_str(config->warnings.v[0],
      "Warning: \"proxy_required_hosts\" is a deprecated name for \"hosts_proxy\" (line 1 of test)");
  good("daemon_smtp_port = 26\n");
  assert_int_equal(config->warnings.n, 0);
  assert_str(main_options(config)->daemon_smtp_ports, "26");
}

static void logical_lines(void **state) {
  const struct main_options *o = good("  # comment\n"
                                      "\n"
                                      "local_interfaces = 127.0.0.1 : \\  \n"
                                      "   # inside\n"
                                      "\t 127.0.0.2 \\\n"
                                      "\n"
                                      "qualify_domain = a # b\n"
                                      "exim_version = x\\");
  assert_str(o->local_interfaces, "127.0.0.1 : 127.0.0.2");
  assert_str(o->qualify_domain, "a # b");
  assert_str(o->exim_version, "x");
}

static void errors_name_the_last_line(void **state) {
  bad("qualify_domain = \"a \\\n\\\n b", "in line 3 of test");
}

static void macro_replacement(void **state) {
  const struct main_options *o = good("FOO = one\n"
                                      "BAR = <FOO>\n"
                                      "BAR == BAR two\n"
                                      "qualify_domain = BAR-FOO-xFOOx\n"
                                      "FOO == FOO\n"
                                      "OPT = queue_only\n"
                                      "OPT\n"
                                      "EMPTY =\n"
                                      "EMPTY\n"
                                      "HASH = #\n"
                                      "HASH not an option\n");
  assert_str(o->qualify_domain, "<one> two-one-xonex");
  assert_true(o->queue_only);
}

static void macro_errors(void **state) {
  bad("FOO = a\nFOO = b", "macro \"FOO\" is already defined (use \"==\" if you want to redefine it)");
  bad("FOO == a", "can't redefine an undefined macro \"FOO\"");
  bad("FOO = a\nBARFOO = b", "\"BARFOO\" cannot be defined as a macro because previously defined macro \"FOO\" is a substring");
  bad("FOO bar", "malformed macro definition");
  bad("_FOO = a", "option setting expected: _FOO = a");
  bad("_OPT_MAIN_QUEUE_ONLY = a", "option setting expected");
  bad("A123456789B123456789C123456789D123456789E123456789F123456789G123456789 = x",
      "exim item name too long (>64), unable to use \"A123456789B123456789C123456789D123456789E123456789F123456789G12\" (truncated)");
  /* Each doubles the line: the limit stops it. */
  bad("A1 = 0123456789012345678901234567890123456789\nB1 = A1A1A1A1A1A1A1A1A1A1\nC1 = B1B1B1B1B1B1B1B1B1B1\n"
      "D1 = C1C1C1C1C1C1C1C1C1C1\nE1 = D1D1D1D1D1D1D1D1D1D1\nF1 = E1E1E1E1E1E1E1E1E1E1\nG1 = F1F1F1F1F1F1F1F1F1F1\nqualify_domain = G1\n",
      "line too long after macro substitution");
}

static void command_line_macros_win(void **state) {
  struct config_source s = {.paths = STR("test"), .text = STR("FOO = a\nFOO == b\nqualify_domain = FOO\n")};
  struct config_macro m = {.name = STR("FOO"), .value = STR("given")};
  vec_push(a, &s.macros, m);
  assert_int_equal(read_source(&s), 0);
  assert_str(main_options(config)->qualify_domain, "given");
}

static void builtin_macros(void **state) {
  const struct main_options *o = good(".ifdef _OPT_MAIN_QUEUE_ONLY\nqueue_only\n.endif\n"
                                      ".ifdef _OPT_MAIN_NO_SUCH _HAVE_NO_SUCH\nfoo\n.endif\n"
                                      ".ifndef _LOG_TLS_SNI\nfoo\n.endif\n"
                                      ".ifdef _OPT_MAIN_QUEUE_ONLYX\nfoo\n.endif\n"
                                      ".ifdef _OPT_MAIN_MAX_USERNAME_LENGTH\nfoo\n.endif\n");
  assert_true(o->queue_only);
}

static void conditionals(void **state) {
  const struct main_options *o = good("AA =\n"
                                      ".ifdef BB\nfoo\n.elifdef AA\nqualify_domain = 1\n.elifndef CC\nfoo\n.else\nfoo\n.endif x\n"
                                      ".ifndef AA\n.ifdef AA\nfoo\n.else\nfoo\n.endif\nfoo\n.endif\n"
                                      ".ifdef AA\n.ifdef BB\nfoo\n.else\nqualify_recipient = 2\n.endif\n.else\nfoo\n.endif\n"
                                      ".ifdef BB CC AA\nexim_version = 3\n.endif\n");
  assert_str(o->qualify_domain, "1");
  assert_str(o->qualify_recipient, "2");
  assert_str(o->exim_version, "3");
  bad(".else", ".else without matching .ifdef");
  bad(".endif", ".endif without matching .ifdef");
  bad(".ifdef X", "Unexpected end of configuration file: .endif missing");
  bad(".ifdefx", "option setting expected: .ifdefx");
}

static void deep_conditionals_are_refused(void **state) {
  struct buf b;
  buf_init(&b, a, 1u << 20);
  for (int i = 0; i < 1000; i++)
    buf_add(&b, STR(".ifndef X\n"));
  bad(buf_str(&b).p, ".ifdef nested too deeply");
}

static void named_lists(void **state) {
  good("domainlist d = a : b\nhide hostlist h = \"x y\"\naddresslist d = c\nlocalpartlist l = +x\n");
  assert_str(config_list(config, LIST_DOMAIN, STR("d"))->value.text, "a : b");
  assert_str(config_list(config, LIST_ADDRESS, STR("d"))->value.text, "c");
  assert_true(config_list(config, LIST_HOST, STR("h"))->hide);
  assert_str(config_list(config, LIST_HOST, STR("h"))->value.text, "x y");
  assert_null(config_list(config, LIST_HOST, STR("d")));
  bad("domainlist", "unrecognized configuration line");
  bad("domainlist foo a", "missing '=' after \"foo\"");
  bad("domainlist f-oo = a", "missing '=' after \"f\"");
  bad("domainlist foo = a\ndomainlist foo = b", "duplicate name \"foo\" for a named domain list");
  bad("localpartlist foo = \"a\" b", "extra characters follow string value for foo");
}

/* --- files --- */

static const char *write_file(const char *name, const char *text) {
  struct str path = str_printf(a, "%s/%s", directory, name);
  FILE *f = fopen(path.p, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
  return path.p;
}

static int read_file(const char *paths, bool check_owner) {
  struct config_source s = {.paths = str_c(paths), .check_owner = check_owner};
  return read_source(&s);
}

static void inclusion(void **state) {
  const char *main = write_file("main", "INC = sub\n.include INC\n\t.include_if_exists /no/such/file\n"
                                        "local_interfaces = a : \\\n  .include \"sub2\"\n  c\nno_such\n");
  write_file("sub", "qualify_domain = x.example\n");
  write_file("sub2", "b : \\\n");
  assert_int_equal(read_file(main, false), OUTCOME_ERROR);
  assert_true(str_find(errors, str_printf(a, "in line 7 of %s", main)) >= 0);
  write_file("main", ".include sub\nlocal_interfaces = a : \\\n  .include \"sub2\"\n  c\n");
  assert_int_equal(read_file(main, false), 0);
  assert_str(main_options(config)->local_interfaces, "a : b : c");
  assert_str(main_options(config)->qualify_domain, "x.example");
  assert_int_equal(config->files.n, 3);
  bad(".include /no/such/file", "failed to open included configuration file /no/such/file");
  bad(".include", "file name missing after .include");
  bad(".include_if_exists some/file", ".include specifies a non-absolute path \"some/file\"");
  bad(".include /tmp", "failed to read included configuration file /tmp: Is a directory");
}

static void endless_inclusion_is_refused(void **state) {
  const char *main = write_file("loop", ".include loop\n");
  assert_int_equal(read_file(main, false), OUTCOME_ERROR);
  assert_true(str_find(errors, STR("too many .include files")) >= 0);
  main = write_file("loop2", ".include loop2\n.include loop2\n.include loop2\n");
  assert_int_equal(read_file(main, false), OUTCOME_ERROR);
}

static void first_existing_file(void **state) {
  const char *main = write_file("second", "qualify_domain = second\n");
  assert_int_equal(read_file(str_printf(a, "%s/nothing : %s", directory, main).p, false), 0);
  assert_str(main_options(config)->qualify_domain, "second");
  assert_int_equal(read_file(str_printf(a, "%s/nothing:%s/none", directory, directory).p, false), OUTCOME_ERROR);
  assert_true(str_find(errors, STR("failed to open configuration file")) >= 0);
}

static void owner_and_mode(void **state) {
  const char *main = write_file("mode", "qualify_domain = x\n");
  chmod(main, 0644);
  assert_int_equal(read_file(main, true), 0);
  chmod(main, 0646);
  assert_int_equal(read_file(main, true), OUTCOME_ERROR);
  assert_true(str_find(errors, STR("has the wrong owner, group, or mode")) >= 0);
  assert_int_equal(read_file(main, false), 0);
}

static void byte_order_mark(void **state) { bad("\xef\xbb\xbf# text\n", "in line 1 of test:\n  found unexpected BOM (Byte Order Mark)"); }

/* --- -bP --- */

static char *printed(bool admin, bool no_names, int *ret_status, size_t n, const char *const *names) {
  struct str args[8];
  char *text = NULL;
  size_t size;
  for (size_t i = 0; i < n; i++)
    args[i] = str_c(names[i]);
  struct config_print p = {.out = open_memstream(&text, &size), .admin = admin, .no_names = no_names};
  *ret_status = config_print(&p, config, args, n);
  fclose(p.out);
  return text;
}

static void print_is(bool admin, bool no_names, int status, const char *expected, size_t n, const char *const *names) {
  int got_status;
  char *text = printed(admin, no_names, &got_status, n, names);
  assert_string_equal(text, expected);
  assert_int_equal(got_status, status);
  free(text);
}
#define PRINTS(admin, no_names, status, expected, ...)                                                                 \
  print_is(admin, no_names, status, expected, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),                  \
      (const char *[]){__VA_ARGS__})

static void printing(void **state) {
  good("FOO = bar\n"
       "hide qualify_domain = secret\nno_queue_only\nkeep_malformed = 90m\ncheck_spool_space = 5\nqueue_only_load = 1.5\n"
       "delay_warning = 1h:2h\nhide domainlist dd = a\nhostlist dd = b\ntrusted_users = root\nbi_command = \"a\\tb\\nc\"\n");
  PRINTS(true, false, 0, "qualify_domain = secret\nno_queue_only\nkeep_malformed = 1h30m\ncheck_spool_space = 5K\n"
                         "queue_only_load = 1.5\ndelay_warning = 1h:2h\n",
      "qualify_domain", "queue_only", "keep_malformed", "check_spool_space", "queue_only_load", "delay_warning");
  PRINTS(true, false, 0, "trusted_users = root\nbi_command = a\\tb\\nc\n", "trusted_users", "bi_command");
  PRINTS(false, false, 0, "qualify_domain = <value not displayable>\n", "qualify_domain");
  PRINTS(true, true, 0, "secret\n1h30m\n", "qualify_domain", "keep_malformed");
  PRINTS(true, false, 0, "domainlist dd = a\nhostlist dd = b\n", "+dd");
  PRINTS(false, false, 0, "domainlist dd = <value not displayable>\nhostlist dd = b\n", "+dd");
  PRINTS(true, false, 1, "nosuch is not a known option\n", "nosuch");
  PRINTS(true, false, 1, "macro X not found\n", "macro", "X");
  PRINTS(true, false, 0, "FOO=bar\n", "macro", "FOO");
  PRINTS(false, false, 1, "", "macros");
  PRINTS(true, false, 0, "test\n", "config_file");
}

static void printing_the_text(void **state) {
  good("# c\nFOO = a\nqualify_domain = FOO.b \\\n  c\n");
  int status;
  char *text = printed(true, false, &status, 1, (const char *[]){"config"});
  char *line = strchr(text, '\n') + 1;
  assert_string_equal(line, "# 1 \"test\"\nFOO = a\nqualify_domain = a.b c\n");
  assert_memory_equal(text, "# Exim Configuration (", 22);
  free(text);
  text = printed(false, false, &status, 1, (const char *[]){"config"});
  assert_string_equal(text, "");
  free(text);
}

static int group_setup(void **state) { return mkdtemp(directory) == NULL ? -1 : 0; }

static int group_teardown(void **state) {
  static const char *const names[] = {"main", "sub", "sub2", "loop", "loop2", "second", "mode"};
  char path[200];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", directory, names[i]);
    unlink(path);
  }
  return rmdir(directory);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {
    TEST(defaults_are_valid), TEST(main_table_is_sorted), TEST(values_of_all_types), TEST(errors_of_settings),
    TEST(several_errors_are_told), TEST(off_is_no_error), TEST(offers_warn), TEST(aliases_warn), TEST(logical_lines),
    TEST(errors_name_the_last_line), TEST(macro_replacement), TEST(macro_errors), TEST(command_line_macros_win),
    TEST(builtin_macros), TEST(conditionals), TEST(deep_conditionals_are_refused), TEST(named_lists), TEST(inclusion),
    TEST(endless_inclusion_is_refused), TEST(first_existing_file), TEST(owner_and_mode), TEST(byte_order_mark),
    TEST(printing), TEST(printing_the_text),
  };
  return cmocka_run_group_tests(all, group_setup, group_teardown);
}
