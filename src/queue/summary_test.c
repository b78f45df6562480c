#include "queue/test_spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include "expand/expand.h"
#include "queue/list.h"
#include "queue/summary.h"

static int setup(void **state) { return test_spool_open("summary_test"); }

static struct message *make(const char *recipient) {
  struct message *m = message_new("test");
  m->originator_login = STR("user");
  m->originator_uid = 77;
  m->reverse_path = STR("s@q.test");
  m->reverse_path_set_untrusted = true;
  m->received_time.tv_sec = time(NULL) - 25 * 60;
  message_add_recipient(m, str_c(recipient));
  message_add_recipient(m, STR("c@d"));
  message_add_nonrecipient(m, STR("c@d"));
  message_add_header(m, 0, STR("Subject: x\n"));
  assert_int_equal(spool_data_open(ctx, m), 0);
  assert_int_equal(spool_data_write(ctx, m, STR("line\n")), 0);
  assert_int_equal(spool_commit(ctx, m), 0);
  return m;
}

static char *path_of(const char *format, const char *id) {
  struct str s = str_printf(arena, "%s/", root);
  s = str_printf(arena, "%.*s%s", STRF(s), format);
  return str_dup_c(arena, str_printf(arena, "%.*s%s", STRF(s), id));
}

static ino_t inode_of(const char *id) {
  struct stat st;
  assert_int_equal(stat(str_dup_c(arena, str_printf(arena, "%s-H", path_of("input/", id))), &st), 0);
  return st.st_ino;
}

static off_t size_of_file(void) {
  struct stat st;
  assert_int_equal(stat(path_of("summary/messages", ""), &st), 0);
  return st.st_size;
}

static void test_record(void **state) {
  struct message *m = make("a@b");
  struct summary s;
  struct summary_recipient r;
  struct summaries *all = summaries_load(arena, STR_EMPTY);
  assert_true(summaries_find(all, m->id, inode_of(m->id), &s));
  assert_true(str_eq_c(s.id, m->id));
  assert_true(str_eq_c(s.sender, "s@q.test"));
  assert_true(str_is_tainted(s.sender));
  assert_true(str_eq_c(s.login, "user"));
  assert_int_equal(s.uid, 77);
  assert_int_equal(s.received, m->received_time.tv_sec);
  assert_int_equal(s.size, 5 + 11);
  assert_false(s.frozen);
  assert_false(s.generated);
  assert_true(summary_next_recipient(&s, &r));
  assert_true(str_eq_c(r.address, "a@b") && !r.done);
  assert_true(summary_next_recipient(&s, &r));
  assert_true(str_eq_c(r.address, "c@d") && r.done);
  assert_false(summary_next_recipient(&s, &r));
  /* Of another file under that name nothing is known. */
  assert_false(summaries_find(all, m->id, inode_of(m->id) + 1, &s));
  assert_false(summaries_find(all, "1vABCD-00000000000-0000", 1, &s));
  m->frozen = true;
  message_add_nonrecipient(m, STR("child@d"));
  assert_int_equal(spool_write_header(ctx, m, false), 0);
  all = summaries_load(arena, STR_EMPTY);
  assert_true(summaries_find(all, m->id, inode_of(m->id), &s));
  assert_true(s.frozen && s.generated);
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);
}

/* An address that would break the lines has no record; half a record is none and spoils no other. */
static void test_odd(void **state) {
  struct message *m = make("\"a\tb\"@c"), *n;
  struct summary s;
  assert_false(summaries_find(summaries_load(arena, STR_EMPTY), m->id, inode_of(m->id), &s));
  int fd = open(path_of("summary/messages", ""), O_WRONLY | O_CREAT | O_APPEND, 0600);
  assert_true(fd >= 0);
  struct str half = str_printf(arena, "\n%s\t%llu\t1\t2\t3\t---\t\ts@q\t1\t a@", m->id, (unsigned long long)inode_of(m->id));
  assert_int_equal(write(fd, half.p, half.len), half.len);
  close(fd);
  assert_false(summaries_find(summaries_load(arena, STR_EMPTY), m->id, inode_of(m->id), &s));
  n = make("x@y");
  struct summaries *all = summaries_load(arena, STR_EMPTY);
  assert_false(summaries_find(all, m->id, inode_of(m->id), &s));
  assert_true(summaries_find(all, n->id, inode_of(n->id), &s));
  assert_int_equal(spool_remove(ctx, m), 0);
  assert_int_equal(spool_remove(ctx, n), 0);
  message_free(m);
  message_free(n);
}

/* It does not grow without end, and what is there stays known. */
static void test_growth(void **state) {
  struct message *m = make("a@b");
  struct summary s;
  struct summaries *all = summaries_load(arena, STR_EMPTY);
  off_t most = 0;
  for (int i = 0; i < 20; i++) {
    for (int k = 0; k < 10000; k++)
      summaries_add(all, m, inode_of(m->id));
    summaries_save(all);
    if (size_of_file() > most)
      most = size_of_file();
  }
  assert_true(most < 8 << 20);
  assert_true(size_of_file() < most);
  assert_true(summaries_find(summaries_load(arena, STR_EMPTY), m->id, inode_of(m->id), &s));
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);
}

/* The same text from the files and from what is known. */
static void test_list(void **state) {
  struct message *m[60];
  char *text[2];
  size_t len;
  struct queue_list l = {.queue_name = STR_EMPTY};
  for (int i = 0; i < 60; i++)
    m[i] = make("a@b");
  for (int i = 0; i < 2; i++) {
    FILE *out = open_memstream(&text[i], &len);
    assert_int_equal(queue_list(ctx, &l, out), 0);
    fclose(out);
    assert_true(len > 60 * 50);
    if (i == 0)
      assert_int_equal(unlink(path_of("summary/messages", "")), 0);
  }
  assert_string_equal(text[0], text[1]);
  struct summary s;
  assert_true(summaries_find(summaries_load(arena, STR_EMPTY), m[7]->id, inode_of(m[7]->id), &s)); /* kept by the second */
  for (int i = 0; i < 60; i++) {
    assert_int_equal(spool_remove(ctx, m[i]), 0);
    message_free(m[i]);
  }
  free(text[0]);
  free(text[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_record), cmocka_unit_test(test_odd), cmocka_unit_test(test_growth),
    cmocka_unit_test(test_list)};
  return cmocka_run_group_tests(tests, setup, test_spool_remove);
}
