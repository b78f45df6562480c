/* Remote deliveries: addresses for the same hosts go together, groups run in
parallel up to remote_max_parallel (Exim manual, sections "Delivery in detail"
and the option remote_max_parallel). */

#include "base/time.h"
#include "core/build.h"
#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "transport/header.h"
#include "transport/transport.h"

#define BUCKETS 256 /* of groups, by their hosts */

struct group {
  struct address *first, *last;
  int64_t n, max;       /* addresses; max 0: any number */
  uint64_t key;         /* of its hosts */
  struct group *next;   /* in its bucket: those that have room, the oldest first */
};

struct remote_run {
  struct delivery *d;
  VEC(struct address *) groups;
  struct group *open[BUCKETS];
  size_t next, running;
  struct fiber_sem journal;
  struct fiber_sem turn; /* of a build whose logs must not depend on luck */
  bool by_turns;
};

/* --- groups --- */

static size_t host_count(const struct host *h) {
  size_t n = 0;
  for (; h; h = h->next)
    n++;
  return n;
}

static bool same_host(const struct host *a, const struct host *b) {
  return a->port == b->port && a->mx == b->mx && str_ieq(a->name, b->name) && str_is_set(a->address) == str_is_set(b->address) &&
         (!str_is_set(a->address) || str_eq(a->address, b->address));
}

/* Lists are the same in the same order; hosts of equal preference, and those that were put in random order, in any. */
static bool same_hosts(const struct host *a, const struct host *b) {
  if (a == b)
    return true;
  if (host_count(a) != host_count(b))
    return false;
  while (a) {
    const struct host *a_end = a, *b_end = b;
    bool random = a->mx < -1 || a->mx >= 0;
    if (!random) {
      if (!same_host(a, b))
        return false;
      a = a->next;
      b = b->next;
      continue;
    }
    size_t n = 0;
    while (a_end && a_end->mx == a->mx) {
      a_end = a_end->next;
      n++;
    }
    for (size_t i = 0; i < n && b_end; i++) {
      if (b_end->mx != a->mx)
        return false;
      b_end = b_end->next;
    }
    for (const struct host *x = a; x != a_end; x = x->next) {
      const struct host *y = b;
      while (y != b_end && !same_host(x, y))
        y = y->next;
      if (y == b_end)
        return false;
    }
    a = a_end;
    b = b_end;
  }
  return true;
}

/* The option may depend on the address. */
static bool single_domain(struct delivery *d, const struct transport_def *def, const struct address *a) {
  struct address alone = *a;
  alone.next = NULL;
  address_set_vars(d->c, &alone);
  bool single = def->single_domain(d->c, a->transport);
  address_clear_vars(d->c);
  return single;
}

static bool joins(struct delivery *d, const struct address *group, const struct address *a) {
  const struct transport_def *def = (const struct transport_def *)a->transport->driver;
  if (delivery_is_wrapper(d))
    return true;
  if (!delivery_same_batch(group, a) || !same_hosts(group->hosts, a->hosts) || !same_hosts(group->fallback_hosts, a->fallback_hosts))
    return false;
  if (str_eq(group->domain, a->domain) || !def->single_domain)
    return true;
  return !single_domain(d, def, group) && !single_domain(d, def, a);
}

bool delivery_one_group(struct delivery *d) {
  for (const struct address *a = d->remote->next; a; a = a->next)
    if (!delivery_same_batch(d->remote, a) || !same_hosts(d->remote->hosts, a->hosts))
      return false;
  return true;
}

/* The same for all lists that same_hosts calls the same. */
static uint64_t hosts_key(const struct delivery *d, const struct host *h) {
  uint64_t key = 0;
  if (delivery_is_wrapper(d))
    return 0;
  for (; h; h = h->next)
    key += str_ihash(h->name) ^ (uint64_t)(unsigned)h->port << 32 ^ (uint64_t)(unsigned)h->mx;
  return key;
}

/* More addresses than one delivery may take are shared out if that lets them go in parallel, or if each is to go by itself
(its return path may be its own); else the transport sends the message several times over its one connection. */
static int64_t group_max(struct delivery *d, const struct address *a) {
  const struct transport_def *def = (const struct transport_def *)a->transport->driver;
  int64_t max = def->max_addresses && !delivery_is_wrapper(d) ? def->max_addresses(d->c, a->transport) : 0;
  return max > 1 && main_options(d->c->config)->remote_max_parallel <= 1 ? 0 : max;
}

/* Thousands of addresses may have as many hosts: only groups that are likely to be theirs are looked at. */
static void add_to_groups(struct remote_run *r, struct address *a) {
  uint64_t key = hosts_key(r->d, a->hosts);
  struct group **link = &r->open[(key ^ key >> 32) % BUCKETS], *g;
  while ((g = *link) && !(g->key == key && joins(r->d, g->first, a)))
    link = &g->next;
  if (!g) {
    *link = g = arena_new_of(r->d->c->arena, struct group);
    *g = (struct group){.first = a, .last = a, .max = group_max(r->d, a), .key = key};
    vec_push(r->d->c->arena, &r->groups, a);
  } else {
    g->last->next = a;
    g->last = a;
  }
  if (++g->n == g->max)
    *link = g->next;
}

/* remote_sort_domains: addresses of the first matching item first. */
static void sort_domains(struct delivery *d) {
  const struct option_expr *o = &main_options(d->c->config)->remote_sort_domains;
  struct address *sorted = NULL, **tail = &sorted;
  struct list_iter it;
  struct str item;
  if (!str_is_set(o->text) || !d->remote || !d->remote->next)
    return;
  list_iter_init(&it, d->c->arena, o->text);
  while (list_next(&it, &item)) {
    struct str one = str_cat(d->c->arena, STR("<\x01 "), item);
    for (struct address **link = &d->remote, *a; (a = *link);) {
      if (match_text(d->c, LIST_DOMAIN, one, a->domain, false, NULL) != OUTCOME_OK) {
        link = &a->next;
        continue;
      }
      *link = a->next;
      a->next = NULL;
      *tail = a;
      tail = &a->next;
    }
  }
  *tail = d->remote;
  d->remote = sorted;
}

/* --- running --- */

static void run_group(struct remote_run *r, size_t index) {
  struct delivery *d = r->d;
  struct address *chain = r->groups.v[index];
  const struct transport_def *def = (const struct transport_def *)chain->transport->driver;
  int64_t start = time_now_usec();
  /* Each runs with variables of its own. What it remembers of lookups lives as long as the arena. */
  struct ctx *own = arena_new_of(d->c->arena, struct ctx);
  *own = *d->c;
  own->memo = NULL;
  own->router = chain->router;
  own->transport = chain->transport;
  own->host = chain->hosts;
  address_set_vars(own, chain);
  host_random_seed((uint32_t)index);
  struct str slot;
  bool entered = delivery_slot_enter(d, own, chain, &slot);
  if (entered && r->running > 1)
    fiber_yield(); /* all begin before the first can be through: what max_parallel says does not depend on luck */
  bool turn = r->by_turns && fiber_sem_acquire(&r->turn, DEADLINE_NEVER) == 0;
  if (entered && transport_return_path(own, chain->transport, chain))
    def->deliver(own, chain->transport, chain);
  if (turn)
    fiber_sem_release(&r->turn);
  delivery_slot_leave(own, slot);
  for (struct address *a = chain; a; a = a->next)
    a->time_taken = time_now_usec() - start;
  if (!r->by_turns || !entered)
    delivery_outcomes(d, chain);
  if (!entered)
    r->groups.v[index] = NULL; /* told */
}

static void run_groups(void *arg) {
  struct remote_run *r = arg;
  while (r->next < r->groups.n) {
    run_group(r, r->next++);
    /* The others may take long: what is done must be on disk before. */
    if ((r->running > 1 || r->next < r->groups.n) && !fiber_sem_acquire(&r->journal, DEADLINE_NEVER)) {
      delivery_journal(r->d);
      fiber_sem_release(&r->journal);
    }
  }
  r->running--;
}

static void run_parallel(struct remote_run *r, size_t n) {
  struct fiber **fibers = arena_array(r->d->c->arena, struct fiber *, n);
  r->running = n;
  for (size_t i = 1; i < n; i++)
    fibers[i] = fiber_spawn_joinable("deliver-remote", run_groups, r);
  run_groups(r);
  for (size_t i = 1; i < n; i++)
    fiber_join(fibers[i]);
}

/* What cannot go over the one connection that is to be used waits. */
static void keep_fitting(struct delivery *d) {
  struct address *list = d->remote, **tail = &d->remote;
  d->remote = NULL;
  while (list) {
    struct address *a = list;
    list = a->next;
    a->next = NULL;
    address_set_vars(d->c, a);
    bool fits = smtp_goes_over(d->c, d->how->over, a);
    address_clear_vars(d->c);
    if (!fits) {
      delivery_put_off(d, a);
      continue;
    }
    *tail = a;
    tail = &a->next;
  }
}

void delivery_run_remote(struct delivery *d) {
  struct remote_run r = {.d = d};
  delivery_hold_remote(d);
  if (d->how->over)
    keep_fitting(d);
  if (!d->remote)
    return;
  sort_domains(d);
  while (d->remote) {
    struct address *a = d->remote;
    d->remote = a->next;
    a->next = NULL;
    add_to_groups(&r, a);
  }
  delivery_journal(d);
  fiber_sem_init(&r.journal, 1);
  int64_t max = main_options(d->c->config)->remote_max_parallel;
  size_t n = max < 1 || (d->how->over && d->how->over->reversed) ? 1 : (size_t)max;
  /* As if each had a process of its own: one after the other, and what became of them is only told when all are through. */
  r.by_turns = build.remote_by_turns && r.groups.n > 1 && r.groups.n <= n;
  fiber_sem_init(&r.turn, 1);
  run_parallel(&r, n < r.groups.n ? n : r.groups.n);
  for (size_t i = 0; r.by_turns && i < r.groups.n; i++)
    if (r.groups.v[i])
      delivery_outcomes(d, r.groups.v[i]);
}
