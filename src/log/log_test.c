#include "log/log.h"
#include "log/mask.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/test.h"
#include "config/config.h"
#include "core/main_options.h"
#include "log/files.h"
#include "log/select.h"
#include "log/syslog.h"
#include "message/message.h"

static struct arena *a;
static char directory[] = "/tmp/log_test.XXXXXX";
static char last_line[65536 + 100];
static unsigned last_logs, n_lines;

static void tap(unsigned logs, struct str line, void *arg) {
  last_logs = logs;
  n_lines++;
  snprintf(last_line, sizeof last_line, "%.*s", STRF(line));
}

static struct str path_of(const char *name) { return str_printf(a, "%s/%s", directory, name); }

static int setup(void **state) {
  a = arena_new("test");
  n_lines = 0;
  last_line[0] = 0;
  log_tap(tap, NULL);
  return 0;
}

static int teardown(void **state) {
  log_done();
  log_tap(NULL, NULL);
  log_set_echo(LOG_ECHO_NONE);
  log_set_stderr(false);
  log_syslog_tap(NULL);
  debug_mask = 0;
  unlink(path_of("main.log").p);
  unlink(path_of("reject.log").p);
  unlink(path_of("panic.log").p);
  arena_free(a);
  return 0;
}

/* Starts the logs with these main options, and the files in our directory unless they say otherwise. */
static void start(const char *options) {
  struct config_source s = {.paths = STR("test")};
  struct config *c;
  struct str errors;
  s.text = str_printf(a, "%s%s%s%s", strstr(options, "log_file_path") != NULL ? "" : "log_file_path = ",
      strstr(options, "log_file_path") != NULL ? "" : directory,
      strstr(options, "log_file_path") != NULL ? "" : "/%s.log\n", options);
  if (config_read(&s, a, &c, &errors) != 0)
    fail_msg("%.*s", STRF(errors));
  log_init(c);
}

/* The content of a log; it is removed then. */
static struct str take(const char *name) {
  FILE *f = fopen(path_of(name).p, "r");
  if (f == NULL)
    return STR_UNSET;
  char *text = arena_bytes(a, 200000);
  size_t n = fread(text, 1, 200000, f);
  fclose(f);
  unlink(path_of(name).p);
  return str_n(text, n);
}

/* Behind the time stamp "2001-09-16 16:09:47 ". */
static struct str unstamped(struct str s) {
  assert_true(s.len > 20);
  assert_int_equal(s.p[4], '-');
  assert_int_equal(s.p[19], ' ');
  return str_from(s, 20);
}

static void lines_go_where_they_belong(void **state) {
  start("");
  log_write(LOG_MAIN, NULL, "one %d", 1);
  assert_int_equal(last_logs, LOG_MAIN);
  log_write(LOG_MAIN | LOG_REJECT, NULL, "two");
  log_write(LOG_MAIN | LOG_PANIC, NULL, "three\n");
  struct str main = take("main.log");
  assert_str(unstamped(main), str_printf(a, "one 1\n%.20stwo\n%.20sthree\n", main.p, main.p).p);
  assert_str(unstamped(take("reject.log")), "two\n");
  assert_str(unstamped(take("panic.log")), "three\n");
}

static void message_id_and_pid(void **state) {
  start("log_selector = +pid\n");
  struct message m = {.id = "16VDhn-000000001bo-D342"};
  log_write(LOG_MAIN, &m, "<= x@y");
  assert_str(unstamped(take("main.log")), str_printf(a, "[%d] 16VDhn-000000001bo-D342 <= x@y\n", (int)getpid()).p);
}

static void stamps(void **state) {
  start("timezone = UTC\nlog_timezone\nlog_selector = +millisec\n");
  struct str stamp = log_stamp(a);
  assert_int_equal(stamp.len, strlen("2001-09-16 16:09:47.123 +0000"));
  assert_int_equal(stamp.p[19], '.');
  assert_true(str_ends(stamp, STR(" +0000")));
  log_done();
  start("timezone = Asia/Kolkata\nlog_timezone\n");
  stamp = log_stamp(a);
  assert_true(str_ends(stamp, STR(" +0530")));
  unsetenv("TZ");
  tzset();
}

static void reject_extra_lines(void **state) {
  start("");
  log_write_reject(NULL, STR("rejected"), STR("Envelope-from: <a@b>\nF From: x\n"));
  assert_str(unstamped(take("main.log")), "rejected\n");
  assert_str(unstamped(take("reject.log")), "rejected\nEnvelope-from: <a@b>\nF From: x\n");
  log_done();
  start("log_selector = -rejected_header\n");
  log_write_reject(NULL, STR("rejected"), STR("Envelope-from: <a@b>\n"));
  assert_str(unstamped(take("reject.log")), "rejected\n");
  log_done();
  start("no_write_rejectlog\n");
  log_write_reject(NULL, STR("rejected"), STR_EMPTY);
  assert_false(str_is_set(take("reject.log")));
}

static void rotation_is_noticed(void **state) {
  start("");
  log_write(LOG_MAIN, NULL, "one");
  assert_int_equal(rename(path_of("main.log").p, path_of("main.1").p), 0);
  log_write(LOG_MAIN, NULL, "two");
  assert_str(unstamped(take("main.1")), "one\n");
  assert_str(unstamped(take("main.log")), "two\n");
}

static void mode_and_directory(void **state) {
  struct stat st;
  start(str_printf(a, "log_file_path = %s/sub/%%slog\n", directory).p);
  umask(0);
  log_write(LOG_MAIN, NULL, "one");
  umask(022);
  assert_int_equal(stat(path_of("sub/mainlog").p, &st), 0);
  assert_int_equal(st.st_mode & 07777, 0640);
  assert_str(unstamped(take("sub/mainlog")), "one\n");
  assert_int_equal(rmdir(path_of("sub").p), 0);
}

static void names(void **state) {
  static const struct {
    const char *path, *main, *panic;
  } cases[] = {
    {"/log/%slog", "/log/mainlog", "/log/paniclog"},
    {"/log/%slog-%D", "/log/mainlog-20031225", "/log/paniclog"},
    {"/log/exim-%s-%D.log", "/log/exim-main-20031225.log", "/log/exim-panic.log"},
    {"/log/%D-%slog", "/log/20031225-mainlog", "/log/paniclog"},
    {"/log/%s.%M", "/log/main.200312", "/log/panic"},
  };
  const struct tm tm = {.tm_year = 103, .tm_mon = 11, .tm_mday = 25};
  char name[100];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct log_paths p = {.file = arena_strdup(a, cases[i].path)};
    assert_int_equal(log_file_name(&p, LOG_KIND_MAIN, &tm, name, sizeof name), 0);
    assert_string_equal(name, cases[i].main);
    assert_int_equal(log_file_name(&p, LOG_KIND_PANIC, &tm, name, sizeof name), 0);
    assert_string_equal(name, cases[i].panic);
    assert_int_equal(log_file_name(&p, LOG_KIND_MAIN, &tm, name, 12), -1);
  }
}

static void path_lists(void **state) {
  static const struct {
    const char *list, *file;
    bool syslog, too_many;
  } cases[] = {
    {NULL, "built", false, false},   {"", "built", false, false},
    {"syslog", NULL, true, false},   {":syslog", "built", true, false},
    {"syslog : /x", "/x", true, false}, {"/x : syslog", "/x", true, false},
    {"/x", "/x", false, false},      {"/x:/y", "/x", false, true},
    {"/x:", "/x", false, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct log_paths p;
    log_paths_parse(a, str_c(cases[i].list), STR("built"), &p);
    if (cases[i].file == NULL)
      assert_null(p.file);
    else
      assert_string_equal(p.file, cases[i].file);
    assert_int_equal(p.syslog, cases[i].syslog);
    assert_int_equal(p.too_many, cases[i].too_many);
  }
}

static void printable(void **state) {
  static const char raw[] = "a\tb\nc\rd\001\177\xe9\0z\\";
  start("");
  struct str s = log_printable(a, str_tainted(str_n(raw, sizeof raw - 1)));
  assert_str(s, "a\tb\\nc\\rd\\001\\177\\351\\000z\\");
  assert_true(str_is_tainted(s));
  struct str plain = STR("plain");
  assert_ptr_equal(log_printable(a, plain).p, plain.p);
  log_done();
  start("print_topbitchars\n");
  assert_str(log_printable(a, STR("\xe9\n")), "\xe9\\n");
}

static void lines_cannot_be_forged(void **state) {
  start("");
  log_write(LOG_MAIN, NULL, "from %s done\n", "x\n2001-09-16 16:09:47 <= forged\r\033[2J");
  assert_str(unstamped(take("main.log")), "from x\\n2001-09-16 16:09:47 <= forged\\015\\033[2J done\n");
  log_write(LOG_MAIN, NULL, "error in line 1:\n  reason");
  assert_str(unstamped(take("main.log")), "error in line 1:\n  reason\n");
}

static void passwords_are_masked(void **state) {
  static const struct {
    const char *text, *want;
  } cases[] = {
    {"nothing here", NULL},
    {"a pass=x", NULL},
    {" pass=x y", " pass=*** y"},
    {"bypass=x ldap", NULL},
    {"user=cn=a pass=x ldap:///o=b", "user=cn=a pass=*** ldap:///o=b"},
    {"lookup of \"PASS=x ldap:///\"", "lookup of \"PASS=*** ldap:///\""},
    {"{ldap{pass=\"a \\\" b\" user=c}}", "{ldap{pass=*** user=c}}"},
    {"{ldap{pass=\"\" ldap:}}", "{ldap{pass=*** ldap:}}"},
    {"\"user=a pass=\\\"b c\\\" ldap:\"", "\"user=a pass=*** ldap:\""},
    {"user=a pass=", NULL},
    {"user=a pass=\"open ldap", "user=a pass=***"},
    {"servers=h::1/d/u/p:h2/d/u/p; select 1", "servers=h::1/***; select 1"},
    {"${lookup pgsql,servers=h/d/u/p,cache=no_rd{select 1}}", "${lookup pgsql,servers=h/***{select 1}}"},
    {"{servers = (/a/b)/d/u/p ; x}", "{servers = (/a/b)/***; x}"},
    {"servers=h;select 1/2", NULL},
    {"servers=/sock ldap:///o=b;x", NULL},
    {"mysql_servers=a/b;", NULL},
    {"servers", NULL},
    {"servers=", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_str(log_masked(a, str_c(cases[i].text)), cases[i].want ? cases[i].want : cases[i].text);
}

static void long_lines_are_cut(void **state) {
  start("");
  char *text = xmalloc(100001);
  memset(text, 'x', 100000);
  text[100000] = 0;
  log_write(LOG_MAIN, NULL, "%s", text);
  struct str line = take("main.log");
  assert_true(line.len < 66000);
  assert_true(str_ends(line, STR("x (line too long: cut)\n")));
  text[3000] = 0;
  log_write(LOG_MAIN, NULL, "%s", text);
  assert_int_equal(unstamped(take("main.log")).len, 3001);
  free(text);
}

static char syslog_lines[20][1000];
static int syslog_priorities[20];
static size_t n_syslog;

static void syslog_tap(int priority, struct str line) {
  if (n_syslog == 20)
    return;
  syslog_priorities[n_syslog] = priority;
  snprintf(syslog_lines[n_syslog++], sizeof *syslog_lines, "%.*s", STRF(line));
}

static void to_syslog(void **state) {
  n_syslog = 0;
  log_syslog_tap(syslog_tap);
  start("log_file_path = syslog\nno_syslog_timestamp\nno_syslog_pid\nlog_selector = +pid\n");
  log_write(LOG_MAIN, NULL, "one");
  log_write_reject(NULL, STR("two"), STR("E\nF\n"));
  assert_int_equal(n_syslog, 5);
  assert_string_equal(syslog_lines[0], "one");
  assert_int_equal(syslog_priorities[0], LOG_INFO);
  assert_string_equal(syslog_lines[1], "two");
  assert_string_equal(syslog_lines[2], "[1\\3] two");
  assert_string_equal(syslog_lines[3], "[2\\3] E");
  assert_string_equal(syslog_lines[4], "[3/3] F");
  assert_int_equal(syslog_priorities[2], LOG_NOTICE);
  log_done();
  n_syslog = 0;
  start("log_file_path = syslog\nno_syslog_duplication\n");
  log_write(LOG_MAIN | LOG_PANIC, NULL, "one");
  assert_int_equal(n_syslog, 1);
  assert_int_equal(syslog_priorities[0], LOG_ALERT);
  assert_string_equal(syslog_lines[0] + 20, "one");
}

static void syslog_splits_long_lines(void **state) {
  char text[2001];
  memset(text, 'y', 2000);
  text[2000] = 0;
  n_syslog = 0;
  log_syslog_tap(syslog_tap);
  log_syslog_write(LOG_INFO, str_n(text, 2000));
  assert_int_equal(n_syslog, 3);
  assert_memory_equal(syslog_lines[0], "[1/3] yyy", 9);
  assert_int_equal(strlen(syslog_lines[0]), 876);
  assert_int_equal(strlen(syslog_lines[2]), 266);
  n_syslog = 0;
  log_syslog_write(LOG_INFO, str_n(text, 870));
  assert_int_equal(n_syslog, 1);
  assert_int_equal(strlen(syslog_lines[0]), 870);
}

static void facilities(void **state) {
  assert_int_equal(log_syslog_facility(STR("mail")), LOG_MAIL);
  assert_int_equal(log_syslog_facility(STR("LOCAL7")), LOG_LOCAL7);
  assert_int_equal(log_syslog_facility(STR("local8")), -1);
}

/* stderr of what fn does in a child process. */
static struct str stderr_of(void (*fn)(void), int *ret_status) {
  int fds[2];
  assert_int_equal(pipe(fds), 0);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(fds[1], STDERR_FILENO);
    fn();
    _exit(0);
  }
  close(fds[1]);
  char *text = arena_bytes(a, 10000);
  size_t n = 0;
  for (ssize_t r; n < 10000 && (r = read(fds[0], text + n, 10000 - n)) > 0;)
    n += (size_t)r;
  close(fds[0]);
  waitpid(pid, ret_status, 0);
  return str_n(text, n);
}

static void write_panic_die(void) {
  log_set_stderr(true);
  log_write(LOG_PANIC_DIE, NULL, "the end");
}

static void panic_die_ends_the_process(void **state) {
  int status;
  start("");
  struct str text = stderr_of(write_panic_die, &status);
  assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
  assert_str(unstamped(text), "the end\n");
  assert_str(unstamped(take("panic.log")), "the end\n");
  assert_false(str_is_set(take("main.log")));
}

static void write_echoes(void) {
  log_set_echo(LOG_ECHO_VERBOSE);
  log_write(LOG_MAIN | LOG_REJECT, NULL, "one");
  log_set_echo(LOG_ECHO_HOST_CHECK);
  log_write(LOG_MAIN, NULL, "two");
  log_set_echo(LOG_ECHO_TESTING);
  log_write(LOG_PANIC, NULL, "three");
  log_set_echo(LOG_ECHO_NONE);
  log_write(LOG_PANIC, NULL, "four");
}

static void echoes(void **state) {
  int status;
  start("");
  assert_str(stderr_of(write_echoes, &status), "LOG: MAIN REJECT\n  one\nLOG: two\nLOG: PANIC\n  three\n");
  assert_str(unstamped(take("main.log")), "one\n");
  assert_str(unstamped(take("reject.log")), "one\n");
  assert_str(unstamped(take("panic.log")), "four\n");
}

static void write_one(void) { log_write(LOG_MAIN, NULL, "precious"); }

static void unwritable_main_log(void **state) {
  int status;
  mkdir(path_of("main.log").p, 0700); /* a directory cannot be opened for writing, not even by root */
  start("");
  (void)stderr_of(write_one, &status);
  rmdir(path_of("main.log").p);
  struct str panic = take("panic.log");
  assert_true(str_find(panic, STR(" precious\n")) >= 0);
  assert_true(str_find(panic, STR("Cannot open main log file \"")) >= 0);
}

static void nothing_can_be_written(void **state) {
  int status;
  n_syslog = 0;
  start("log_file_path = /proc/nonexistent/%slog\n");
  struct str text = stderr_of(write_one, &status);
  assert_true(str_find(text, STR(" precious\n")) >= 0);
  assert_true(str_find(text, STR("Cannot open main log file \"/proc/nonexistent/mainlog\": ")) >= 0);
  assert_true(str_find(text, STR("could not open panic log")) >= 0);
}

static void selections(void **state) {
  uint64_t mask = log_selector_defaults();
  struct str error;
  const struct select_name *n = log_selector_names();
  assert_int_equal(select_parse(a, STR("+pid -queue_run"), n, "log_selector", &mask, &error), 0);
  assert_true(mask >> LOGSEL_pid & 1);
  assert_false(mask >> LOGSEL_queue_run & 1);
  assert_true(mask >> LOGSEL_etrn & 1);
  assert_int_equal(select_parse(a, STR("-all+subject"), n, "log_selector", &mask, &error), 0);
  assert_int_equal(mask, 1ull << LOGSEL_subject);
  assert_int_equal(select_parse(a, STR("=0x11"), n, "log_selector", &mask, &error), 0);
  assert_int_equal(mask, 17);
  assert_int_equal(select_parse(a, STR("+pid,+subject"), n, "log_selector", &mask, &error), -1);
  assert_str(error, "malformed log_selector setting: + or - expected but found \",+subject\"");
  assert_int_equal(select_parse(a, STR("=x"), n, "log_selector", &mask, &error), -1);
  start("log_selector = +subject -etrn\n");
  assert_true(log_selected(LOGSEL_subject));
  assert_false(log_selected(LOGSEL_etrn));
  assert_true(log_selected_name(STR("queue_run")));
  assert_false(log_selected_name(STR("no_such_selector")));
}

static void debug_selections(void **state) {
  assert_int_equal(debug_set(STR("")), 0);
  assert_true(debug_on(DEBUG_acl));
  assert_false(debug_on(DEBUG_expand));
  assert_int_equal(debug_set(STR("+all-acl")), 0);
  assert_true(debug_on(DEBUG_expand));
  assert_false(debug_on(DEBUG_acl));
  assert_false(debug_on(DEBUG_memory));
  assert_int_equal(debug_set(STR("-all+memory")), 0);
  assert_int_equal(debug_mask, 1ull << DEBUG_memory);
  struct str error;
  assert_int_equal(debug_parse(a, STR("+foo"), &error), -1);
  assert_str(error, "unknown debug_selector setting: +foo");
  assert_int_equal(debug_mask, 1ull << DEBUG_memory);
}

static void write_debug(void) {
  debug_mask = 1ull << DEBUG_acl;
  DEBUG(acl, "checking %s\n", "x");
  DEBUG(route, "never\n");
}

static void debug_output(void **state) {
  int status;
  assert_str(stderr_of(write_debug, &status), "checking x\n");
}

static int group_setup(void **state) { return mkdtemp(directory) == NULL ? -1 : 0; }

static int group_teardown(void **state) { return rmdir(directory); }

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {
    TEST(lines_go_where_they_belong), TEST(message_id_and_pid), TEST(stamps), TEST(reject_extra_lines),
    TEST(rotation_is_noticed), TEST(mode_and_directory), TEST(names), TEST(path_lists), TEST(printable),
    TEST(lines_cannot_be_forged), TEST(passwords_are_masked), TEST(long_lines_are_cut), TEST(to_syslog), TEST(syslog_splits_long_lines),
    TEST(facilities), TEST(panic_die_ends_the_process), TEST(echoes), TEST(unwritable_main_log),
    TEST(nothing_can_be_written), TEST(selections), TEST(debug_selections), TEST(debug_output),
  };
  return cmocka_run_group_tests(all, group_setup, group_teardown);
}
