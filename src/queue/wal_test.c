#include "base/test.h"
#include "base/test_tree.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "core/ctx.h"
#include "queue/spool_wal.h"

static char root[64];
static struct arena *arena;
static struct ctx *ctx;

static int setup(void **state) {
  snprintf(root, sizeof root, "%s/wal_test.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  if (!mkdtemp(root))
    return -1;
  arena = arena_new("test");
  ctx = ctx_new(arena, NULL);
  loop_init();
  return spool_open_root(str_c(root), false, false, 0, 0);
}

static int teardown(void **state) {
  spool_fault_at(0, 0);
  spool_close();
  loop_done();
  arena_free(arena);
  return test_tree_remove(root);
}

static struct message *new_message(size_t body_len) {
  struct message *m = message_new("test");
  m->originator_login = STR("me");
  m->reverse_path = STR("s@q.test");
  message_add_recipient(m, STR("a@b"));
  message_add_recipient(m, STR("c@d"));
  message_add_header(m, 0, STR("Subject: x\n"));
  char line[65];
  memset(line, 'x', 64);
  line[63] = '\n';
  int rc = spool_data_open(ctx, m);
  for (size_t n = 0; n < body_len && rc == 0; n += 64)
    rc = spool_data_write(ctx, m, str_n(line, body_len - n < 64 ? body_len - n : 64));
  if (rc == 0)
    return m;
  spool_abandon(ctx, m);
  message_free(m);
  return NULL;
}

static size_t count(void) {
  struct spool_entry *v;
  size_t n;
  assert_int_equal(spool_scan(ctx, STR_EMPTY, arena, &v, &n), 0);
  return n;
}

/* How many input files there are, of any kind. */
static int files;
static int count_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
  files += flag == FTW_F && strstr(path, "/input/") != NULL;
  return 0;
}
static int count_files(void) {
  files = 0;
  nftw(root, count_one, 16, FTW_PHYS);
  return files;
}

/* --- life of hot messages --- */

static int hot_life(void *arg) {
  assert_int_equal(spool_log_start(ctx, NULL, NULL), 0);
  struct message *m = new_message(5000);
  assert_int_equal(spool_commit(ctx, m), 0);
  assert_int_equal(count_files(), 0);
  assert_int_equal(spool_body_memory(m).len, 5000);
  struct str done = STR("a@b");
  assert_int_equal(spool_journal(ctx, m, &done, 1), 0);
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);
  assert_int_equal(count_files(), 0);

  m = new_message(100);
  assert_int_equal(spool_commit(ctx, m), 0);
  message_add_nonrecipient(m, done);
  assert_int_equal(spool_write_header(ctx, m, true), 0);
  assert_int_equal(count_files(), 2);
  struct str id = str_dup(arena, str_c(m->id));
  message_free(m);
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, id, true, &m), SPOOL_OK);
  assert_true(message_is_nonrecipient(m, done));
  assert_int_equal(spool_journal(ctx, m, &done, 1), 0);
  assert_int_equal(count_files(), 3);
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);
  assert_int_equal(count_files(), 0);

  m = new_message(SPOOL_BODY_MEMORY * 2);
  assert_int_equal(spool_commit(ctx, m), 0);
  assert_int_equal(count_files(), 1);
  assert_int_equal(spool_rest(ctx, m), 0);
  assert_int_equal(spool_rest(ctx, m), 0);
  assert_int_equal(count_files(), 2);
  assert_int_equal(spool_remove(ctx, m), 0);
  message_free(m);

  m = new_message(10); /* freed without a word: it must not vanish */
  assert_int_equal(spool_commit(ctx, m), 0);
  message_free(m);
  assert_int_equal(count(), 1);
  spool_log_stop();
  return 0;
}

static void test_hot_life(void **state) {
  loop_run(hot_life, NULL);
  assert_int_equal(count(), 1);
}

/* --- shown to others --- */

static const char *passes;
static bool passing(const char *id) { return passes && strcmp(id, passes) == 0; }

static int shown(void *arg) {
  assert_int_equal(spool_show_all(loop_now(), passing), 0); /* no log yet */
  assert_int_equal(spool_log_start(ctx, NULL, NULL), 0);
  struct message *m = new_message(100), *other = new_message(100);
  assert_int_equal(spool_commit(ctx, m), 0);
  assert_int_equal(spool_commit(ctx, other), 0);
  assert_int_equal(count(), 0);
  assert_int_equal(spool_show_all(loop_now() - USEC_PER_SEC, passing), 0); /* those of before */
  assert_int_equal(count(), 0);
  passes = m->id;
  assert_int_equal(spool_show_all(loop_now(), passing), 1);
  assert_int_equal(count(), 2);
  assert_int_equal(spool_show_all(loop_now(), passing), 1); /* it has files, and is in memory still */
  assert_int_equal(spool_remove(ctx, other), 0);
  message_free(other);
  assert_int_equal(spool_rest(ctx, m), 0);
  message_free(m);
  passes = NULL;
  assert_int_equal(spool_show_all(loop_now(), passing), 0);
  assert_int_equal(count(), 1);
  spool_log_stop();
  return 0;
}

static void test_shown(void **state) { loop_run(shown, NULL); }

/* --- crashes --- */

#define MANY 60

/* What the child tells about each message: index, state, id. */
struct told {
  char state; /* 'c'ommitted, 'r'emoved, 's'ettled, 'd'one in part */
  char id[24];
};

static int tell_fd;
static int running;

static void tell(char state, const char *id) {
  struct told t = {state, ""};
  memcpy(t.id, id, sizeof t.id);
  if (write(tell_fd, &t, sizeof t) != sizeof t)
    _exit(9);
}

/* In the child no assertion may jump into the parent's tests. An injected fault may refuse any step. */
#define CHILD(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition) && !spool_fault)                                                                                  \
      _exit(7);                                                                                                        \
  } while (0)

static void crash_fiber(void *arg) {
  int n = (int)(intptr_t)arg;
  struct message *m = new_message(n % 7 == 0 ? SPOOL_BODY_MEMORY + 100 : 300 * (size_t)n);
  if (m && spool_commit(ctx, m) == 0) {
    tell('c', m->id);
    struct str done = STR("a@b");
    if (n % 5 == 1) {
      tell('r', m->id); /* first: what fails may still have removed it */
      CHILD(spool_remove(ctx, m) == 0);
    } else if (n % 5 == 2) {
      CHILD(spool_rest(ctx, m) == 0);
      tell('s', m->id);
    } else if (n % 5 == 3) {
      CHILD(spool_journal(ctx, m, &done, 1) == 0);
      tell('d', m->id);
    } else if (n % 5 == 4) {
      m->frozen = true;
      CHILD(spool_write_header(ctx, m, true) == 0);
      tell('f', m->id);
    }
  }
  if (--running == 0) {
    /* What nobody waits for is written with, or before, what somebody waits for. */
    m = new_message(1);
    if (m && spool_commit(ctx, m) == 0)
      tell('c', m->id);
    _exit(0);
  }
}

static int crash_main(void *arg) {
  (void)spool_log_start(ctx, NULL, NULL); /* if it fails, all goes into files */
  running = MANY - 1;
  for (intptr_t i = 0; i < MANY - 1; i++)
    (void)fiber_spawn("test", crash_fiber, (void *)i);
  while (running >= 0)
    (void)fiber_sleep(USEC_PER_SEC);
  return 0;
}

/* Runs the crashing child; returns what it told. */
static size_t run_child(struct told *told, size_t max, int fault) {
  int p[2];
  assert_int_equal(pipe(p), 0);
  pid_t pid = fork();
  if (pid == 0) {
    loop_reinit();
    tell_fd = p[1];
    if (fault)
      spool_fault_at(fault, EIO);
    loop_run(crash_main, NULL);
    _exit(8);
  }
  close(p[1]);
  size_t n = 0;
  while (n < max && read(p[0], &told[n], sizeof *told) == sizeof *told)
    n++;
  close(p[0]);
  int status;
  waitpid(pid, &status, 0);
  if (!fault)
    assert_int_equal(status, 0);
  return n;
}

static bool has_told(const struct told *told, size_t n, char state, const char *id) {
  for (size_t i = 0; i < n; i++)
    if (told[i].state == state && strcmp(told[i].id, id) == 0)
      return true;
  return false;
}

static void check_message(const struct told *told, size_t n, const char *id) {
  struct message *m;
  enum spool_read got = spool_read_message(ctx, STR_EMPTY, str_c(id), true, &m);
  if (has_told(told, n, 'r', id)) {
    assert_int_equal(got, SPOOL_NOT_FOUND);
    return;
  }
  assert_int_equal(got, SPOOL_OK);
  assert_int_equal(message_is_nonrecipient(m, STR("a@b")), has_told(told, n, 'd', id));
  assert_false(message_is_nonrecipient(m, STR("c@d")));
  assert_int_equal(m->frozen, has_told(told, n, 'f', id));
  int fd = spool_open_body(ctx, m);
  assert_true(fd >= 0);
  char first;
  assert_true(m->body_size == 0 || (read(fd, &first, 1) == 1 && first == 'x'));
  close(fd);
  message_free(m);
}

static void remove_input(void) {
  char path[100];
  snprintf(path, sizeof path, "%s/input", root);
  test_tree_remove(path);
  spool_close();
  assert_int_equal(spool_open_root(str_c(root), false, false, 0, 0), 0);
}

static void test_crash(void **state) {
  static struct told told[MANY * 3];
  size_t n = run_child(told, MANY * 3, 0), committed = 0, removed = 0;
  for (size_t i = 0; i < n; i++) {
    committed += told[i].state == 'c';
    removed += told[i].state == 'r';
  }
  assert_int_equal(committed, MANY);
  assert_int_equal(count(), MANY - removed);
  for (size_t i = 0; i < n; i++)
    check_message(told, n, told[i].id);
}

/* The machine went down: what was not synced - all small messages' files - is not there. */
static void test_power_loss(void **state) {
  static struct told told[MANY * 3];
  size_t n = run_child(told, MANY * 3, 0), large = 0;
  char command[200], path[100];
  struct spool_entry *v;
  size_t found;
  snprintf(path, sizeof path, "%s/input", root);
  for (size_t i = 0; i < n; i++) { /* -D of long messages are synced; all else goes */
    struct stat st;
    snprintf(command, sizeof command, "%s/%s-D", path, told[i].id);
    bool is_large = stat(command, &st) == 0 && st.st_size > (off_t)SPOOL_BODY_MEMORY;
    large += is_large;
    if (!is_large)
      unlink(command);
    snprintf(command, sizeof command, "%s/%s-H", path, told[i].id);
    unlink(command);
  }
  assert_true(large > 0);
  assert_int_equal(spool_recover(ctx), 0);
  assert_int_equal(spool_scan(ctx, STR_EMPTY, arena, &v, &found), 0);
  for (size_t i = 0; i < n; i++)
    check_message(told, n, told[i].id);
  /* Once replayed the log is empty. */
  remove_input();
  assert_int_equal(spool_recover(ctx), 0);
  assert_int_equal(count(), 0);
}

/* A torn record, and what follows it, does not count; what is before it does. */
static void test_torn(void **state) {
  static struct told told[MANY * 3];
  size_t n = run_child(told, MANY * 3, 0);
  remove_input();
  char path[100], bytes[200];
  snprintf(path, sizeof path, "%s/wal/0a", root);
  int fd = open(path, O_RDWR);
  assert_true(fd >= 0);
  memset(bytes, 'z', sizeof bytes);
  assert_int_equal(pwrite(fd, bytes, sizeof bytes, 20000), sizeof bytes);
  close(fd);
  assert_int_equal(spool_recover(ctx), 0);
  size_t found = count();
  assert_true(found > 0 && found < n);
}

/* Whatever operation fails: each message that was committed is there. */
static void test_faults(void **state) {
  static struct told told[MANY * 3];
  (void)run_child(told, MANY * 3, 0); /* makes the log's files */
  remove_input();
  for (int fault = 1; fault < 130; fault += 3) {
    size_t n = run_child(told, MANY * 3, fault);
    spool_fault_at(0, 0);
    assert_true(n > 0);
    assert_int_equal(spool_recover(ctx), 0);
    for (size_t i = 0; i < n; i++) {
      struct message *m;
      if (has_told(told, n, 'r', told[i].id))
        continue;
      assert_int_equal(spool_read_message(ctx, STR_EMPTY, str_c(told[i].id), false, &m), SPOOL_OK);
      message_free(m);
    }
    remove_input();
  }
}

/* --- rotation --- */

static int committed_total;

static void rotate_fiber(void *arg) {
  for (int i = 0; i < 60; i++) {
    struct message *m = new_message(60000);
    assert_int_equal(spool_commit(ctx, m), 0);
    committed_total++;
    if (i % 10 == 0) { /* some stay for long */
      message_free(m);
      continue;
    }
    fiber_yield();
    assert_int_equal(spool_remove(ctx, m), 0);
    message_free(m);
  }
  running--;
}

static int rotate_main(void *arg) {
  assert_int_equal(spool_log_start(ctx, NULL, NULL), 0);
  /* One that nobody frees for the whole time: it must get files when its log is to be reused. */
  struct message *old = new_message(1000);
  assert_int_equal(spool_commit(ctx, old), 0);
  running = 12;
  for (int i = 0; i < 12; i++)
    (void)fiber_spawn("test", rotate_fiber, NULL);
  while (running > 0)
    (void)fiber_sleep(1000);
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, str_c(old->id), true, &(struct message *){NULL}), SPOOL_LOCKED);
  message_free(old);
  spool_log_stop();
  return 0;
}

static void test_rotation(void **state) {
  committed_total = 0;
  loop_run(rotate_main, NULL);
  assert_int_equal(committed_total, 720);
  assert_int_equal(count(), 73);
}

/* The log of a living process is left alone. */
static int living_main(void *arg) {
  CHILD(spool_log_start(ctx, NULL, NULL) == 0);
  struct message *m = new_message(10);
  CHILD(spool_commit(ctx, m) == 0);
  tell('c', m->id);
  pause();
  return 0;
}

static void recovered(void *arg, const char *id, struct str queue_name) {
  memcpy(arg, id, 24);
}

static void test_living(void **state) {
  int p[2];
  struct told told;
  char back[24] = "";
  assert_int_equal(pipe(p), 0);
  pid_t pid = fork();
  if (pid == 0) {
    loop_reinit();
    tell_fd = p[1];
    loop_run(living_main, NULL);
    _exit(8);
  }
  assert_int_equal(read(p[0], &told, sizeof told), sizeof told);
  assert_int_equal(wal_recover(recovered, back), 0);
  assert_string_equal(back, "");
  assert_int_equal(count(), 0);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  assert_int_equal(wal_recover(recovered, back), 0);
  assert_string_equal(back, told.id);
  assert_int_equal(count(), 1);
  close(p[0]);
  close(p[1]);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
  const struct CMUnitTest tests[] = {TEST(test_hot_life), TEST(test_shown), TEST(test_crash), TEST(test_power_loss),
    TEST(test_torn), TEST(test_faults), TEST(test_rotation), TEST(test_living)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
