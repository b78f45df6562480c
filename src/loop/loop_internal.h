/* What the files of this room share; nobody else includes it. */
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>
#include "loop/fiber.h"
#include "loop/fiber_context.h"

/* Binary heap of everything that happens at a time. */
struct timer_node {
  usec_t at;
  size_t pos; /* place in the heap + 1; 0: not in it */
  void (*fire)(struct timer_node *node);
};
void timer_add(struct timer_node *node, usec_t at);
void timer_remove(struct timer_node *node); /* allowed when not in the heap */

/* A stack: guard pages, then `size` usable bytes at `low`. */
struct stack {
  struct stack *next; /* in the pool */
  char *low;
  size_t size;
  bool dirty; /* may hold memory deep down */
};
struct stack *stack_take(void);
void stack_give(struct stack *s);
/* Gives back the memory of the whole pages below `sp`. */
void stack_trim(struct stack *s, char *sp);
/* Gives back the memory of pooled stacks, and unmaps those that are too many. */
void stack_pool_trim(void);
bool stack_pool_dirty(void);
void stack_pool_free(void);
/* Unmaps a stack at once. */
void stack_unmap(struct stack *s);

enum fiber_state { FIBER_READY, FIBER_RUNNING, FIBER_PARKED, FIBER_ENDED };

struct fiber {
  struct fiber_context context;
  struct stack *stack;
  const char *name;
  void (*fn)(void *arg);
  void *arg;
  void *local;
  unsigned tag;
  struct fiber *next_ready;
  struct fiber *prev, *next;           /* all fibers */
  struct fiber *prev_parked, *next_parked; /* parked ones whose stack was not trimmed yet, oldest first */
  usec_t parked_at;
  struct timer_node deadline;
  struct fiber *joiner;
  void *asan_fake_stack;
  int result; /* of the park */
  enum fiber_state state;
  bool cancelled, joinable, on_parked_list;
  bool cancellable;     /* the present park ends when it is cancelled */
  bool wakeable;        /* the present park is fiber_park's */
};

struct loop {
  struct event_base *base;
  struct event *wake_event, *tick_event;
  int wake_fd;      /* eventfd: offload completions and signals */
  usec_t tick_at;   /* for when tick_event is set */
  usec_t now;
  bool running, stopped, forever;
  struct fiber_context main_context;
  void *main_fake_stack;
  const void *main_stack;
  size_t main_stack_size;
  struct fiber *ready_head, **ready_tail;
  size_t ready_count;
  struct fiber *all;
  size_t fiber_count;
  struct fiber *parked_head, *parked_tail;
  struct timer_node trim_timer;
  struct timer_node **heap;
  size_t heap_n, heap_cap;
  struct fd_slot **slots; /* by fd */
  int slots_cap;
};
extern struct loop loop;

/* Parks the running fiber until fiber_resume. */
int fiber_park_internal(usec_t deadline, bool cancellable, bool wakeable);
/* Ends the park of f with this result; nothing when it is not parked. */
void fiber_resume(struct fiber *f, int result);
void fiber_run_ready(void);
/* In loop_reinit: drops all fibers but the one that runs, without running them. */
void fiber_forget_all(void);
void fiber_cancel_all(void);

/* Wakes the loop from another thread or a signal handler. */
void loop_wake(void);

void wait_forget_all(void);
void offload_reap(void);   /* hands results to their fibers */
void offload_forget(void); /* in a forked child */
void offload_done(void);
void child_forget_all(void);
