#include "base/test.h"
#include "base/test_tree.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "core/ctx.h"
#include "queue/queue.h"
#include "queue/spool_internal.h"

static char root[64];
static struct arena *arena;
static struct ctx *ctx;

static int setup(void **state) {
  snprintf(root, sizeof root, "%s/spool_test.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  if (!mkdtemp(root))
    return -1;
  arena = arena_new("test");
  ctx = ctx_new(arena, NULL);
  return spool_open_root(str_c(root), *(bool *)*state, false, 0, 0);
}

static int teardown(void **state) {
  spool_fault_at(0, 0);
  spool_close();
  arena_free(arena);
  return test_tree_remove(root);
}

/* Number of files in the whole spool, less the cache of summaries. */
static int files;
static int count_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
  files += flag == FTW_F && !strstr(path, "/summary/");
  return 0;
}
static int count_files(void) {
  files = 0;
  nftw(root, count_one, 16, FTW_PHYS);
  return files;
}

static struct message *new_message(struct str queue_name, struct str body, int *ret_rc) {
  struct message *m = message_new("test");
  m->originator_login = STR("me");
  m->reverse_path = STR("s@q.test");
  m->queue_name = queue_name;
  message_add_recipient(m, STR("a@b"));
  message_add_recipient(m, STR("c@d"));
  message_add_header(m, 0, STR("Subject: x\n"));
  *ret_rc = spool_data_open(ctx, m);
  for (size_t i = 0; *ret_rc == 0 && i < body.len; i += 50000)
    *ret_rc = spool_data_write(ctx, m, str_slice(body, i, i + 50000));
  return m;
}

static struct str read_body(const struct message *m) {
  static char text[1 << 20];
  int fd = spool_open_body(ctx, m);
  assert_true(fd >= 0);
  ssize_t n = read(fd, text, sizeof text);
  assert_true(n >= 0);
  close(fd);
  return str_n(text, (size_t)n);
}

static struct str long_body(size_t n) {
  char *p = arena_bytes(arena, n);
  for (size_t i = 0; i < n; i++)
    p[i] = i % 64 == 63 ? '\n' : (char)('a' + i % 23);
  return str_n(p, n);
}

static void life(struct str queue_name, struct str body) {
  int rc;
  struct message *m = new_message(queue_name, body, &rc);
  assert_int_equal(rc, 0);
  assert_int_equal(spool_commit(ctx, m), 0);
  assert_int_equal(m->body_size, body.len);
  assert_true(str_eq(read_body(m), body));
  struct str id = str_dup(arena, str_c(m->id));
  struct message *again;
  /* A lock is held by the open file, so this very process is kept out too. */
  assert_int_equal(spool_read_message(ctx, queue_name, id, true, &again), SPOOL_LOCKED);
  struct str done[] = {STR("a@b"), STR("bad\naddress")};
  assert_int_equal(spool_journal(ctx, m, done, 2), 0);
  message_free(m);
  assert_int_equal(count_files(), 3);

  struct spool_entry *v;
  size_t n;
  assert_int_equal(spool_scan(ctx, queue_name, arena, &v, &n), 0);
  assert_int_equal(n, 1);
  assert_str(id, v[0].id);
  assert_int_equal(spool_read_message(ctx, queue_name, id, true, &m), SPOOL_OK);
  assert_true(message_is_nonrecipient(m, STR("a@b")));
  assert_false(message_is_nonrecipient(m, STR("c@d")));
  assert_int_equal(m->body_size, body.len);
  assert_true(str_eq(read_body(m), body));
  m->frozen = true;
  m->frozen_time = 5;
  assert_int_equal(spool_write_header(ctx, m, true), 0);
  assert_int_equal(count_files(), 2);
  message_free(m);
  assert_int_equal(spool_read_message(ctx, queue_name, id, false, &m), SPOOL_OK);
  assert_true(m->frozen);
  assert_true(message_is_nonrecipient(m, STR("a@b")));
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);
  assert_int_equal(count_files(), 0);
  assert_int_equal(spool_read_message(ctx, queue_name, id, true, &m), SPOOL_NOT_FOUND);
}

static void test_life(void **state) {
  life(STR_EMPTY, STR("body\n"));
  life(STR_EMPTY, STR_EMPTY);
  life(STR("named"), long_body(300000));
  life(STR("named"), long_body(SPOOL_BODY_MEMORY + 1));
}

static void test_abandon(void **state) {
  int rc;
  struct message *m = new_message(STR_EMPTY, long_body(200000), &rc);
  assert_int_equal(count_files(), 1);
  spool_abandon(ctx, m);
  assert_int_equal(count_files(), 0);
  message_free(m);
  m = new_message(STR("../x"), STR("y"), &rc);
  assert_int_equal(rc, -EINVAL);
  message_free(m);
}

/* Whichever step fails, the caller is told and nothing is left; and some step fails at first. */
static void faults_in_commit(struct str body) {
  int n = 1;
  for (;; n++) {
    int rc;
    spool_fault_at(n, ENOSPC);
    struct message *m = new_message(STR_EMPTY, body, &rc);
    if (rc == 0)
      rc = spool_commit(ctx, m);
    else
      spool_abandon(ctx, m);
    bool done = spool_fault_count() < n;
    spool_fault_at(0, 0);
    if (done) {
      assert_int_equal(rc, 0);
      assert_int_equal(spool_remove(ctx, m), 0);
      message_free(m);
      break;
    }
    assert_int_equal(rc, -ENOSPC);
    message_free(m);
    assert_int_equal(count_files(), 0);
  }
  assert_true(n > 6);
}

static void test_faults_in_commit(void **state) {
  int rc;
  /* The directories are there already: making them syncs too. */
  struct message *m = new_message(STR_EMPTY, STR("x\n"), &rc);
  spool_commit(ctx, m);
  spool_remove(ctx, m);
  message_free(m);
  faults_in_commit(STR("x\n"));
  faults_in_commit(long_body(200000));
}

/* A failing change leaves the message as it was or as it should be, never unreadable. */
static void test_faults_in_changes(void **state) {
  int rc;
  struct message *m = new_message(STR_EMPTY, STR("x\n"), &rc), *again;
  assert_int_equal(spool_commit(ctx, m), 0);
  struct str id = str_dup(arena, str_c(m->id)), done = STR("a@b");
  message_free(m);
  bool finished = false;
  for (int n = 1; !finished; n++) {
    assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_OK);
    spool_fault_at(n, EIO);
    rc = spool_journal(ctx, m, &done, 1);
    message_add_nonrecipient(m, done);
    m->frozen = true;
    if (rc == 0)
      rc = spool_write_header(ctx, m, true);
    finished = spool_fault_count() < n;
    spool_fault_at(0, 0);
    assert_int_equal(rc, finished ? 0 : -EIO);
    message_free(m);
    assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, false, &again), SPOOL_OK);
    assert_true(!again->frozen || message_is_nonrecipient(again, done));
    message_free(again);
  }
}

static void write_file(const char *name, const char *text) {
  char path[400];
  snprintf(path, sizeof path, "%s/input/%s", root, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void test_damaged(void **state) {
  int rc;
  struct message *m = new_message(STR_EMPTY, STR("x\n"), &rc);
  assert_int_equal(spool_commit(ctx, m), 0);
  char name[64];
  struct str id = str_dup(arena, str_c(m->id));
  message_free(m);
  spool_name(name, id.p, 'J');
  write_file(name, "a@b\nhalf writ");
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_OK);
  assert_true(message_is_nonrecipient(m, STR("a@b")));
  assert_false(message_is_nonrecipient(m, STR("half writ")));
  message_free(m);
  spool_name(name, id.p, 'D');
  write_file(name, "something else");
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_BAD);
  assert_true(str_starts(ctx->error, STR("Format error in spool file ")));
  spool_name(name, id.p, 'H');
  write_file(name, "");
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_BAD);
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, STR("../../../etc/passwd"), true, &m), SPOOL_NOT_FOUND);
  /* What is not a message is not in the list. */
  write_file("hdr.1xUaYw-0005ab-0n", "");
  write_file("1xUaYw-0005ab-0n-D", "");
  write_file("xUaYw-0005ab-0n-H", "");
  struct spool_entry *v;
  size_t n;
  assert_int_equal(spool_scan(ctx, STR_EMPTY, arena, &v, &n), 0);
  assert_int_equal(n, 1);
}

/* Messages of one second come in the order of their fractions, whichever process they are from. */
static void test_order_of_arrival(void **state) {
  static const char *const ids[] = {"1xUaYw-0005ab-0n", "1xUaYw-000001-1n", "1xUaYw-00000000002-0001", "1xUaYw-00000000001-0002",
      "1xUaYx-00000000000-0000"};
  struct spool_entry *v;
  size_t n;
  char name[200];
  snprintf(name, sizeof name, "%s/input", root);
  assert_int_equal(mkdir(name, 0700), 0);
  for (int i = 4; i >= 0; i--) {
    snprintf(name, sizeof name, "%s-H", ids[i]);
    write_file(name, "");
  }
  assert_int_equal(spool_scan(ctx, STR_EMPTY, arena, &v, &n), 0);
  assert_int_equal(n, 5);
  for (size_t i = 0; i < n; i++)
    assert_string_equal(v[i].id, ids[i]);
}

/* What was asked for while the queue is read is due at once, though all that was there before waits. */
static void test_load_puts_nothing_off(void **state) {
  static const char *const ids[] = {"1xUaYw-00000000001-0002", "1xUaYw-00000000002-0001"};
  char name[200];
  snprintf(name, sizeof name, "%s/input", root);
  assert_int_equal(mkdir(name, 0700), 0);
  for (int i = 0; i < 2; i++) {
    snprintf(name, sizeof name, "%s-H", ids[i]);
    write_file(name, "");
  }
  queue_add(ids[1], STR_EMPTY, 5);
  assert_int_equal(queue_load(ctx, STR_EMPTY, 0, 1, NULL, QUEUE_NEVER), 2);
  assert_int_equal(queue_count(), 2);
  assert_int_equal(queue_next_due(), 5);
  struct queue_entry *e = queue_take(5);
  assert_non_null(e);
  assert_string_equal(e->id, ids[1]);
  assert_null(queue_take(1000));
  queue_clear();
}

/* A message whose -D another process has locked as Exim does. */
static bool set_aside_whole(const char *id) {
  char name[200];
  struct stat st;
  bool split = spool_root()->split;
  for (const char *which = "DH"; *which; which++) {
    snprintf(name, sizeof name, "%s/Finput/%.1s%s%s-%c", root, split ? id + 5 : "", split ? "/" : "", id, *which);
    if (stat(name, &st))
      return false;
  }
  return true;
}

/* Whatever goes wrong, the message is whole in one of the two places. */
static void test_set_aside(void **state) {
  for (int n = 1, used = 1; n <= used + 1; n++) {
    int rc;
    struct message *m = new_message(STR_EMPTY, STR("body\n"), &rc), *again;
    assert_int_equal(rc, 0);
    assert_int_equal(spool_commit(ctx, m), 0);
    struct str id = str_dup(arena, str_c(m->id));
    spool_fault_at(n, EIO);
    rc = spool_set_aside(ctx, m);
    used = spool_fault_count();
    spool_fault_at(0, 0);
    message_free(m);
    bool waits = spool_exists(STR_EMPTY, str_dup_c(arena, id));
    assert_true(waits != set_aside_whole(str_dup_c(arena, id)));
    assert_true(rc || !waits);
    if (!waits)
      continue;
    assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &again), SPOOL_OK);
    assert_int_equal(spool_set_aside(ctx, again), 0);
    message_free(again);
    assert_true(set_aside_whole(str_dup_c(arena, id)));
  }
}

static char back_id[24];
static int back_at;

/* mv(1), for a name that is there: of two names of one file it removes the one. */
static void move_back(const char *id, char which) {
  char from[200], to[200];
  snprintf(from, sizeof from, "%s/Finput/%s-%c", root, id, which);
  snprintf(to, sizeof to, "%s/input/%s-%c", root, id, which);
  if (rename(from, to) == 0)
    (void)unlink(from);
}

static int somebody_moves_it_back(const char *operation) {
  if (--back_at == 0 && set_aside_whole(back_id)) {
    move_back(back_id, 'D');
    move_back(back_id, 'H');
  }
  return 0;
}

static void test_set_aside_and_moved_back(void **state) {
  int moved = 0, left = 0;
  for (int n = 1; left == 0; n++) {
    int rc;
    struct message *m = new_message(STR_EMPTY, STR("body\n"), &rc), *again;
    assert_int_equal(rc, 0);
    assert_int_equal(spool_commit(ctx, m), 0);
    struct str id = str_dup(arena, str_c(m->id));
    snprintf(back_id, sizeof back_id, "%s", m->id);
    back_at = n;
    spool_fault = somebody_moves_it_back;
    assert_int_equal(spool_set_aside(ctx, m), 0);
    spool_fault = NULL;
    message_free(m);
    left = back_at > 0; /* there are no more operations */
    if (set_aside_whole(back_id))
      continue;
    moved++;
    assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &again), SPOOL_OK);
    assert_int_equal(again->body_size, 5);
    message_free(again);
  }
  assert_true(moved > 0);
}

static void test_foreign_lock(void **state) {
  int rc, ready[2];
  struct message *m = new_message(STR_EMPTY, STR("x\n"), &rc);
  assert_int_equal(spool_commit(ctx, m), 0);
  struct str id = str_dup(arena, str_c(m->id));
  message_free(m);
  assert_int_equal(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    char path[300];
    snprintf(path, sizeof path, "%s/input/%.*s-D", root, STRF(id));
    int fd = open(path, O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_len = 25};
    char c = fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
    _exit(write(ready[1], &c, 1) != 1 || pause());
  }
  char c;
  assert_int_equal(read(ready[0], &c, 1), 1);
  assert_int_equal(c, 'y');
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_LOCKED);
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, false, &m), SPOOL_OK);
  message_free(m);
  kill(pid, 9);
  waitpid(pid, NULL, 0);
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_OK);
  message_free(m);
  close(ready[0]);
  close(ready[1]);
}

int main(void) {
  static bool plain = false, split = true;
#define TEST(fn, how) {#fn, fn, setup, teardown, &how}
  const struct CMUnitTest tests[] = {
    TEST(test_life, plain),          TEST(test_life, split),
    TEST(test_abandon, plain),       TEST(test_faults_in_commit, plain),
    TEST(test_faults_in_commit, split), TEST(test_faults_in_changes, plain),
    TEST(test_damaged, plain),       TEST(test_foreign_lock, plain),
    TEST(test_order_of_arrival, plain), TEST(test_load_puts_nothing_off, plain), TEST(test_set_aside, plain), TEST(test_set_aside_and_moved_back, plain),
    TEST(test_set_aside, split),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
