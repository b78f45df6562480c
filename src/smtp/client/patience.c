#include "smtp/client/patience.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define AGAIN_DEAD 15   /* seconds; more the more are sent away, so that looking at them again stays cheap */
#define AGAIN_BUSY 1
#define AGAIN_EACH 10   /* of so many sent away, one a second */
#define AGAIN_MOST 300

/* There are only records of hosts that are in use now. */
struct patience_host {
  char *address;
  size_t len;
  int port, users, sent_away;
  usec_t heard; /* 0: never */
  struct patience_host *next;
};

static struct {
  int waiting_most, all_most;
  struct patience_host *hosts;
  struct patience *users;
} here;

void patience_limit(int waiting, int all) {
  here.waiting_most = waiting;
  here.all_most = all;
}

static struct patience_host *find(struct str address, int port) {
  struct patience_host *h = here.hosts;
  while (h && !(h->port == port && h->len == address.len && !memcmp(h->address, address.p, h->len)))
    h = h->next;
  return h;
}

static bool waits(const struct patience *p, usec_t now) { return now - p->since >= PATIENCE_WAIT; }

static bool seems_dead(const struct patience_host *h, usec_t now) {
  int n = 0;
  if (h->heard && now - h->heard < PATIENCE_DEAD)
    return false;
  for (const struct patience *p = here.users; p; p = p->next)
    n += p->host == h && waits(p, now);
  return n >= here.waiting_most;
}

bool patience_full(struct str address, int port) {
  struct patience_host *h = here.waiting_most ? find(address, port) : NULL;
  if (!h || !(h->users >= here.all_most || seems_dead(h, loop_now_fresh())))
    return false;
  h->sent_away++;
  return true;
}

int patience_again(struct str address, int port) {
  const struct patience_host *h = find(address, port);
  int more = h ? h->sent_away / AGAIN_EACH : 0, seconds = h && seems_dead(h, loop_now_fresh()) ? AGAIN_DEAD : AGAIN_BUSY;
  return more > AGAIN_MOST - seconds ? AGAIN_MOST : seconds + more;
}

static void enter(struct patience *p) {
  for (const struct patience *o = here.users; o && !p->second; o = o->next)
    p->second = o->message == p->message && !o->second;
  p->next = here.users;
  here.users = p;
}

void patience_begin_routing(struct patience *p, const struct message *m, struct str recipient) {
  *p = (struct patience){.message = m, .fiber = fiber_self(), .since = loop_now_fresh(), .host_name = STR_EMPTY, .host_address = STR_EMPTY,
      .recipient = recipient};
  enter(p);
}

void patience_begin(struct patience *p, const struct message *m, struct str address, int port) {
  *p = (struct patience){.host = find(address, port), .message = m, .fiber = fiber_self(), .since = loop_now_fresh(),
      .host_name = STR_EMPTY, .host_address = address, .recipient = STR_EMPTY};
  if (!p->host) {
    struct patience_host *h = xcalloc(1, sizeof *h);
    h->address = xmalloc(address.len + 1);
    memcpy(h->address, address.p ? address.p : "", address.len);
    h->len = address.len;
    h->port = port;
    h->next = here.hosts;
    here.hosts = p->host = h;
  }
  p->host->users++;
  enter(p);
}

static void drop_host(struct patience_host *h) {
  struct patience_host **link = &here.hosts;
  while (*link != h)
    link = &(*link)->next;
  *link = h->next;
  free(h->address);
  free(h);
}

void patience_end(struct patience *p) {
  struct patience **link = &here.users;
  while (*link != p)
    link = &(*link)->next;
  *link = p->next;
  if (p->host && --p->host->users == 0)
    drop_host(p->host);
  for (struct patience *o = p->second ? NULL : here.users; o; o = o->next)
    if (o->message == p->message) {
      o->second = false;
      break;
    }
}

void patience_progress(void) {
  const struct fiber *self = here.users ? fiber_self() : NULL;
  for (struct patience *p = self ? here.users : NULL; p; p = p->next)
    if (p->fiber == self && p->host) {
      p->since = p->host->heard = loop_now_fresh();
      return;
    }
}

const struct patience *patience_first(void) { return here.users; }

int patience_waiting(void) {
  usec_t now = loop_now_fresh();
  int n = 0;
  for (const struct patience *p = here.users; p; p = p->next)
    n += !p->second && waits(p, now);
  return n;
}
