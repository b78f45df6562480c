/* What the queue's modes share: messages that their deliveries write (bounces,
warnings) are delivered by the same process, each after what caused it. */
#pragma once

#include "cli/process.h"

struct queue_mode_kept {
  struct process *p;
  struct queue_mode_item *first, **last;
};

void queue_mode_keep_submitted(struct queue_mode_kept *k, struct process *p);
/* [suspends] */
/* False: with mua_wrapper, one of them could not be delivered. */
bool queue_mode_deliver_kept(struct queue_mode_kept *k);

/* The next one, taken out; NULL: none. */
struct message *queue_mode_take_kept(struct queue_mode_kept *k);

int mode_run_queue(struct process *p);
