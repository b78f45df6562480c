/* Which messages wait for which hosts (Exim manual, "Multiple messages on a connection" and exim_dumpdb): a connection that
has carried one message goes on with the next. Records are hints: the queue is complete without them. Each message has one of
its own, "host id" ("host:port id" where the port is not 25: what waits for one port cannot go to another), so that the many
that wait for a dead host cost no more than the few. */

#include <stdio.h>

#include "expand/expand.h"
#include "hints/records.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/client.h"

#define LOOKS_MAX 1000 /* records that are looked at for one message */
#define FOUND_MAX 10   /* messages that are looked at for one message */
#define USUAL_PORT 25

bool (*smtp_wait_is_ours)(const char *id);
void (*smtp_wait_noted)(const struct message *m, struct str host);

static const char *database(struct ctx *c, const struct instance *t) {
  return str_printf(c->arena, "wait-%.*s", STRF(str_slice(t->name, 0, 200))).p;
}

/* What the records of a host's port begin with. */
static struct str prefix_of(struct ctx *c, struct str host, int port) {
  struct str name = str_lower(c->arena, host);
  return port == USUAL_PORT ? str_cat(c->arena, name, STR(" ")) : str_tainted(str_printf(c->arena, "%.*s:%d ", STRF(name), port));
}

static struct str key_of(struct ctx *c, struct str host, int port, const char *id) {
  return str_tainted(str_cat(c->arena, prefix_of(c, host, port), str_c(id)));
}

static int port_of(const struct host *h, int port) { return h->port > 0 ? h->port : port; }

static bool named_before(const struct host *hosts, const struct host *h, int port) {
  for (; hosts != h; hosts = hosts->next)
    if (str_ieq(hosts->name, h->name) && port_of(hosts, port) == port_of(h, port))
      return true;
  return false;
}

void smtp_wait_note(struct ctx *c, const struct instance *t, const struct host *hosts, int port) {
  const char *db = database(c, t);
  if (smtp_client_options(t)->connection_max_messages == 1)
    return;
  for (const struct host *h = hosts; h; h = h->next)
    if (!named_before(hosts, h, port)) {
      (void)hints_put(c, db, key_of(c, h->name, port_of(h, port), c->message->id), c->message->queue_name);
      if (smtp_wait_noted)
        smtp_wait_noted(c->message, h->name);
    }
}

void smtp_wait_forget(struct ctx *c, const struct instance *t, const struct host *hosts, int port) {
  const char *db = database(c, t);
  for (const struct host *h = hosts; h; h = h->next)
    if (!named_before(hosts, h, port))
      (void)hints_delete(c, db, key_of(c, h->name, port_of(h, port), c->message->id));
}

/* --- the next one --- */

struct look {
  struct str prefix;           /* "host " or "host:port " */
  const char *self;            /* the message that has just been sent */
  struct arena *arena;
  VEC(struct smtp_waiting) found;
  size_t left;
};

static bool look_at(struct str key, struct str value, void *arg) {
  struct look *l = arg;
  struct smtp_waiting w;
  if (!str_starts(key, l->prefix) || !l->left--)
    return false;
  struct str id = str_from(key, l->prefix.len);
  if (id.len >= sizeof w.id || str_eq_c(id, l->self))
    return true;
  snprintf(w.id, sizeof w.id, "%.*s", STRF(id));
  if (smtp_wait_is_ours && !smtp_wait_is_ours(w.id))
    return true;
  w.queue_name = str_dup(l->arena, value);
  vec_push(l->arena, &l->found, w);
  return l->found.n < FOUND_MAX;
}

/* `interface` may say that the other message has to come from another address of ours. */
static bool same_interface(struct ctx *c, const struct smtp_connection *n, const struct message *m) {
  const struct option_expr *o = &smtp_client_options(n->transport)->interface;
  if (!str_is_set(o->text) || str_find_byte(o->text, '$') < 0)
    return true;
  struct ctx *other = ctx_new(c->arena, c->config);
  struct host *h = arena_new_of(c->arena, struct host);
  struct str interface;
  h->name = n->host_name;
  h->address = n->host_address;
  h->ip = n->ip;
  h->dnssec = n->host_secure;
  other->message = (struct message *)(uintptr_t)m;
  other->client = &other->message->client;
  other->transport = n->transport;
  other->host = h;
  return expand_option(other, o, &interface) == 0 &&
         str_eq(smtp_pool_key(other, n->transport, n->port, interface), n->key);
}

bool smtp_wait_next(struct ctx *c, const struct smtp_connection *n, struct smtp_waiting *ret) {
  const char *db = database(c, n->transport);
  struct look l = {.prefix = prefix_of(c, n->host_name, n->port), .self = c->message ? c->message->id : "", .arena = c->arena,
      .left = LOOKS_MAX};
  if (hints_each_from(c, db, l.prefix, look_at, &l) != OUTCOME_OK)
    return false;
  for (size_t i = 0; i < l.found.n; i++) {
    struct smtp_waiting *w = &l.found.v[i];
    struct message *m = NULL;
    enum spool_read r = spool_read_message(c, w->queue_name, str_c(w->id), false, &m);
    bool frozen = r == SPOOL_OK && m->frozen, fits = r == SPOOL_OK && !frozen && same_interface(c, n, m);
    if (r == SPOOL_OK)
      message_free(m);
    if (fits || frozen || r == SPOOL_NOT_FOUND)
      (void)hints_delete(c, db, key_of(c, n->host_name, n->port, w->id));
    if (fits) {
      *ret = *w;
      return true;
    }
  }
  return false;
}
