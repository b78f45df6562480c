/* A worker asks and tells here with each reply and each message that it might begin, while hundreds of deliveries wait, so nothing is
found by walking through them. They are in one list in the order of their last sign of life: those that wait are its beginning,
up to `fresh`, and are counted when somebody asks. */
#include "smtp/client/patience.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define AGAIN_DEAD 15   /* seconds; more the more are sent away, so that looking at them again stays cheap */
#define AGAIN_BUSY 1
#define AGAIN_EACH 10   /* of so many sent away, one a second */
#define AGAIN_MOST 300

#define BUCKET_BITS 9
#define BUCKETS (1 << BUCKET_BITS)

/* There are only records of hosts that are in use now. */
struct patience_host {
  char *address;
  size_t len;
  int port, users, waiting, sent_away;
  usec_t heard; /* 0: never */
  struct patience_host *next;
};

static struct {
  int waiting_most, all_most;
  int waiting; /* messages, of those that are counted */
  struct patience *first, *last, *fresh; /* fresh: the first that is not counted */
  struct patience_host *hosts[BUCKETS];
  struct patience *fibers[BUCKETS], *messages[BUCKETS]; /* the newest of each chain first */
  usec_t (*clock)(void);
} here = {.clock = loop_now_fresh};

void patience_set_clock(usec_t (*clock)(void)) { here.clock = clock ? clock : loop_now_fresh; }

void patience_limit(int waiting, int all) {
  here.waiting_most = waiting;
  here.all_most = all;
}

static struct patience **chain(struct patience **buckets, const void *key) {
  return buckets + ((uint64_t)(uintptr_t)key * 0x9e3779b97f4a7c15u >> (64 - BUCKET_BITS));
}

static struct patience_host **host_chain(const char *address, size_t len, int port) {
  return here.hosts + ((str_hash(str_n(address, len)) + (uint64_t)port) & (BUCKETS - 1));
}

static struct patience_host *find(struct str address, int port) {
  struct patience_host *h = *host_chain(address.p, address.len, port);
  while (h && !(h->port == port && h->len == address.len && !memcmp(h->address, address.p, h->len)))
    h = h->next;
  return h;
}

/* --- those that wait --- */

static void count(struct patience *p, int by) {
  p->counted = by > 0;
  if (p->host)
    p->host->waiting += by;
  if (!p->second)
    here.waiting += by;
}

static usec_t count_all(void) {
  usec_t now = here.clock();
  for (; here.fresh && now - here.fresh->since >= PATIENCE_WAIT; here.fresh = here.fresh->next)
    count(here.fresh, 1);
  return now;
}

static void set_second(struct patience *p, bool second) {
  bool counted = p->counted;
  if (counted)
    count(p, -1);
  p->second = second;
  if (counted)
    count(p, 1);
}

static void append(struct patience *p) {
  p->since = here.clock();
  p->next = NULL;
  p->prev = here.last;
  if (here.last)
    here.last->next = p;
  else
    here.first = p;
  here.last = p;
  if (!here.fresh)
    here.fresh = p;
}

static void take_out(struct patience *p) {
  if (p->counted)
    count(p, -1);
  if (here.fresh == p)
    here.fresh = p->next;
  if (p->prev)
    p->prev->next = p->next;
  else
    here.first = p->next;
  if (p->next)
    p->next->prev = p->prev;
  else
    here.last = p->prev;
}

static bool seems_dead(const struct patience_host *h) {
  usec_t now = count_all();
  return (!h->heard || now - h->heard >= PATIENCE_DEAD) && h->waiting >= here.waiting_most;
}

/* Half of the places, until it has said a word: it may be dead, which a second tells. */
static int most_for(const struct patience_host *h) { return h->heard ? here.all_most : (here.all_most + 1) / 2; }

bool patience_full(struct str address, int port) {
  struct patience_host *h = here.waiting_most ? find(address, port) : NULL;
  if (!h || !(h->users >= most_for(h) || seems_dead(h)))
    return false;
  h->sent_away++;
  return true;
}

int patience_again(struct str address, int port) {
  const struct patience_host *h = find(address, port);
  int more = h ? h->sent_away / AGAIN_EACH : 0, seconds = h && seems_dead(h) ? AGAIN_DEAD : AGAIN_BUSY;
  return more > AGAIN_MOST - seconds ? AGAIN_MOST : seconds + more;
}

int patience_waiting(void) {
  count_all();
  return here.waiting;
}

const struct patience *patience_first(void) { return here.first; }

/* --- beginning, progress, end --- */

static void enter(struct patience *p) {
  struct patience **of_fiber = chain(here.fibers, p->fiber), **of_message = chain(here.messages, p->message);
  for (const struct patience *o = *of_message; o && !p->second; o = o->next_of_message)
    p->second = o->message == p->message;
  p->next_of_fiber = *of_fiber;
  *of_fiber = p;
  p->next_of_message = *of_message;
  *of_message = p;
  append(p);
}

void patience_begin_routing(struct patience *p, const struct message *m, struct str recipient) {
  *p = (struct patience){.message = m, .fiber = fiber_self(), .host_name = STR_EMPTY, .host_address = STR_EMPTY, .recipient = recipient};
  enter(p);
}

static struct patience_host *host_new(struct str address, int port) {
  struct patience_host *h = xcalloc(1, sizeof *h), **hosts = host_chain(address.p, address.len, port);
  h->address = xmalloc(address.len + 1);
  memcpy(h->address, address.p ? address.p : "", address.len);
  h->len = address.len;
  h->port = port;
  h->next = *hosts;
  return *hosts = h;
}

static void host_free(struct patience_host *h) {
  struct patience_host **link = host_chain(h->address, h->len, h->port);
  while (*link != h)
    link = &(*link)->next;
  *link = h->next;
  free(h->address);
  free(h);
}

void patience_begin(struct patience *p, const struct message *m, struct str address, int port) {
  *p = (struct patience){.host = find(address, port), .message = m, .fiber = fiber_self(), .host_name = STR_EMPTY,
      .host_address = address, .recipient = STR_EMPTY};
  if (!p->host)
    p->host = host_new(address, port);
  p->host->users++;
  enter(p);
}

void patience_end(struct patience *p) {
  struct patience **of_fiber = chain(here.fibers, p->fiber), **of_message = chain(here.messages, p->message);
  take_out(p);
  while (*of_fiber != p)
    of_fiber = &(*of_fiber)->next_of_fiber;
  *of_fiber = p->next_of_fiber;
  struct patience **link = of_message;
  while (*link != p)
    link = &(*link)->next_of_message;
  *link = p->next_of_message;
  if (p->host && --p->host->users == 0)
    host_free(p->host);
  struct patience *heir = p->second ? NULL : *of_message;
  while (heir && heir->message != p->message)
    heir = heir->next_of_message;
  if (heir)
    set_second(heir, false);
}

void patience_progress(void) {
  const struct fiber *self = here.first ? fiber_self() : NULL;
  struct patience *p = self ? *chain(here.fibers, self) : NULL;
  while (p && !(p->fiber == self && p->host))
    p = p->next_of_fiber;
  if (!p)
    return;
  take_out(p);
  append(p);
  p->host->heard = p->since;
}
