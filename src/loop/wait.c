/* Waiting for file descriptors. Two ways: a kept fd has one edge-triggered
registration for all its life, others are registered for each wait. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "loop/loop_internal.h"

/* A kept fd. */
struct fd_slot {
  struct event event;
  struct fiber *reader, *writer;
  bool added;
};

static struct fd_slot *slot_of(int fd) { return fd < loop.slots_cap ? loop.slots[fd] : NULL; }

void loop_keep_fd(int fd) {
  if (!loop.base || fd < 0)
    return;
  if (fd >= loop.slots_cap) {
    int cap = loop.slots_cap ? loop.slots_cap : 64;
    while (cap <= fd)
      cap *= 2;
    loop.slots = xrealloc(loop.slots, (size_t)cap * sizeof *loop.slots);
    memset(loop.slots + loop.slots_cap, 0, (size_t)(cap - loop.slots_cap) * sizeof *loop.slots);
    loop.slots_cap = cap;
  }
  if (!loop.slots[fd])
    loop.slots[fd] = xcalloc(1, sizeof(struct fd_slot));
}

static void slot_free(struct fd_slot *slot) {
  if (slot->added)
    event_del(&slot->event);
  free(slot);
}

void loop_forget_fd(int fd) {
  struct fd_slot *slot = fd >= 0 ? slot_of(fd) : NULL;
  if (!slot)
    return;
  loop.slots[fd] = NULL;
  if (slot->reader)
    fiber_resume(slot->reader, -ECANCELED);
  if (slot->writer)
    fiber_resume(slot->writer, -ECANCELED);
  slot_free(slot);
}

void wait_forget_all(void) {
  for (int i = 0; i < loop.slots_cap; i++)
    if (loop.slots[i])
      slot_free(loop.slots[i]);
  free(loop.slots);
  loop.slots = NULL;
  loop.slots_cap = 0;
}

static void on_slot(int fd, short what, void *arg) {
  struct fd_slot *slot = arg;
  if (what & EV_READ && slot->reader)
    fiber_resume(slot->reader, 0);
  if (what & EV_WRITE && slot->writer)
    fiber_resume(slot->writer, 0);
}

/* The registration is made at the first wait: many fds never need one. */
static bool slot_add(struct fd_slot *slot, int fd) {
  if (slot->added)
    return true;
  event_assign(&slot->event, loop.base, fd, EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_slot, slot);
  slot->added = event_add(&slot->event, NULL) == 0;
  return slot->added;
}

static void on_single(int fd, short what, void *arg) { fiber_resume(arg, 0); }

static bool any_bit(short revents, int events) {
  if (revents & (POLLERR | POLLHUP | POLLNVAL))
    return true;
  return (events & FIBER_READ && revents & POLLIN) || (events & FIBER_WRITE && revents & POLLOUT);
}

/* poll(2) for code outside of fibers; EINTR starts again. */
static int poll_blocking(struct pollfd *fds, unsigned n, usec_t deadline) {
  for (;;) {
    int ms = -1;
    if (deadline != DEADLINE_NEVER) {
      usec_t left = deadline - loop_now_fresh();
      ms = left <= 0 ? 0 : left > 3600 * USEC_PER_SEC ? 3600 * 1000 : (int)((left + 999) / 1000);
    }
    int r = poll(fds, n, ms);
    if (r > 0)
      return r;
    if (r < 0 && errno != EINTR)
      return -errno;
    if (r == 0 && deadline != DEADLINE_NEVER && loop_now_fresh() >= deadline)
      return -ETIMEDOUT;
  }
}

/* One fd's part in a wait: the slot it uses, or an event of its own. */
struct part {
  struct event event;
  struct fd_slot *slot;
  bool added;
};

static int part_start(struct part *p, const struct pollfd *fd, struct fiber *self) {
  p->added = false;
  p->slot = NULL;
  if (fd->fd < 0)
    return 0;
  p->slot = slot_of(fd->fd);
  bool in = fd->events & (POLLIN | POLLPRI), out = fd->events & POLLOUT;
  if (p->slot) {
    if (!slot_add(p->slot, fd->fd))
      return -EPERM;
    if ((in && p->slot->reader) || (out && p->slot->writer)) {
      p->slot = NULL; /* not ours to clear */
      return -EBUSY;
    }
    if (in)
      p->slot->reader = self;
    if (out)
      p->slot->writer = self;
    return 0;
  }
  event_assign(&p->event, loop.base, fd->fd, (short)((in ? EV_READ : 0) | (out ? EV_WRITE : 0)), on_single, self);
  p->added = event_add(&p->event, NULL) == 0;
  return p->added ? 0 : -EPERM;
}

static void part_end(struct part *p, int fd, const struct fiber *self) {
  if (p->added)
    event_del(&p->event);
  /* The slot may have been forgotten while we waited. */
  if (!p->slot || slot_of(fd) != p->slot)
    return;
  if (p->slot->reader == self)
    p->slot->reader = NULL;
  if (p->slot->writer == self)
    p->slot->writer = NULL;
}

static int wait_parts(struct part *parts, struct pollfd *fds, unsigned n, usec_t deadline) {
  struct fiber *self = fiber_self();
  unsigned started = 0;
  int r = 0;
  while (started < n && r == 0) {
    r = part_start(&parts[started], &fds[started], self);
    started++;
  }
  if (r == 0)
    r = fiber_park_internal(deadline, true, false);
  for (unsigned i = 0; i < started; i++)
    part_end(&parts[i], fds[i].fd, self);
  return r;
}

#define PARTS_ON_STACK 4

int fiber_poll(struct pollfd *fds, unsigned n, usec_t deadline) {
  if (!fiber_self() || !loop.base)
    return poll_blocking(fds, n, deadline);
  if (fiber_cancelled())
    return -ECANCELED;
  struct part few[PARTS_ON_STACK];
  struct part *parts = NULL;
  int r;
  for (;;) {
    r = poll(fds, n, 0);
    if (r < 0)
      r = errno == EINTR ? 0 : -errno;
    if (r != 0)
      break;
    if (!parts)
      parts = n <= PARTS_ON_STACK ? few : xcalloc(n, sizeof *parts);
    int w = wait_parts(parts, fds, n, deadline);
    if (w < 0) {
      r = w == -ETIMEDOUT && poll(fds, n, 0) > 0 ? 1 : w; /* a late turn of the loop is not the peer's fault */
      break;
    }
  }
  if (parts != few)
    free(parts);
  if (r < 0)
    return r;
  int ready = 0;
  for (unsigned i = 0; i < n; i++)
    ready += fds[i].revents != 0;
  return ready;
}

static int ready_bits(const struct pollfd *p, int events) {
  if (p->revents & POLLNVAL)
    return -EBADF;
  int bits = 0;
  if (events & FIBER_READ && any_bit(p->revents, FIBER_READ))
    bits |= FIBER_READ;
  if (events & FIBER_WRITE && any_bit(p->revents, FIBER_WRITE))
    bits |= FIBER_WRITE;
  return bits;
}

int fiber_wait_fd(int fd, int events, usec_t deadline) {
  struct pollfd p = {.fd = fd};
  p.events = (short)((events & FIBER_READ ? POLLIN : 0) | (events & FIBER_WRITE ? POLLOUT : 0));
  int r = fiber_poll(&p, 1, deadline);
  return r < 0 ? r : ready_bits(&p, events);
}

int fiber_wait_again(int fd, int events, usec_t deadline) {
  struct fiber *self = fiber_self();
  struct fd_slot *slot = self && loop.base ? slot_of(fd) : NULL;
  if (!slot || !slot->added) /* the first registration reports the state at once: no edge is lost */
    return fiber_wait_fd(fd, events, deadline);
  if (fiber_cancelled())
    return -ECANCELED;
  struct pollfd p = {.fd = fd};
  p.events = (short)((events & FIBER_READ ? POLLIN : 0) | (events & FIBER_WRITE ? POLLOUT : 0));
  struct part part;
  int r = wait_parts(&part, &p, 1, deadline);
  return r < 0 ? r : events;
}
