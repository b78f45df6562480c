#include "queue/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/vec.h"
#include "core/ctx.h"
#include "queue/spool.h"

/* A binary heap by due time of those that wait, and a hash by id of all. */
static struct {
  struct queue_entry **heap;
  size_t n, cap;
  struct queue_entry **hash;
  size_t buckets, count, in_default, held;
  uint32_t clock; /* counts what changes */
} q;

/* Names of queues are few; they are kept for the life of the process. */
static struct str keep_name(struct str name) {
  static VEC(struct str) known;
  static struct arena *a;
  if (!name.len)
    return STR_EMPTY;
  for (size_t i = 0; i < known.n; i++)
    if (str_eq(known.v[i], name))
      return known.v[i];
  if (!a)
    a = arena_new("names of queues");
  vec_push(a, &known, str_dup(a, name));
  return known.v[known.n - 1];
}

static void set_place(size_t i, struct queue_entry *e) {
  q.heap[i] = e;
  e->place = i;
}

static void sift_up(size_t i) {
  struct queue_entry *e = q.heap[i];
  while (i && q.heap[(i - 1) / 2]->due > e->due) {
    set_place(i, q.heap[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  set_place(i, e);
}

static void sift_down(size_t i) {
  struct queue_entry *e = q.heap[i];
  for (;;) {
    size_t k = 2 * i + 1;
    if (k >= q.n)
      break;
    if (k + 1 < q.n && q.heap[k + 1]->due < q.heap[k]->due)
      k++;
    if (q.heap[k]->due >= e->due)
      break;
    set_place(i, q.heap[k]);
    i = k;
  }
  set_place(i, e);
}

static void heap_add(struct queue_entry *e) {
  if (q.n == q.cap) {
    q.cap = q.cap ? q.cap * 2 : 256;
    q.heap = xrealloc(q.heap, q.cap * sizeof *q.heap);
  }
  q.heap[q.n] = e;
  e->place = q.n++;
  sift_up(e->place);
}

static void heap_remove(struct queue_entry *e) {
  size_t i = e->place;
  struct queue_entry *last = q.heap[--q.n];
  if (last == e)
    return;
  set_place(i, last);
  sift_up(i);
  sift_down(last->place);
}

static size_t bucket(const char *id) { return str_hash(str_c(id)) & (q.buckets - 1); }

static void grow_hash(void) {
  size_t old = q.buckets;
  struct queue_entry **from = q.hash;
  q.buckets = old ? old * 2 : 1024;
  q.hash = xcalloc(q.buckets, sizeof *q.hash);
  for (size_t i = 0; i < old; i++)
    while (from[i]) {
      struct queue_entry *e = from[i];
      from[i] = e->next;
      size_t b = bucket(e->id);
      e->next = q.hash[b];
      q.hash[b] = e;
    }
  free(from);
}

static struct queue_entry *find(const char *id) {
  if (!q.buckets)
    return NULL;
  struct queue_entry *e = q.hash[bucket(id)];
  while (e && strcmp(e->id, id))
    e = e->next;
  return e;
}

static struct queue_entry *make(const char *id, struct str queue_name) {
  if (q.count >= q.buckets)
    grow_hash();
  struct queue_entry *e = xcalloc(1, sizeof *e);
  strncpy(e->id, id, sizeof e->id - 1);
  e->queue_name = keep_name(queue_name);
  e->first = true;
  size_t b = bucket(e->id);
  e->next = q.hash[b];
  q.hash[b] = e;
  q.count++;
  q.in_default += e->queue_name.len == 0;
  e->touched = ++q.clock;
  return e;
}

void queue_add(const char *id, struct str queue_name, int64_t due) {
  struct queue_entry *e = find(id);
  if (e && e->active) {
    e->run_again = true;
    return;
  }
  if (e)
    heap_remove(e);
  else
    e = make(id, queue_name);
  e->due = due;
  e->timed = false;
  e->touched = ++q.clock;
  heap_add(e);
}

void queue_changed(const char *id, struct str queue_name, bool exists) {
  struct queue_entry *e = find(id);
  if (!exists) {
    if (e && !e->active)
      queue_remove(e);
  } else if (!e || (!e->active && !str_eq(e->queue_name, queue_name))) {
    if (e)
      queue_remove(e);
    queue_add(id, queue_name, QUEUE_NEVER);
  } else {
    e->frozen = e->timed = false;
  }
}

struct queue_entry *queue_take(int64_t now) {
  if (!q.n || q.heap[0]->due > now)
    return NULL;
  struct queue_entry *e = q.heap[0];
  heap_remove(e);
  e->active = true;
  return e;
}

struct queue_entry *queue_take_now(const char *id, struct str queue_name) {
  struct queue_entry *e = find(id);
  if (e && e->active)
    return NULL;
  if (e) {
    heap_remove(e);
  } else {
    e = make(id, queue_name);
    e->due = QUEUE_NEVER;
  }
  e->active = true;
  return e;
}

struct queue_entry *queue_hold(const char *id, struct str queue_name, bool frozen) {
  struct queue_entry *e = queue_take_now(id, queue_name);
  if (e) {
    e->held = true;
    e->frozen = frozen;
    q.held++;
  }
  return e;
}

bool queue_passing(const char *id) {
  const struct queue_entry *e = find(id);
  return !e || e->held;
}

static void release(struct queue_entry *e) {
  q.held -= e->held;
  e->held = false;
}

void queue_put_back(struct queue_entry *e, int64_t due, bool frozen) {
  e->first &= e->held;
  if (!e->held || !e->run_again)
    e->forced = e->forced_frozen = false;
  release(e);
  e->active = e->timed = false;
  e->frozen = frozen;
  e->touched = ++q.clock;
  e->due = e->run_again ? 0 : due;
  e->run_again = false;
  heap_add(e);
}

void queue_remove(struct queue_entry *e) {
  if (!e->active)
    heap_remove(e);
  release(e);
  struct queue_entry **p = &q.hash[bucket(e->id)];
  while (*p != e)
    p = &(*p)->next;
  *p = e->next;
  q.count--;
  q.in_default -= e->queue_name.len == 0;
  free(e);
}

int64_t queue_next_due(void) { return q.n ? q.heap[0]->due : QUEUE_NEVER; }

static bool concerns(const struct queue_run *r, const struct queue_entry *e) {
  if (!str_eq(e->queue_name, str_is_set(r->queue_name) ? r->queue_name : STR_EMPTY) || (r->first_only && !e->first))
    return false;
  return !(e->frozen && !r->force_frozen && !r->frozen_too) && !(e->timed && !r->force && !r->all);
}

static void wake(struct queue_entry *e, const struct queue_run *r) {
  e->forced |= r->force;
  e->forced_frozen |= r->force_frozen;
}

static void wake_held(const struct queue_run *r) {
  for (size_t i = 0; i < q.buckets; i++)
    for (struct queue_entry *e = q.hash[i]; e; e = e->next)
      if (e->held && concerns(r, e)) {
        e->run_again = true;
        wake(e, r);
      }
}

void queue_start_run(const struct queue_run *r, int64_t now) {
  for (size_t i = 0; i < q.n; i++) {
    struct queue_entry *e = q.heap[i];
    if (!concerns(r, e))
      continue;
    if (e->due > now)
      e->due = now;
    wake(e, r);
  }
  for (size_t i = q.n / 2; i-- > 0;)
    sift_down(i);
  if (q.held)
    wake_held(r);
}

size_t queue_count(void) { return q.count; }
size_t queue_count_default(void) { return q.in_default; }

void queue_clear(void) {
  for (size_t i = 0; i < q.buckets; i++)
    while (q.hash[i]) {
      struct queue_entry *e = q.hash[i];
      q.hash[i] = e->next;
      free(e);
    }
  free(q.hash);
  free(q.heap);
  memset(&q, 0, sizeof q);
}

int queue_load(struct ctx *c, struct str queue_name, int index, int count, int (*owner)(const char *id, int n), int64_t due) {
  struct arena *a = arena_new("queue load");
  struct spool_entry *v;
  size_t n = 0;
  int loaded = 0;
  if (spool_scan(c, queue_name, a, &v, &n) == 0)
    for (size_t i = 0; i < n; i++) {
      if (owner && owner(v[i].id, count) != index)
        continue;
      const struct queue_entry *e = find(v[i].id);
      if (!e || (!e->active && e->due > due)) /* what came in while the directory was read is not put off */
        queue_add(v[i].id, queue_name, due);
      loaded++;
    }
  arena_free(a);
  return loaded;
}

void queue_refresh(struct ctx *c, struct str queue_name, int index, int count, int (*owner)(const char *id, int n)) {
  struct arena *a = arena_new("queue refresh");
  struct spool_entry *v;
  size_t n = 0;
  uint32_t start = q.clock, mark = ++q.clock;
  int rc = spool_scan(c, queue_name, a, &v, &n);
  for (size_t i = 0; rc == 0 && i < n; i++) {
    if (owner && owner(v[i].id, count) != index)
      continue;
    struct queue_entry *e = find(v[i].id);
    if (!e) {
      queue_add(v[i].id, queue_name, QUEUE_NEVER);
      e = find(v[i].id);
    }
    e->seen = mark;
  }
  struct str name = str_is_set(queue_name) ? queue_name : STR_EMPTY;
  VEC(struct queue_entry *) gone = {0};
  for (size_t i = 0; rc == 0 && i < q.n; i++)
    if (q.heap[i]->seen != mark && q.heap[i]->touched <= start && str_eq(q.heap[i]->queue_name, name))
      vec_push(a, &gone, q.heap[i]);
  for (size_t i = 0; i < gone.n; i++)
    queue_remove(gone.v[i]);
  arena_free(a);
}
