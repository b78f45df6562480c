/* What a delivery leaves behind: connections that go on with other messages that wait for the same hosts (Exim manual,
section "Multiple messages on a connection"). */
#pragma once

#include "deliver/deliver.h"

/* A worker's queue decides who delivers what; one-shot commands have none, the spool's locks are enough there. */
struct deliver_claims {
  void *(*claim)(struct str queue_name, const char *id); /* NULL: somebody is at it */
  void (*release)(void *claim, const struct message *m, enum deliver_result end); /* m NULL: it could not be read */
};
extern const struct deliver_claims *deliver_claims;

/* Takes what deliver_message has left in the message. */
struct smtp_connection *deliver_held(struct message *m);
/* Delivers one message after the other over them, as long as there are any. `how`: of the delivery that left them. The
messages of before must be free, so that they can be delivered again. [suspends] */
void deliver_follow(struct config *config, struct smtp_connection *held, const struct deliver_how *how);
