#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/child.h"

static int teardown(void **state) {
  loop_done();
  /* No zombie, no child left. */
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
  assert_int_equal(errno, ECHILD);
  return 0;
}

#define C(literal) ((char[]){literal})
#define SH(script) {C("sh"), C("-c"), C(script), NULL}
#define SPEC(program, ...) {.path = program, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -3, __VA_ARGS__}

static int run_sh(const char *script, struct arena *a, struct str input, size_t max, usec_t deadline, struct str *out,
    int *status) {
  char *argv[] = {C("sh"), C("-c"), (char *)(uintptr_t)script, NULL};
  const struct child_spec spec = SPEC("/bin/sh", .argv = argv, .new_group = true, .umask = -1);
  return child_run(&spec, a, input, max, deadline, out, status);
}

static int collects_main(void *arg) {
  struct arena *a = arg;
  struct str out;
  int status = -1;
  assert_int_equal(run_sh("cat; echo err >&2; exit 3", a, STR("hello\n"), 100, deadline_in(60), &out, &status), 0);
  assert_str(out, "hello\nerr\n");
  assert_int_equal(WEXITSTATUS(status), 3);
  /* More than pipes hold, both ways. */
  char *big = arena_alloc(a, 1000000);
  memset(big, 'x', 1000000);
  assert_int_equal(run_sh("cat", a, str_n(big, 1000000), 1000000, deadline_in(60), &out, &status), 0);
  assert_int_equal(out.len, 1000000);
  assert_memory_equal(out.p, big, 1000000);
  /* It does not read its input. */
  assert_int_equal(run_sh("exit 0", a, str_n(big, 1000000), 10, deadline_in(60), &out, &status), 0);
  assert_int_equal(status, 0);
  assert_int_equal(run_sh("kill -9 $$", a, STR_EMPTY, 10, deadline_in(60), &out, &status), 0);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  return 0;
}

static int limits_main(void *arg) {
  struct str out;
  int status;
  assert_int_equal(run_sh("echo 12345", arg, STR_EMPTY, 5, deadline_in(60), &out, &status), -EMSGSIZE);
  assert_str(out, "12345");
  assert_int_equal(run_sh("echo 1234", arg, STR_EMPTY, 5, deadline_in(60), &out, &status), 0);
  usec_t soon = loop_now_fresh() + 200000;
  assert_int_equal(run_sh("echo a; sleep 1000 & exec sleep 1000", arg, STR_EMPTY, 99, soon, &out, &status), -ETIMEDOUT);
  assert_int_equal(run_sh("exec >&- 2>&-; exec sleep 1000", arg, STR_EMPTY, 99, loop_now_fresh() + 200000, &out,
                       &status), -ETIMEDOUT);
  const struct child_spec none = SPEC("/nonexistent", .argv = (char *[]){C("x"), NULL}, .umask = -1);
  assert_int_equal(child_run(&none, arg, STR_EMPTY, 10, DEADLINE_NEVER, &out, &status), -ENOENT);
  while (waitpid(-1, NULL, WNOHANG) >= 0) /* the loop reaps what was killed */
    fiber_sleep(1000);
  return 0;
}

static void cancelled_run(void *arg) {
  struct str out;
  int status;
  assert_int_equal(run_sh("sleep 1000", arg, STR_EMPTY, 10, DEADLINE_NEVER, &out, &status), -ECANCELED);
}

static int cancels_main(void *arg) {
  struct fiber *f = fiber_spawn_joinable("run", cancelled_run, arg);
  fiber_sleep(1000);
  fiber_cancel(f);
  fiber_join(f);
  while (waitpid(-1, NULL, WNOHANG) >= 0)
    fiber_sleep(1000);
  return 0;
}

/* What the child inherits, and what not. */
static int inherits_main(void *arg) {
  struct str out;
  int status, null = open("/dev/null", O_RDONLY), leaked = fcntl(null, F_DUPFD, 200); /* a number that the shell does not use itself */
  close(null);
  assert_true(leaked >= 200);
  char *argv[] = SH("umask; pwd; echo \"[$A][$HOME]\"; for f in /proc/self/fd/*; do echo ${f##*/}; done | sort -n | tail -1; "
                    "[ $(ps -o pgid= -p $$ 2>/dev/null || echo $$) = $$ ] && echo own; "
                    "grep -E 'Sig(Ign|Blk)' /proc/self/status");
  char *envp[] = {C("A=b"), C("PATH=/usr/bin:/bin"), NULL};
  const struct child_spec spec = SPEC("/bin/sh", .argv = argv, .envp = envp, .cwd = "/usr", .umask = 027, .new_group = true);
  assert_int_equal(child_run(&spec, arg, STR_EMPTY, 1000, deadline_in(60), &out, &status), 0);
  assert_int_equal(status, 0);
  struct str first = str_slice(out, 0, 21);
  assert_true(str_starts(first, STR("0027\n/usr\n[b][]\n")));
  assert_true(str_find(out, STR("SigBlk:\t0000000000000000")) > 0);
  int ignored = str_find(out, STR("SigIgn:\t"));
  assert_true(ignored > 0);
  /* But for glibc's own signals, 32 and 33: its posix_spawn, which make uses, lets children ignore them for ever. */
  assert_int_equal(strtoull(out.p + ignored + 8, NULL, 16) & ~(UINT64_C(3) << 31), 0);
  char line[16];
  snprintf(line, sizeof line, "\n%d\n", leaked);
  assert_int_equal(str_find(out, str_c(line)), -1);
  close(leaked);
  if (getuid() == 0) {
    char *id_argv[] = SH("id -u; id -g; id -G");
    const unsigned groups[] = {12, 13};
    const struct child_spec ids = SPEC("/bin/sh", .argv = id_argv, .envp = envp, .set_ids = true, .uid = 8, .gid = 9,
        .groups = groups, .groups_count = 2, .umask = -1);
    assert_int_equal(child_run(&ids, arg, STR_EMPTY, 1000, deadline_in(60), &out, &status), 0);
    assert_str(out, "8\n9\n9 12 13\n");
  }
  return 0;
}

static int low_fds_main(void *arg) {
  struct child c;
  int p[2], status;
  char text[8];
  assert_int_equal(pipe(p), 0);
  /* stdout gets the pipe, stderr the old stdout: one is the other's place. */
  char *argv[] = SH("echo out");
  const struct child_spec spec = {.path = "/bin/sh", .argv = argv, .stdin_fd = -2, .stdout_fd = p[1], .stderr_fd = 1,
      .umask = -1};
  assert_int_equal(child_start(&spec, &c), 0);
  assert_true(c.in == -1 && c.out == -1 && c.err == -1);
  assert_int_equal(read(p[0], text, sizeof text), 4);
  assert_int_equal(child_wait(&c, deadline_in(60), &status), 0);
  assert_int_equal(status, 0);
  assert_int_equal(c.pid, 0);
  close(p[0]);
  close(p[1]);
  return 0;
}

#define TEST(name)                                                                                                     \
  static void name(void **state) {                                                                                     \
    struct arena *a = arena_new("test");                                                                               \
    loop_run(name##_main, a);                                                                                          \
    arena_free(a);                                                                                                     \
  }
TEST(collects)
TEST(limits)
TEST(cancels)
TEST(inherits)
TEST(low_fds)

static void outside(void **state) {
  struct arena *a = arena_new("test");
  collects_main(a);
  arena_free(a);
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, teardown)
  const struct CMUnitTest all[] = {T(collects), T(limits), T(cancels), T(inherits), T(low_fds), T(outside)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
