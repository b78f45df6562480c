/* Main options that are Martlet's own: how many processes, how much at once. */
#pragma once

#include "config/config.h"

struct daemon_options {
  int64_t worker_processes;   /* 0: one a core */
  int64_t worker_connections; /* SMTP sessions a worker serves at one time; more wait in the listen queue. 0: as smtp_accept_max asks for */
  int64_t worker_deliveries;  /* messages a worker delivers at one time */
  bool sandbox;               /* workers beside an agent: system call filter */
  bool key_isolation;         /* private keys are in a process of their own */
  struct str key_isolation_files; /* beside those that options name: a list of files, and of directories with a slash behind */
  struct str submission_socket; /* where ordinary users hand mail in; unset: by default, empty: nowhere */
};

extern const struct module daemon_module;
const struct daemon_options *daemon_options(const struct config *c);
