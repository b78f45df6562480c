/* Shared memory of master, workers and agent: what one must know of the
others (DESIGN §4). Each worker writes only its own slot; a worker that dies
leaves no count behind, because its slot is cleared by the master. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/ip.h"

#define WORKERS_MAX 64
#define WORKER_SESSIONS_MAX 16384

struct worker_slot {
  _Atomic int pid;
  _Atomic int sessions;           /* connections now open */
  _Atomic int deliveries;         /* messages in delivery now */
  _Atomic int queued;             /* messages in this worker's queue, without named queues */
  _Atomic uint64_t received, delivered;
  /* Hash of each open connection's client address, 0: free. Counting per host is a scan over these; a collision only makes
  a limit a little stricter. */
  _Atomic uint32_t host[WORKER_SESSIONS_MAX];
};

struct scoreboard {
  int workers;
  _Atomic uint32_t generation;
  struct worker_slot worker[WORKERS_MAX];
};

/* In the master, before forking. NULL: no memory. */
struct scoreboard *scoreboard_new(int workers);
/* A connection comes and goes: a place in the slot, or -1 when the worker is full. */
int scoreboard_connect(struct worker_slot *w, const struct ip_addr *ip);
void scoreboard_disconnect(struct worker_slot *w, int place);
int scoreboard_sessions(const struct scoreboard *s);
int scoreboard_sessions_of(const struct scoreboard *s, const struct ip_addr *ip);
void scoreboard_clear(struct worker_slot *w);
