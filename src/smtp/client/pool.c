/* Connections that are kept for the next message to the same place. Few, and
not for long: a server counts its idle clients too. */

#include "core/build.h"
#include "loop/fiber.h"
#include "smtp/client/client.h"
#include "transport/event.h"

#define POOL_MAX 64
#define POOL_PER_KEY 8
#define POOL_SECONDS 2

static struct smtp_connection *pool;
static int pool_n;
static bool sweeping;

struct str smtp_pool_key(struct ctx *c, const struct instance *t, int port, struct str interface) {
  const struct smtp_client_options *o = smtp_client_options(t);
  struct str policy = smtp_sts_watches(c, o) && str_is_set(c->vars.domain) ? c->vars.domain : STR_EMPTY;
  return str_printf(c->arena, "%.*s [%.*s]:%d from %.*s by %.*s %u %d %d %.*s", STRF(c->host->name), STRF(c->host->address), port, STRF(interface),
      STRF(t->name), c->config->generation, (int)smtp_requiretls_mode(c, o), (int)smtp_dane_mode(c, o), STRF(policy));
}

struct smtp_connection *smtp_pool_take(struct str key) {
  for (struct smtp_connection **p = &pool; *p; p = &(*p)->next) {
    struct smtp_connection *n = *p;
    if (!str_eq(n->key, key))
      continue;
    *p = n->next;
    pool_n--;
    n->next = NULL;
    if (!stream_input_pending(n->stream)) /* else it said something or hung up meanwhile */
      return n;
    smtp_disconnect(n, false);
    return smtp_pool_take(key);
  }
  return NULL;
}

/* A timer, not a fiber: one-shot commands end when their last fiber does. Saying QUIT to a connection that was idle does
not wait. */
static void sweep(void *arg) {
  usec_t now = loop_now_fresh();
  struct smtp_connection *gone = NULL;
  sweeping = false;
  for (struct smtp_connection **p = &pool; *p;) {
    struct smtp_connection *n = *p;
    if (now - n->idle_since < POOL_SECONDS * USEC_PER_SEC) {
      p = &n->next;
      continue;
    }
    *p = n->next;
    pool_n--;
    n->next = gone;
    gone = n;
  }
  while (gone) {
    struct smtp_connection *n = gone;
    gone = n->next;
    smtp_disconnect(n, true);
  }
  if (pool) {
    sweeping = true;
    (void)loop_timer_start(USEC_PER_SEC, sweep, NULL);
  }
}

void smtp_pool_keep(struct smtp_connection *n) {
  int same = 0;
  if (n->reversed)
    return; /* its owner's */
  for (struct smtp_connection *p = pool; p; p = p->next)
    same += str_eq(p->key, n->key);
  /* With an event action each message sees its connection's events: tcp:close belongs to whoever had tcp:connect. */
  bool watched = n->user && event_wanted(n->user, n->transport);
  if ((watched && !n->txn_open) || n->unusable || smtp_early_owed(&n->early) || (build.no_connection_pool && !n->txn_open) || pool_n >= POOL_MAX || same >= POOL_PER_KEY) {
    smtp_disconnect(n, true);
    return;
  }
  n->user = NULL;
  n->idle_since = loop_now_fresh();
  n->next = pool;
  pool = n;
  pool_n++;
  if (!sweeping) {
    sweeping = true;
    (void)loop_timer_start(USEC_PER_SEC, sweep, NULL);
  }
}

void smtp_pool_close_all(void) {
  while (pool) {
    struct smtp_connection *n = pool;
    pool = n->next;
    pool_n--;
    smtp_disconnect(n, true);
  }
}
