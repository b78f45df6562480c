/* The queue's modes: -q, -bp, -M. */

#include <stdio.h>

#include "cli/queue_modes.h"

int mode_queue(struct process *p) {
  if (p->cli.mode == MODE_QUEUE_RUN)
    return mode_run_queue(p);
  fprintf(stderr, "martlet: -bp and -M are not supported yet\n");
  return 1;
}
