#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/arena.h"
#include "base/asan.h"
#include "loop/loop_internal.h"
#if MARTLET_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* How long a fiber is parked before the unused part of its stack is given back. */
#define TRIM_AFTER USEC_PER_SEC

/* NULL in the threads of the offload pool: there everything just blocks. */
static _Thread_local struct fiber *current;
static _Thread_local void *local_outside;
static _Thread_local unsigned tag_outside;

struct fiber *fiber_self(void) { return current; }
const char *fiber_name(const struct fiber *f) { return f->name; }
size_t fiber_count(void) { return loop.fiber_count; }
void *fiber_local(void) { return current ? current->local : local_outside; }

void fiber_set_local(void *p) {
  if (current)
    current->local = p;
  else
    local_outside = p;
}

unsigned fiber_tag(void) { return current ? current->tag : tag_outside; }

void fiber_set_tag(unsigned tag) {
  if (current)
    current->tag = tag;
  else
    tag_outside = tag;
}

bool fiber_cancelled(void) { return current && current->cancelled; }

/* --- switching --- */

static void switch_to_fiber(struct fiber *f) {
  f->state = FIBER_RUNNING;
  current = f;
#if MARTLET_ASAN
  __sanitizer_start_switch_fiber(&loop.main_fake_stack, f->stack->low, f->stack->size);
#endif
  fiber_context_switch(&loop.main_context, &f->context);
#if MARTLET_ASAN
  __sanitizer_finish_switch_fiber(loop.main_fake_stack, NULL, NULL);
#endif
  current = NULL;
}

static void switch_to_main(struct fiber *f) {
#if MARTLET_ASAN
  __sanitizer_start_switch_fiber(
      f->state == FIBER_ENDED ? NULL : &f->asan_fake_stack, loop.main_stack, loop.main_stack_size);
#endif
  fiber_context_switch(&f->context, &loop.main_context);
#if MARTLET_ASAN
  __sanitizer_finish_switch_fiber(f->asan_fake_stack, &loop.main_stack, &loop.main_stack_size);
#endif
}

static void fiber_entry(void) {
  struct fiber *f = current;
#if MARTLET_ASAN
  __sanitizer_finish_switch_fiber(NULL, &loop.main_stack, &loop.main_stack_size);
#endif
  f->fn(f->arg);
  f->state = FIBER_ENDED;
  switch_to_main(f);
  abort(); /* an ended fiber is never run again */
}

static void make_ready(struct fiber *f) {
  f->state = FIBER_READY;
  f->next_ready = NULL;
  *loop.ready_tail = f;
  loop.ready_tail = &f->next_ready;
  loop.ready_count++;
}

static void list_remove(struct fiber *f) {
  if (f->prev)
    f->prev->next = f->next;
  else
    loop.all = f->next;
  if (f->next)
    f->next->prev = f->prev;
}

static void fiber_release(struct fiber *f) {
  stack_give(f->stack);
}

static void trim_arm(void);

static void fiber_ended(struct fiber *f) {
  list_remove(f);
  loop.fiber_count--;
  if (f->joiner)
    fiber_resume(f->joiner, 0);
  else if (!f->joinable)
    fiber_release(f);
  trim_arm();
}

/* Runs those that were ready at the start: what they make ready waits for the
next turn, so that nobody starves input and timers. */
void fiber_run_ready(void) {
  for (size_t n = loop.ready_count; n > 0 && !loop.stopped; n--) {
    struct fiber *f = loop.ready_head;
    loop.ready_head = f->next_ready;
    if (!loop.ready_head)
      loop.ready_tail = &loop.ready_head;
    loop.ready_count--;
    switch_to_fiber(f);
    if (f->state == FIBER_ENDED)
      fiber_ended(f);
  }
}

/* --- parking --- */

static void parked_remove(struct fiber *f) {
  if (!f->on_parked_list)
    return;
  f->on_parked_list = false;
  if (f->prev_parked)
    f->prev_parked->next_parked = f->next_parked;
  else
    loop.parked_head = f->next_parked;
  if (f->next_parked)
    f->next_parked->prev_parked = f->prev_parked;
  else
    loop.parked_tail = f->prev_parked;
}

static void parked_add(struct fiber *f) {
  f->on_parked_list = true;
  f->parked_at = loop.now;
  f->next_parked = NULL;
  f->prev_parked = loop.parked_tail;
  if (loop.parked_tail)
    loop.parked_tail->next_parked = f;
  else
    loop.parked_head = f;
  loop.parked_tail = f;
  trim_arm();
}

static void trim_fire(struct timer_node *node) {
  while (loop.parked_head && loop.now - loop.parked_head->parked_at >= TRIM_AFTER) {
    struct fiber *f = loop.parked_head;
    parked_remove(f);
    stack_trim(f->stack, f->context.sp);
  }
  stack_pool_trim();
  if (loop.parked_head || stack_pool_dirty())
    timer_add(node, loop.now + TRIM_AFTER);
}

static void trim_arm(void) {
  loop.trim_timer.fire = trim_fire;
  if (!loop.trim_timer.pos)
    timer_add(&loop.trim_timer, loop.now + TRIM_AFTER);
}

static void deadline_fire(struct timer_node *node) {
  fiber_resume((struct fiber *)(void *)((char *)node - offsetof(struct fiber, deadline)), -ETIMEDOUT);
}

int fiber_park_internal(usec_t deadline, bool cancellable, bool wakeable) {
  struct fiber *f = current;
  if (cancellable && f->cancelled)
    return -ECANCELED;
  if (deadline != DEADLINE_NEVER)
    timer_add(&f->deadline, deadline);
  f->cancellable = cancellable;
  f->wakeable = wakeable;
  f->state = FIBER_PARKED;
  parked_add(f);
  switch_to_main(f);
  return f->result;
}

void fiber_resume(struct fiber *f, int result) {
  if (f->state != FIBER_PARKED)
    return;
  parked_remove(f);
  timer_remove(&f->deadline);
  f->result = result;
  make_ready(f);
}

int fiber_park(usec_t deadline) { return fiber_park_internal(deadline, true, true); }

void fiber_wake(struct fiber *f) {
  if (f->state == FIBER_PARKED && f->wakeable)
    fiber_resume(f, 0);
}

void fiber_yield(void) {
  if (!current)
    return;
  make_ready(current);
  switch_to_main(current);
}

int fiber_sleep(usec_t duration) {
  if (!current) {
    struct timespec ts = {duration / USEC_PER_SEC, duration % USEC_PER_SEC * 1000};
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
      ;
    return 0;
  }
  int r = fiber_park_internal(loop_now_fresh() + duration, true, false);
  return r == -ETIMEDOUT ? 0 : r;
}

/* --- begin and end --- */

static struct fiber *spawn(const char *name, void (*fn)(void *arg), void *arg, bool joinable) {
  struct stack *stack = stack_take();
  /* The fiber itself lies at the top of its stack: that page is in use anyway. */
  size_t room = stack->size - ((sizeof(struct fiber) + 63) & ~(size_t)63);
  struct fiber *f = (struct fiber *)(void *)(stack->low + room);
  memset(f, 0, sizeof *f);
  f->stack = stack;
  f->name = name;
  f->fn = fn;
  f->arg = arg;
  f->joinable = joinable;
  f->tag = fiber_tag();
  f->deadline.fire = deadline_fire;
  fiber_context_make(&f->context, stack->low, room, fiber_entry);
  f->next = loop.all;
  if (loop.all)
    loop.all->prev = f;
  loop.all = f;
  loop.fiber_count++;
  make_ready(f);
  return f;
}

struct fiber *fiber_spawn(const char *name, void (*fn)(void *arg), void *arg) { return spawn(name, fn, arg, false); }

struct fiber *fiber_spawn_joinable(const char *name, void (*fn)(void *arg), void *arg) {
  return spawn(name, fn, arg, true);
}

void fiber_join(struct fiber *f) {
  if (f->state != FIBER_ENDED) {
    f->joiner = current;
    fiber_park_internal(DEADLINE_NEVER, false, false);
  }
  fiber_release(f);
}

void fiber_cancel(struct fiber *f) {
  f->cancelled = true;
  if (f->state == FIBER_PARKED && f->cancellable)
    fiber_resume(f, -ECANCELED);
}

void fiber_cancel_all(void) {
  for (struct fiber *f = loop.all; f; f = f->next)
    fiber_cancel(f);
}

void fiber_forget_all(void) {
  for (struct fiber *f = loop.all, *next; f; f = next) {
    next = f->next;
    /* What the leak checker finds only through this stack is no leak; and we may be running on it. */
    if (!MARTLET_ASAN && f != current)
      stack_unmap(f->stack);
  }
  loop.all = NULL;
  loop.fiber_count = loop.ready_count = 0;
  current = NULL;
}

/* --- semaphores --- */

struct fiber_waiter {
  struct fiber_waiter *next;
  struct fiber *fiber;
  bool granted;
};

void fiber_sem_init(struct fiber_sem *s, int count) {
  s->count = count;
  s->head = NULL;
  s->tail = &s->head;
}

bool fiber_sem_try(struct fiber_sem *s) {
  if (s->count <= 0 || s->head)
    return false;
  s->count--;
  return true;
}

static void sem_unlink(struct fiber_sem *s, struct fiber_waiter *w) {
  for (struct fiber_waiter **at = &s->head; *at; at = &(*at)->next) {
    if (*at != w)
      continue;
    *at = w->next;
    if (!w->next)
      s->tail = at;
    return;
  }
}

int fiber_sem_acquire(struct fiber_sem *s, usec_t deadline) {
  if (fiber_sem_try(s))
    return 0;
  if (!current)
    return -EDEADLK; /* nobody else could release it */
  struct fiber_waiter w = {NULL, current, false};
  *s->tail = &w;
  s->tail = &w.next;
  int r = fiber_park_internal(deadline, true, false);
  if (w.granted) /* also when the deadline passed just after */
    return 0;
  sem_unlink(s, &w);
  return r;
}

void fiber_sem_release(struct fiber_sem *s) {
  struct fiber_waiter *w = s->head;
  if (!w) {
    s->count++;
    return;
  }
  sem_unlink(s, w);
  w->granted = true;
  fiber_resume(w->fiber, 0);
}
