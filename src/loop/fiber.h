/* Fibers on an event loop (DESIGN §4). One loop per process, one thread runs
it; each fiber has its own guarded stack. Code that waits suspends its fiber,
so policy code reads from top to bottom. Functions marked [suspends] may
suspend: nobody may hold a pointer into another session's arena across one.

One-shot commands run the same code: loop_run(main_fn) runs until the first
fiber and all it spawned have ended. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fiber;
struct event_base;

/* Deadlines are absolute, in microseconds of the monotonic clock. */
typedef int64_t usec_t;
#define USEC_PER_SEC 1000000LL
#define DEADLINE_NEVER INT64_MAX
usec_t loop_now(void);      /* the clock, cached once per turn of the loop */
uint64_t loop_turns(void);  /* of the loop so far: within one turn nothing from outside has been read */
usec_t loop_now_fresh(void);
static inline usec_t deadline_in(int64_t seconds) {
  return seconds <= 0 || seconds > DEADLINE_NEVER / USEC_PER_SEC / 2 ? DEADLINE_NEVER : loop_now_fresh() + seconds * USEC_PER_SEC;
}

/* Starts the loop in this process: call once after each fork of a process
that will use fibers (a forked child must call loop_reinit instead). */
void loop_init(void);
/* In a forked child: forgets the parent's fibers, fds, timers, signal handlers
and children. Allowed on a fiber, which must then not return from its function. */
void loop_reinit(void);
struct event_base *loop_event_base(void);

/* Runs fn(arg) as the first fiber and turns the loop until every fiber has
ended or loop_stop() was called. Returns fn's return value. */
int loop_run(int (*fn)(void *arg), void *arg);
/* Turns the loop until loop_stop(), also when there are no fibers. */
void loop_run_forever(void);
void loop_stop(void);
/* Cancels the fibers that are left, then frees loop, pooled stacks and offload
threads (for leak checkers). */
void loop_done(void);

/* A new fiber; it starts at the next turn of the loop. `name` is a literal.
Ends when fn returns. */
struct fiber *fiber_spawn(const char *name, void (*fn)(void *arg), void *arg);
struct fiber *fiber_self(void); /* NULL outside of a fiber */
const char *fiber_name(const struct fiber *f);
size_t fiber_count(void);
/* A slot of the fiber for its context (struct ctx *), for logging and debugging. */
void *fiber_local(void);
void fiber_set_local(void *p);
/* A number that fibers spawned from this one inherit: which work they belong to, for debug logs. 0: none. */
unsigned fiber_tag(void);
void fiber_set_tag(unsigned tag);

/* Cancels: each wait of the fiber fails at once with -ECANCELED from now on. */
void fiber_cancel(struct fiber *f);
bool fiber_cancelled(void);
/* Waits for the end of another fiber that was spawned with fiber_spawn_joinable;
each such fiber must be joined once. Not cancellable. [suspends] */
struct fiber *fiber_spawn_joinable(const char *name, void (*fn)(void *arg), void *arg);
void fiber_join(struct fiber *f);

#define FIBER_READ 1
#define FIBER_WRITE 2
/* Waits until fd is ready. [suspends] Returns the ready FIBER_* bits, or
-ETIMEDOUT at the deadline, or -ECANCELED. Outside of a fiber it polls. */
int fiber_wait_fd(int fd, int events, usec_t deadline);
/* As poll(2): waits until one of the fds is ready and fills in revents.
[suspends] Returns their number, or -ETIMEDOUT, -ECANCELED, or another -errno. */
struct pollfd;
int fiber_poll(struct pollfd *fds, unsigned n, usec_t deadline);

/* By default each wait adds the fd to the kernel's set and removes it again, so
that libraries may close their fds when they like. Who owns an fd and waits for
it often may have it kept in the set: between loop_keep_fd and loop_forget_fd,
which must come before close. Then one fiber may wait for reading and one for
writing. Streams do this. */
void loop_keep_fd(int fd);
void loop_forget_fd(int fd); /* nothing when it is not kept */
/* As fiber_wait_fd, for a kept non-blocking fd right after a call returned
EAGAIN: saves system calls, but may return although the fd is not ready. */
int fiber_wait_again(int fd, int events, usec_t deadline);

/* [suspends] 0 or -ECANCELED. Outside of a fiber it sleeps. */
int fiber_sleep(usec_t duration);
/* Lets other fibers run. [suspends] */
void fiber_yield(void);

/* Low level: park until fiber_wake(f) or the deadline. Returns 0, -ETIMEDOUT
or -ECANCELED. fiber_wake is for this thread only, and does nothing when f is not
parked in fiber_park: check the condition before parking. [suspends] */
int fiber_park(usec_t deadline);
void fiber_wake(struct fiber *f);

/* Counting semaphore in FIFO order; a lock is one of count 1. */
struct fiber_sem {
  int count;
  struct fiber_waiter *head, **tail;
};
void fiber_sem_init(struct fiber_sem *s, int count);
int fiber_sem_acquire(struct fiber_sem *s, usec_t deadline); /* [suspends] 0, -ETIMEDOUT, -ECANCELED */
bool fiber_sem_try(struct fiber_sem *s);
void fiber_sem_release(struct fiber_sem *s);

/* Runs fn(arg) in a thread of a small pool and waits for it: for calls that
cannot be made non-blocking (NSS, PAM, fsync, local file delivery). fn must
not touch fibers, the loop, or any arena that others use meanwhile. Returns
fn's value. Outside of a fiber, also inside of another fn, it just calls fn. Not
cancellable. [suspends] */
int fiber_offload(int (*fn)(void *arg), void *arg);

/* A timer without a fiber: fn(arg) runs in the loop once, after `delay`. */
struct loop_timer;
struct loop_timer *loop_timer_start(usec_t delay, void (*fn)(void *arg), void *arg);
void loop_timer_stop(struct loop_timer *t); /* not after it has run */

/* fn(signo, arg) runs in the loop, not in the handler. NULL: back to the default. */
void loop_on_signal(int signo, void (*fn)(int signo, void *arg), void *arg);
