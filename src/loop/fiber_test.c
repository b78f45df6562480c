#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "loop/fiber.h"

static int teardown(void **state) {
  loop_done();
  assert_int_equal(fiber_count(), 0);
  return 0;
}

/* --- spawn, order, join, local --- */

static char trace[64];
#define NOTE(c) ((char[]){c})
static void note(char c) {
  size_t n = strlen(trace);
  trace[n] = c;
  trace[n + 1] = '\0';
}

static void noting(void *arg) {
  note(*(const char *)arg);
  fiber_yield();
  note(*(const char *)arg);
}

static int order_main(void *arg) {
  assert_non_null(fiber_self());
  assert_string_equal(fiber_name(fiber_self()), "main");
  struct fiber *b = fiber_spawn_joinable("b", noting, NOTE("b"));
  fiber_spawn("c", noting, NOTE("c"));
  note('a');
  fiber_join(b);
  note('d');
  assert_int_equal(fiber_count(), 1);
  return 42;
}

static void runs_in_order(void **state) {
  trace[0] = '\0';
  assert_int_equal(loop_run(order_main, NULL), 42);
  assert_string_equal(trace, "abcbcd");
  assert_null(fiber_self());
  assert_int_equal(fiber_count(), 0);
}

static void local_fiber(void *arg) {
  assert_null(fiber_local());
  fiber_set_local(arg);
  fiber_yield();
  assert_ptr_equal(fiber_local(), arg);
}

static int local_main(void *arg) {
  int a, b;
  struct fiber *x = fiber_spawn_joinable("x", local_fiber, &a), *y = fiber_spawn_joinable("y", local_fiber, &b);
  fiber_join(y);
  fiber_join(x);
  return 0;
}

static void has_local_slot(void **state) { loop_run(local_main, NULL); }

/* Floating point and saved registers survive the switches. */
static double sums[4];
static void summing(void *arg) {
  double *sum = arg, x = (double)(sum - sums) + 0.5;
  for (int i = 0; i < 1000; i++) {
    *sum += x * i;
    fiber_yield();
  }
}

static int sum_main(void *arg) {
  for (int i = 0; i < 4; i++)
    fiber_spawn("sum", summing, &sums[i]);
  return 0;
}

static void keeps_registers(void **state) {
  loop_run(sum_main, NULL);
  for (int i = 0; i < 4; i++)
    assert_true(sums[i] == (i + 0.5) * 499500);
}

/* --- waiting --- */

static void write_byte(void *arg) {
  fiber_yield();
  assert_int_equal(write(*(int *)arg, "x", 1), 1);
}

static int wait_main(void *arg) {
  int *p = arg;
  char c;
  assert_int_equal(fiber_wait_fd(p[0], FIBER_READ, loop_now_fresh() + 1000), -ETIMEDOUT);
  assert_int_equal(fiber_wait_fd(p[0], FIBER_READ | FIBER_WRITE, DEADLINE_NEVER), FIBER_WRITE);
  fiber_spawn("writer", write_byte, &p[1]);
  assert_int_equal(fiber_wait_fd(p[0], FIBER_READ, deadline_in(60)), FIBER_READ);
  assert_int_equal(fiber_wait_fd(p[0], FIBER_READ, DEADLINE_NEVER), FIBER_READ); /* still: nothing was read */
  assert_int_equal(read(p[0], &c, 1), 1);
  assert_int_equal(fiber_sleep(1000), 0);
  struct pollfd fds[2] = {{.fd = p[0], .events = POLLIN}, {.fd = p[1], .events = POLLIN}};
  assert_int_equal(fiber_poll(fds, 2, loop_now_fresh() + 1000), -ETIMEDOUT);
  fiber_spawn("writer", write_byte, &p[0]);
  assert_int_equal(fiber_poll(fds, 2, DEADLINE_NEVER), 1);
  assert_true(fds[1].revents & POLLIN && !fds[0].revents);
  assert_int_equal(fiber_wait_fd(9999, FIBER_READ, DEADLINE_NEVER), -EBADF);
  return 0;
}

static void waits_for_fds(void **state) {
  int p[2];
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
  loop_run(wait_main, p);
  assert_int_equal(fiber_wait_fd(p[1], FIBER_READ, DEADLINE_NEVER), FIBER_READ); /* outside of fibers */
  assert_int_equal(fiber_wait_fd(p[0], FIBER_READ, loop_now_fresh() + 1000), -ETIMEDOUT);
  close(p[0]);
  close(p[1]);
}

/* A kept fd, its number used again by another socket. */
static int kept_main(void *arg) {
  for (int round = 0; round < 3; round++) {
    int p[2], want;
    char c;
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
    want = p[0];
    if (round > 0)
      assert_int_equal(want, *(int *)arg); /* the same number again */
    *(int *)arg = want;
    loop_keep_fd(p[0]);
    for (int i = 0; i < 3; i++) {
      fiber_spawn("writer", write_byte, &p[1]);
      while (read(p[0], &c, 1) < 0)
        assert_true(fiber_wait_again(p[0], FIBER_READ, deadline_in(60)) > 0);
    }
    fiber_spawn("writer", write_byte, &p[1]);
    assert_int_equal(fiber_wait_fd(p[0], FIBER_READ, deadline_in(60)), FIBER_READ);
    loop_forget_fd(p[0]);
    close(p[0]);
    close(p[1]);
  }
  return 0;
}

static void keeps_fds(void **state) {
  int fd = -1;
  loop_run(kept_main, &fd);
}

static int result_of_wait;
static void wait_forever(void *arg) {
  result_of_wait = fiber_wait_fd(*(int *)arg, FIBER_READ, DEADLINE_NEVER);
  assert_true(fiber_cancelled());
  assert_int_equal(fiber_sleep(USEC_PER_SEC * 1000), -ECANCELED);
  assert_int_equal(fiber_park(DEADLINE_NEVER), -ECANCELED);
}

static int cancel_main(void *arg) {
  struct fiber *f = fiber_spawn_joinable("f", wait_forever, arg);
  fiber_yield();
  fiber_yield();
  fiber_cancel(f);
  fiber_join(f);
  assert_int_equal(result_of_wait, -ECANCELED);
  f = fiber_spawn_joinable("f", wait_forever, arg);
  fiber_cancel(f); /* before it ran at all */
  fiber_join(f);
  assert_int_equal(result_of_wait, -ECANCELED);
  return 0;
}

static void cancels(void **state) {
  int p[2];
  assert_int_equal(pipe(p), 0);
  loop_run(cancel_main, p);
  close(p[0]);
  close(p[1]);
}

static void park_once(void *arg) { *(int *)arg = fiber_park(deadline_in(60)); }

static int park_main(void *arg) {
  int r = 1;
  struct fiber *f = fiber_spawn_joinable("f", park_once, &r);
  fiber_wake(f); /* not parked yet: lost */
  fiber_yield();
  assert_int_equal(r, 1);
  fiber_wake(f);
  fiber_join(f);
  assert_int_equal(r, 0);
  assert_int_equal(fiber_park(loop_now_fresh() - 1), -ETIMEDOUT);
  return 0;
}

static void parks_and_wakes(void **state) { loop_run(park_main, NULL); }

/* --- timers and signals --- */

static void on_timer(void *arg) { note(*(char *)arg); }
static void on_signal(int signo, void *arg) { fiber_wake(arg); }

static int timer_main(void *arg) {
  struct loop_timer *stopped = loop_timer_start(2000, on_timer, NOTE("x"));
  loop_timer_start(3000, on_timer, NOTE("2"));
  loop_timer_start(1000, on_timer, NOTE("1"));
  loop_timer_start(30000 * USEC_PER_SEC, on_timer, NOTE("y")); /* does not keep the loop running */
  loop_timer_stop(stopped);
  while (strlen(trace) < 2)
    fiber_sleep(1000);
  loop_on_signal(SIGUSR1, on_signal, fiber_self());
  kill(getpid(), SIGUSR1);
  assert_int_equal(fiber_park(deadline_in(60)), 0);
  return 0;
}

static void has_timers_and_signals(void **state) {
  trace[0] = '\0';
  loop_run(timer_main, NULL);
  assert_string_equal(trace, "12");
}

/* Sleeps of many lengths end in the right order. */
static usec_t last_end;
static void sleeper(void *arg) {
  usec_t until = *(usec_t *)arg;
  assert_int_equal(fiber_park(until), -ETIMEDOUT);
  assert_true(loop_now() >= until);
  assert_true(until >= last_end);
  last_end = until;
}

static int heap_main(void *arg) {
  static usec_t until[500];
  unsigned seed = 12345;
  for (int i = 0; i < 500; i++) {
    seed = seed * 1103515245 + 12345;
    until[i] = loop_now_fresh() + 20000 + seed % 30000;
    fiber_spawn("sleeper", sleeper, &until[i]);
  }
  return 0;
}

static void orders_deadlines(void **state) {
  last_end = 0;
  loop_run(heap_main, NULL);
}

/* --- semaphores --- */

static struct fiber_sem sem;
static void sem_user(void *arg) {
  assert_int_equal(fiber_sem_acquire(&sem, deadline_in(60)), 0);
  note(*(char *)arg);
  fiber_yield();
  note(*(char *)arg);
  fiber_sem_release(&sem);
}

static void sem_timeout(void *arg) {
  assert_int_equal(fiber_sem_acquire(&sem, loop_now_fresh() + 1000), -ETIMEDOUT);
  note('t');
}

static int sem_main(void *arg) {
  trace[0] = '\0';
  fiber_sem_init(&sem, 1);
  fiber_spawn("a", sem_user, NOTE("a"));
  fiber_spawn("b", sem_user, NOTE("b"));
  struct fiber *c = fiber_spawn_joinable("c", sem_user, NOTE("c"));
  fiber_join(c);
  assert_string_equal(trace, "aabbcc");
  assert_true(fiber_sem_try(&sem));
  assert_false(fiber_sem_try(&sem));
  struct fiber *t = fiber_spawn_joinable("t", sem_timeout, NULL);
  fiber_join(t);
  assert_string_equal(trace, "aabbcct");
  struct fiber *d = fiber_spawn_joinable("d", sem_user, NOTE("d"));
  fiber_yield();
  fiber_sem_release(&sem);
  assert_false(fiber_sem_try(&sem)); /* it was handed to d */
  fiber_join(d);
  assert_int_equal(sem.count, 1);
  return 0;
}

static void has_semaphores(void **state) { loop_run(sem_main, NULL); }

/* --- many fibers --- */

static int arrived;
static void one_of_many(void *arg) {
  volatile char frame[3000];
  memset((char *)frame, 1, sizeof frame);
  arrived++;
  assert_int_equal(fiber_sem_acquire(&sem, deadline_in(60)), 0);
  fiber_sem_release(&sem);
  assert_int_equal(frame[2999], 1);
}

static int many_main(void *arg) {
  fiber_sem_init(&sem, 0);
  for (int i = 0; i < 10000; i++)
    fiber_spawn("many", one_of_many, NULL);
  while (arrived < 10000)
    fiber_yield();
  assert_int_equal(fiber_count(), 10001);
  fiber_sem_release(&sem);
  return 0;
}

static void runs_ten_thousand(void **state) {
  loop_run(many_main, NULL);
  assert_int_equal(fiber_count(), 0);
  assert_int_equal(sem.count, 1);
}

/* --- stacks give back what they do not use --- */

static __attribute__((noinline)) char *use_deeply(void) {
  volatile char deep[100000];
  for (size_t i = 0; i < sizeof deep; i += 1000)
    deep[i] = 1;
  char *volatile address = (char *)deep + 20000;
  return address;
}

static bool resident(char *p) {
  unsigned char state;
  long page = sysconf(_SC_PAGESIZE);
  return mincore((void *)((uintptr_t)p & ~(uintptr_t)(page - 1)), 1, &state) == 0 && state & 1;
}

static char *deep_address;
static void deep_fiber(void *arg) {
  deep_address = use_deeply();
  fiber_park(DEADLINE_NEVER);
}

static int deep_main(void *arg) {
  struct fiber *f = fiber_spawn_joinable("deep", deep_fiber, NULL);
  while (!deep_address)
    fiber_yield();
  assert_true(resident(deep_address));
  for (usec_t end = deadline_in(60); resident(deep_address) && loop_now_fresh() < end;)
    fiber_sleep(20000);
  assert_false(resident(deep_address));
  fiber_wake(f);
  fiber_join(f);
  return 0;
}

static void trims_stacks(void **state) { loop_run(deep_main, NULL); }

/* --- offload --- */

static atomic_int offloaded;
static int offload_fn(void *arg) {
  assert_null(fiber_self());
  atomic_fetch_add(&offloaded, 1);
  return *(int *)arg * 2;
}

static int nested_fn(void *arg) { return fiber_offload(offload_fn, arg) + 1; }

static void offloader(void *arg) {
  int i = (int)(intptr_t)arg;
  for (int k = 0; k < 5; k++)
    assert_int_equal(fiber_offload(offload_fn, &i), i * 2);
  assert_int_equal(fiber_offload(nested_fn, &i), i * 2 + 1);
}

static int block_fn(void *arg) {
  char c;
  return (int)read(*(int *)arg, &c, 1);
}

static void blocked(void *arg) { assert_int_equal(fiber_offload(block_fn, arg), 1); }

static int offload_main(void *arg) {
  for (int i = 0; i < 500; i++)
    fiber_spawn("offloader", offloader, (void *)(intptr_t)i);
  while (fiber_count() > 1)
    fiber_sleep(1000);
  assert_int_equal(offloaded, 3000);
  int p[2], one = 1;
  assert_int_equal(pipe(p), 0);
  struct fiber *f[10];
  for (int i = 0; i < 10; i++)
    f[i] = fiber_spawn_joinable("blocked", blocked, &p[0]);
  fiber_yield();
  assert_int_equal(fiber_offload(offload_fn, &one), 2); /* others block: there is still a thread */
  fiber_cancel(f[3]);                                   /* must not end before its function did */
  fiber_yield();
  assert_int_equal(fiber_count(), 11);
  assert_int_equal(write(p[1], "0123456789", 10), 10);
  for (int i = 0; i < 10; i++)
    fiber_join(f[i]);
  close(p[0]);
  close(p[1]);
  return 0;
}

static void offloads(void **state) {
  loop_run(offload_main, NULL);
  int i = 4;
  assert_int_equal(fiber_offload(offload_fn, &i), 8); /* outside of fibers */
}

/* --- end, fork --- */

static int ended;
static void lingering(void *arg) {
  while (fiber_sleep(1000 * USEC_PER_SEC) == 0)
    ;
  ended++;
}

static int stop_main(void *arg) {
  fiber_spawn("lingering", lingering, NULL);
  fiber_yield();
  loop_stop();
  assert_int_equal(fiber_sleep(1000 * USEC_PER_SEC), -ECANCELED); /* by loop_done */
  return 0;
}

static void stop_and_done(void **state) {
  ended = 0;
  loop_run(stop_main, NULL);
  assert_int_equal(fiber_count(), 2);
  assert_int_equal(ended, 0);
}

static int in_child(void *arg) {
  int one = 1;
  return fiber_sleep(1000) == 0 && fiber_offload(offload_fn, &one) == 2 && fiber_count() == 1 ? 7 : 8;
}

static void waker(void *arg) {
  for (int i = 0; i < 3; i++)
    fiber_sleep(1000);
  note('w');
}

static int fork_main(void *arg) {
  int one = 1, p[2], status;
  trace[0] = '\0';
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
  loop_keep_fd(p[0]);
  assert_int_equal(fiber_wait_again(p[0], FIBER_READ, loop_now_fresh() + 1000), -ETIMEDOUT);
  struct fiber *w = fiber_spawn_joinable("waker", waker, NULL);
  fiber_offload(offload_fn, &one); /* so that there are threads */
  pid_t pid = fork();
  if (pid == 0) {
    loop_reinit();
    _exit(loop_run(in_child, NULL));
  }
  fiber_join(w);
  assert_string_equal(trace, "w");
  /* The child did not touch our epoll set. */
  fiber_spawn("writer", write_byte, &p[1]);
  assert_true(fiber_wait_again(p[0], FIBER_READ, deadline_in(60)) > 0);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 7 << 8);
  loop_forget_fd(p[0]);
  close(p[0]);
  close(p[1]);
  return 0;
}

static void survives_fork(void **state) { loop_run(fork_main, NULL); }

static void stop_fn(void *arg) { loop_stop(); }
static void runs_forever(void **state) {
  loop_init();
  loop_timer_start(1000, stop_fn, NULL);
  loop_run_forever();
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, teardown)
  const struct CMUnitTest all[] = {T(runs_in_order), T(has_local_slot), T(keeps_registers), T(waits_for_fds),
      T(keeps_fds), T(cancels), T(parks_and_wakes), T(has_timers_and_signals), T(orders_deadlines),
      T(has_semaphores), T(runs_ten_thousand), T(trims_stacks), T(offloads), T(stop_and_done), T(survives_fork),
      T(runs_forever)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
