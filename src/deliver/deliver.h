/* Delivering a message: routing, transports, outcomes, bounces and warnings,
the spool's update. One fiber a message. */
#pragma once

#include "core/ctx.h"
#include "message/message.h"

#define DELIVER_FORCED 1u         /* -qf, -M: retry times do not count */
#define DELIVER_FORCED_FROZEN 2u  /* -qff, -M: frozen ones too */
#define DELIVER_DRY 4u            /* -N: everything but the transport */
#define DELIVER_QUEUE_RUN 8u      /* woken by a queue run or its time, not fresh: $queue_running */
#define DELIVER_LOCAL_ONLY 16u    /* -ql */
#define DELIVER_MANUAL 32u        /* -M: thaws */

enum deliver_end {
  DELIVER_COMPLETE,  /* nothing is left of it, the spool files are gone */
  DELIVER_WAITING,   /* it stays; m->next_attempt, m->frozen say when it is due */
  DELIVER_LOCKED,    /* another process works on it */
};

/* Delivers what is due of a message that this process has locked (fresh from spool_commit, or spool_read_message with lock).
The caller frees m. [suspends] */
enum deliver_end deliver_message(struct ctx *c, struct message *m, unsigned how);

/* Who gets the messages that deliveries write (bounces, warnings): takes them over as smtp_hooks.accepted does. Without, they
wait on disk. */
void deliver_set_submitted(void (*fn)(void *arg, struct ctx *c, struct message *m), void *arg);
