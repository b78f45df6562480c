#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/loop_internal.h"

struct loop loop;

/* Signals that arrived and were not handed on yet. */
static volatile sig_atomic_t signal_pending[NSIG];
static volatile sig_atomic_t signal_any;
static struct {
  void (*fn)(int signo, void *arg);
  void *arg;
} signal_handlers[NSIG];

usec_t loop_now_fresh(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (usec_t)ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

static uint64_t turns; /* goes on counting in a forked child */

uint64_t loop_turns(void) { return turns; }

usec_t loop_now(void) { return loop.running ? loop.now : loop_now_fresh(); }

struct event_base *loop_event_base(void) { return loop.base; }

/* --- timers --- */

static void heap_put(struct timer_node *node, size_t i) {
  loop.heap[i] = node;
  node->pos = i + 1;
}

static void heap_up(struct timer_node *node, size_t i) {
  while (i > 0 && loop.heap[(i - 1) / 2]->at > node->at) {
    heap_put(loop.heap[(i - 1) / 2], i);
    i = (i - 1) / 2;
  }
  heap_put(node, i);
}

static void heap_down(struct timer_node *node, size_t i) {
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= loop.heap_n)
      break;
    if (child + 1 < loop.heap_n && loop.heap[child + 1]->at < loop.heap[child]->at)
      child++;
    if (loop.heap[child]->at >= node->at)
      break;
    heap_put(loop.heap[child], i);
    i = child;
  }
  heap_put(node, i);
}

void timer_add(struct timer_node *node, usec_t at) {
  timer_remove(node);
  if (loop.heap_n == loop.heap_cap) {
    loop.heap_cap = loop.heap_cap ? loop.heap_cap * 2 : 64;
    loop.heap = xrealloc(loop.heap, loop.heap_cap * sizeof *loop.heap);
  }
  node->at = at;
  heap_up(node, loop.heap_n++);
}

void timer_remove(struct timer_node *node) {
  if (!node->pos)
    return;
  size_t i = node->pos - 1;
  node->pos = 0;
  struct timer_node *last = loop.heap[--loop.heap_n];
  if (last == node)
    return;
  if (i > 0 && loop.heap[(i - 1) / 2]->at > last->at)
    heap_up(last, i);
  else
    heap_down(last, i);
}

static void timers_run(void) {
  while (loop.heap_n && loop.heap[0]->at <= loop.now) {
    struct timer_node *node = loop.heap[0];
    timer_remove(node);
    node->fire(node);
  }
}

struct loop_timer {
  struct timer_node node; /* first */
  void (*fn)(void *arg);
  void *arg;
};

static void loop_timer_fire(struct timer_node *node) {
  struct loop_timer t = *(struct loop_timer *)(void *)node;
  free(node);
  t.fn(t.arg);
}

struct loop_timer *loop_timer_start(usec_t delay, void (*fn)(void *arg), void *arg) {
  struct loop_timer *t = xcalloc(1, sizeof *t);
  t->fn = fn;
  t->arg = arg;
  t->node.fire = loop_timer_fire;
  timer_add(&t->node, loop_now_fresh() + delay);
  return t;
}

void loop_timer_stop(struct loop_timer *t) {
  if (!t)
    return;
  timer_remove(&t->node);
  free(t);
}

static void timers_forget(void) {
  while (loop.heap_n) {
    struct timer_node *node = loop.heap[0];
    timer_remove(node);
    if (node->fire == loop_timer_fire)
      free(node);
  }
  free(loop.heap);
  loop.heap = NULL;
  loop.heap_cap = 0;
}

/* --- signals and wake-ups --- */

void loop_wake(void) {
  static const uint64_t one = 1;
  int saved = errno;
  ssize_t n = write(loop.wake_fd, &one, sizeof one); /* fails only when the counter is full: then it wakes anyway */
  (void)n;
  errno = saved;
}

static void signal_handler(int signo) {
  signal_pending[signo] = 1;
  signal_any = 1;
  loop_wake();
}

void loop_on_signal(int signo, void (*fn)(int signo, void *arg), void *arg) {
  struct sigaction sa = {.sa_handler = fn ? signal_handler : SIG_DFL, .sa_flags = SA_RESTART};
  sigemptyset(&sa.sa_mask);
  signal_handlers[signo].fn = fn;
  signal_handlers[signo].arg = arg;
  sigaction(signo, &sa, NULL);
}

static void signals_run(void) {
  if (!signal_any)
    return;
  signal_any = 0;
  for (int i = 1; i < NSIG; i++) {
    if (!signal_pending[i])
      continue;
    signal_pending[i] = 0;
    if (signal_handlers[i].fn)
      signal_handlers[i].fn(i, signal_handlers[i].arg);
  }
}

static void signals_forget(void) {
  for (int i = 1; i < NSIG; i++) {
    if (signal_handlers[i].fn)
      loop_on_signal(i, NULL, NULL);
    signal_pending[i] = 0;
  }
  signal_any = 0;
}

static void on_wake(int fd, short what, void *arg) {
  uint64_t count;
  ssize_t n = read(fd, &count, sizeof count);
  (void)n;
  signals_run();
  offload_reap();
}

static void on_tick(int fd, short what, void *arg) { loop.tick_at = DEADLINE_NEVER; }

/* libevent writes to stderr when an fd cannot be watched; the callers see it in the result. */
static void libevent_quiet(int severity, const char *text) {}

static void base_start(void) {
  struct event_config *config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_set_log_callback(libevent_quiet);
  loop.base = event_base_new_with_config(config);
  event_config_free(config);
  loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (!loop.base || loop.wake_fd < 0)
    abort(); /* no descriptors left at the very start */
  loop.wake_event = event_new(loop.base, loop.wake_fd, EV_READ | EV_PERSIST, on_wake, NULL);
  loop.tick_event = event_new(loop.base, -1, 0, on_tick, NULL);
  event_add(loop.wake_event, NULL);
  loop.tick_at = DEADLINE_NEVER;
}

static void base_end(void) {
  event_free(loop.wake_event);
  event_free(loop.tick_event);
  event_base_free(loop.base);
  close(loop.wake_fd);
  loop.base = NULL;
}

void loop_init(void) {
  if (loop.base)
    return;
  memset(&loop, 0, sizeof loop);
  loop.ready_tail = &loop.ready_head;
  loop.now = loop_now_fresh();
  signal(SIGPIPE, SIG_IGN); /* a broken peer is an error code; child_start restores it for others */
  base_start();
}

void loop_reinit(void) {
  if (loop.base) {
    event_reinit(loop.base); /* leaves the parent's epoll set alone */
    signals_forget();
    wait_forget_all();
    child_forget_all();
    offload_forget();
    timers_forget();
    fiber_forget_all();
    base_end();
  }
  loop_init();
}

/* --- the loop --- */

/* Sets libevent's timer for the earliest deadline. One that is set too early is
left alone: an idle turn now and then is cheaper than a change for each wait. */
static void tick_arm(void) {
  if (!loop.heap_n || loop.heap[0]->at >= loop.tick_at)
    return;
  usec_t delay = loop.heap[0]->at - loop.now;
  if (delay < 1000)
    delay = 1000;
  struct timeval tv = {.tv_sec = delay / USEC_PER_SEC, .tv_usec = delay % USEC_PER_SEC};
  loop.tick_at = loop.heap[0]->at;
  event_add(loop.tick_event, &tv);
}

static void turn(void) {
  loop.now = loop_now_fresh();
  turns++;
  timers_run();
  fiber_run_ready();
  if (loop.stopped || (!loop.fiber_count && !loop.forever))
    return;
  if (!loop.ready_count)
    tick_arm();
  event_base_loop(loop.base, loop.ready_count ? EVLOOP_ONCE | EVLOOP_NONBLOCK : EVLOOP_ONCE);
}

/* Not on loop_run's stack: the fiber may outlive it, after loop_stop. */
static struct main_call {
  int (*fn)(void *arg);
  void *arg;
  int result;
} main_call;

static void main_fiber(void *arg) {
  main_call.result = main_call.fn(main_call.arg);
}

int loop_run(int (*fn)(void *arg), void *arg) {
  main_call = (struct main_call){fn, arg, 0};
  loop_init();
  loop.stopped = false;
  loop.running = true;
  fiber_spawn("main", main_fiber, NULL);
  while (loop.fiber_count && !loop.stopped)
    turn();
  loop.running = false;
  return main_call.result;
}

void loop_run_forever(void) {
  loop_init();
  loop.stopped = false;
  loop.running = loop.forever = true;
  while (!loop.stopped)
    turn();
  loop.running = loop.forever = false;
}

void loop_stop(void) { loop.stopped = true; }

/* What cancelled fibers get at most to come to their end. */
#define DONE_TIME (5 * USEC_PER_SEC)

static void done_expired(void *arg) { loop_stop(); }

void loop_done(void) {
  if (!loop.base)
    return;
  loop.stopped = false;
  loop.running = true;
  fiber_cancel_all();
  loop_timer_start(DONE_TIME, done_expired, NULL);
  while (loop.fiber_count && !loop.stopped)
    turn();
  loop.running = false;
  offload_done();
  signals_forget();
  wait_forget_all();
  child_forget_all();
  timers_forget();
  fiber_forget_all();
  stack_pool_free();
  base_end();
}
