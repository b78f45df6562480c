#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/test.h"
#include "base/test_tree.h"
#include "hints/records.h"

static char spool[] = "/tmp/hints_test_XXXXXX";

static int setup(void **state) {
  assert_non_null(mkdtemp(spool));
  assert_int_equal(hints_open_directory(str_c(spool)), OUTCOME_OK);
  return 0;
}

static int teardown(void **state) {
  hints_close();
  return test_tree_remove(spool);
}

static void test_records(void **state) {
  struct arena *a = arena_new("test");
  struct str v;
  assert_int_equal(hints_get(NULL, "misc", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_put(NULL, "misc", STR("a"), STR("one")), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "misc", STR("a"), a, &v), OUTCOME_OK);
  assert_str(v, "one");
  assert_true(str_is_tainted(v));
  assert_int_equal(hints_get(NULL, "other", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_put(NULL, "misc", STR("a"), STR_EMPTY), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "misc", STR("a"), a, &v), OUTCOME_OK);
  assert_str(v, "");
  assert_int_equal(hints_delete(NULL, "misc", STR("a")), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "misc", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_delete(NULL, "misc", STR("a")), OUTCOME_OK);
  arena_free(a);
}

/* Removing the file that bears a database's name empties it, and only it. */
static void test_removed(void **state) {
  struct arena *a = arena_new("test");
  struct str v;
  char path[200];
  snprintf(path, sizeof path, "%s/db/first", spool);
  assert_int_equal(hints_get(NULL, "first", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(access(path, F_OK), -1); /* looking makes none */
  assert_int_equal(hints_put(NULL, "first", STR("a"), STR("one")), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "second", STR("a"), STR("two")), OUTCOME_OK);
  assert_int_equal(unlink(path), 0);
  for (int i = 0; i < 5000 && hints_get(NULL, "first", STR("a"), a, &v) == OUTCOME_OK; i++)
    usleep(1000); /* a reader does not look for the mark each time */
  assert_int_equal(hints_get(NULL, "first", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_get(NULL, "second", STR("a"), a, &v), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "first", STR("b"), STR("one")), OUTCOME_OK);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(hints_put(NULL, "first", STR("c"), STR("one")), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "first", STR("b"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_get(NULL, "first", STR("c"), a, &v), OUTCOME_OK);
  arena_free(a);
}

static void test_counts(void **state) {
  struct arena *a = arena_new("test");
  struct str v;
  assert_true(hint_count_enter(NULL, STR("k"), 2));
  assert_true(hint_count_enter(NULL, STR("k"), 2));
  assert_false(hint_count_enter(NULL, STR("k"), 2));
  assert_true(hint_count_enter(NULL, STR("other"), 1));
  hint_count_leave(NULL, STR("k"));
  assert_true(hint_count_enter(NULL, STR("k"), 2));
  hint_count_leave(NULL, STR("k"));
  hint_count_leave(NULL, STR("k"));
  assert_int_equal(hints_get(NULL, "misc", STR("k"), a, &v), OUTCOME_FAIL);
  hint_count_leave(NULL, STR("other"));
  /* What was left behind long ago does not count. */
  assert_int_equal(hints_put(NULL, "misc", STR("k"), STR("7 1000000")), OUTCOME_OK);
  assert_true(hint_count_enter(NULL, STR("k"), 1));
  assert_false(hint_count_enter(NULL, STR("k"), 1));
  hint_count_leave(NULL, STR("k"));
  arena_free(a);
}

static bool collect(struct str key, struct str value, void *arg) {
  struct buf *b = arg;
  buf_printf(b, "%u/%.*s;", key.len, STRF(value));
  return true;
}

static void test_long_keys(void **state) {
  struct arena *a = arena_new("test");
  char *p = arena_bytes(a, 2000);
  memset(p, 'k', 2000);
  struct str v, first = str_n(p, 1999), second = str_n(p, 2000);
  assert_int_equal(hints_put(NULL, "long", first, STR("1")), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "long", second, STR("2")), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "long", STR_EMPTY, STR("0")), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "long", first, a, &v), OUTCOME_OK);
  assert_str(v, "1");
  assert_int_equal(hints_get(NULL, "long", STR_EMPTY, a, &v), OUTCOME_OK);
  assert_str(v, "0");
  struct buf b;
  buf_init(&b, a, 1000);
  assert_int_equal(hints_each(NULL, "long", collect, &b), OUTCOME_OK);
  struct str all = buf_str(&b);
  assert_true(str_find(all, STR("1999/1;")) >= 0 && str_find(all, STR("2000/2;")) >= 0);
  arena_free(a);
}

static int increment(struct arena *a, struct str *value, void *arg) {
  int64_t n = 0;
  if (str_is_set(*value))
    assert_true(str_to_i64(*value, &n));
  *value = str_printf(a, "%d", (int)n + 1);
  return 1;
}

/* Several processes count in one record: no update is lost. */
static void test_processes(void **state) {
  enum { CHILDREN = 4, TIMES = 50 };
  for (int i = 0; i < CHILDREN; i++) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      int bad = hints_open_directory(str_c(spool)) != OUTCOME_OK;
      for (int k = 0; k < TIMES && !bad; k++)
        bad = hints_update(NULL, "count", STR("n"), increment, NULL) != OUTCOME_OK;
      _exit(bad);
    }
  }
  for (int i = 0; i < CHILDREN; i++) {
    int status;
    assert_true(wait(&status) > 0);
    assert_int_equal(status, 0);
  }
  struct arena *a = arena_new("test");
  struct str v;
  assert_int_equal(hints_get(NULL, "count", STR("n"), a, &v), OUTCOME_OK);
  assert_str(v, "200");
  arena_free(a);
}

static void write_line(struct str line, void *arg) { buf_add(arg, line); }

static void test_dump(void **state) {
  struct arena *a = arena_new("test");
  struct hint_retry r = {-22, 77, 814968879, 814968879 + 60, 814968879 + 600, true, STR("mailbox is full")}, back;
  assert_true(hint_retry_decode(hint_retry_encode(a, &r), &back));
  assert_str(back.text, "mailbox is full");
  assert_int_equal(back.next_try, r.next_try);
  assert_false(hint_retry_decode(STR("1 2 3"), &back));
  assert_int_equal(hints_put(NULL, "retry", STR("T:a@b"), hint_retry_encode(a, &r)), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "retry", STR("bad"), STR("x")), OUTCOME_OK);
  struct buf b;
  buf_init(&b, a, 10000);
  struct hints_dump_options o = {.utc = true};
  assert_int_equal(hints_dump(NULL, "retry", &o, write_line, &b), OUTCOME_OK);
  assert_str(buf_str(&b), "  T:a@b -22 77 mailbox is full\n"
                          "29-Oct-1995 12:14:39  29-Oct-1995 12:15:39  29-Oct-1995 12:24:39 *\n");
  struct hint_callout k = {.is_domain = true, .result = HINT_ACCEPT, .random = HINT_REJECT, .random_stamp = 814968879}, back2;
  assert_true(hint_callout_decode(hint_callout_encode(a, &k), &back2));
  assert_int_equal(back2.random, HINT_REJECT);
  assert_false(hint_callout_decode(STR("1 99 0 0 0 0 0"), &back2));
  assert_int_equal(hints_put(NULL, "callout", STR("b.ex"), hint_callout_encode(a, &k)), OUTCOME_OK);
  buf_truncate(&b, 0);
  assert_int_equal(hints_dump(NULL, "callout", &o, write_line, &b), OUTCOME_OK);
  assert_true(str_ends(buf_str(&b), STR(" b.ex callout=accept postmaster=unknown random=reject (29-Oct-1995 12:14:39)\n")));
  arena_free(a);
}

static bool exists(struct str id, void *arg) { return str_starts(id, STR("1HERE1-")); }

static bool add_key(struct str key, struct str value, void *arg) {
  buf_printf(arg, "%.*s;", STRF(key));
  return true;
}

static void test_tidy(void **state) {
  struct arena *a = arena_new("test");
  struct str v;
  assert_int_equal(hints_put(NULL, "wait-smtp", STR("h 1HERE1-000000001bo-D342"), STR_EMPTY), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "wait-smtp", STR("h 1HERE1-000000002bo-D342"), STR_EMPTY), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "wait-smtp", STR("h 1GONE1-000000001bo-D342"), STR_EMPTY), OUTCOME_OK);
  assert_int_equal(hints_put(NULL, "wait-smtp", STR("i 1HERE1-000000001bo-D342"), STR_EMPTY), OUTCOME_OK);
  struct buf b;
  buf_init(&b, a, 10000);
  assert_int_equal(hints_tidy(NULL, "wait-smtp", 1000, exists, write_line, &b), OUTCOME_OK);
  assert_str(buf_str(&b), "deleted h 1GONE1-000000001bo-D342 (no message)\n");
  struct hints_dump_options o = {.utc = true};
  buf_truncate(&b, 0);
  assert_int_equal(hints_dump(NULL, "wait-smtp", &o, write_line, &b), OUTCOME_OK);
  assert_str(buf_str(&b), "h 1HERE1-000000001bo-D342 1HERE1-000000002bo-D342\ni 1HERE1-000000001bo-D342\n");
  buf_truncate(&b, 0);
  assert_int_equal(hints_each_from(NULL, "wait-smtp", STR("h 1HERE1-000000002"), add_key, &b), OUTCOME_OK);
  assert_str(buf_str(&b), "h 1HERE1-000000002bo-D342;i 1HERE1-000000001bo-D342;");
  assert_int_equal(hints_tidy(NULL, "wait-smtp", -10, exists, write_line, &b), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "wait-smtp", STR("h 1HERE1-000000001bo-D342"), a, &v), OUTCOME_FAIL);
  arena_free(a);
}

/* A damaged file is replaced by an empty store. */
static void test_damaged(void **state) {
  struct arena *a = arena_new("test");
  struct str v, path = str_printf(a, "%s/db/data.mdb", spool);
  assert_int_equal(hints_put(NULL, "misc", STR("a"), STR("one")), OUTCOME_OK);
  hints_close();
  FILE *f = fopen(path.p, "w");
  for (int i = 0; i < 20000; i++)
    fputc(i * 7, f);
  fclose(f);
  assert_int_equal(hints_open_directory(str_c(spool)), OUTCOME_OK);
  assert_int_equal(hints_get(NULL, "misc", STR("a"), a, &v), OUTCOME_FAIL);
  assert_int_equal(hints_put(NULL, "misc", STR("a"), STR("two")), OUTCOME_OK);
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_records), cmocka_unit_test(test_removed), cmocka_unit_test(test_counts),
      cmocka_unit_test(test_long_keys), cmocka_unit_test(test_processes),
    cmocka_unit_test(test_dump), cmocka_unit_test(test_tidy), cmocka_unit_test(test_damaged),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
