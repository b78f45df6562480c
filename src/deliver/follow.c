#include "deliver/follow.h"

#include "queue/spool.h"
#include "smtp/client/client.h"

const struct deliver_claims *deliver_claims;

struct smtp_connection *deliver_held(struct message *m) {
  struct smtp_connection *held = m->held;
  m->held = NULL;
  return held;
}

/* The message that waits for this connection. What it leaves in turn is returned. */
static struct smtp_connection *follow_one(struct config *config, struct smtp_connection *n, const struct deliver_how *how) {
  struct arena *a = arena_new("delivery");
  struct ctx *c = ctx_new(a, config);
  struct message *m = NULL;
  struct smtp_connection *held = NULL;
  enum deliver_result end = DELIVER_TROUBLE;
  char id[sizeof n->waiting.id];
  struct str queue_name = str_dup(a, n->waiting.queue_name);
  memcpy(id, n->waiting.id, sizeof id);
  void *claim = deliver_claims ? deliver_claims->claim(queue_name, id) : NULL;
  if ((claim || !deliver_claims) && spool_read_message(c, queue_name, str_c(id), true, &m) == SPOOL_OK && !m->frozen) {
    struct deliver_how own = {.queue_run = true, .over = n, .dont_deliver = how->dont_deliver, .give_up_by = STR_UNSET,
        .select_recipient = STR_UNSET};
    n->passed_on = true;
    n = NULL;
    end = deliver_message(c, m, &own);
    held = deliver_held(m);
  }
  if (claim)
    deliver_claims->release(claim, m, end);
  if (m)
    message_free(m);
  if (n && smtp_wait_next(c, n, &n->waiting)) {
    n->waiting.queue_name = str_dup(n->arena, n->waiting.queue_name);
    held = n;
  } else if (n) {
    n->user = c; /* its end is an event */
    smtp_use(c, n);
    smtp_disconnect(n, true);
  }
  arena_free(a);
  return held;
}

void deliver_follow(struct config *config, struct smtp_connection *held, const struct deliver_how *how) {
  while (held) {
    struct smtp_connection *n = held, *more;
    held = n->next;
    n->next = NULL;
    more = follow_one(config, n, how);
    while (more) {
      struct smtp_connection *one = more;
      more = one->next;
      one->next = held;
      held = one;
    }
  }
}
