/* The master's part of the validating resolver (dns/validator.h): one process for all workers, started again when it ends. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

struct config;

struct validator_keeper {
  pid_t pid;
  int control;          /* -1: there is none */
  time_t started, restart_at; /* restart_at: 0 when nothing is to be started */
  int pause;            /* seconds; longer each time while it ends soon */
};

/* Starts one if the configuration wants it and it is time. true: a new one runs. */
bool validator_restart(struct validator_keeper *k, const struct config *c);
/* Gives a worker a channel to it, if it runs. */
void validator_connect(const struct validator_keeper *k, int worker_control);
/* A child has ended: true if it was this one. */
bool validator_ended(struct validator_keeper *k, pid_t pid);
/* A worker hears nothing from it: it is ended, but not more often than now and then. */
void validator_hung(const struct validator_keeper *k);
/* The one that runs serves those who have channels to their end; the next one may be started at once. */
void validator_leave(struct validator_keeper *k);
