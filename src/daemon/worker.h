/* A worker's state, shared by its files. */
#pragma once

#include <time.h>
#include "daemon/daemon.h"
#include "loop/fiber.h"

struct worker {
  struct worker_params p;
  struct config *config;
  struct arena *arena;
  struct worker_slot *slot;
  bool draining;
  time_t draining_since;
  int sessions, deliveries;
  int sessions_max; /* more connections wait to be accepted */
  struct fiber *scheduler, *control_fiber;
  struct fiber *accepters[LISTENERS_MAX + 2]; /* what ends when the worker is to make room */
  int accepters_n;
  bool accept_paused;
  struct fiber *paused[LISTENERS_MAX];
  int paused_n;
};
