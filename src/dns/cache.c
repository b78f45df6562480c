#include "dns/cache.h"

#include <stdlib.h>
#include "loop/fiber.h"

#define BUCKETS 4096
#define ENTRIES_MAX 4000
#define BYTES_MAX (8u << 20)
#define TTL_MAX 86400
#define NEGATIVE_TTL_MAX 900 /* RFC 2308 allows hours; mail should see a repaired zone sooner */

struct entry {
  struct entry *chain;        /* of the bucket */
  struct entry *prev, *next;  /* most recently used first */
  uint64_t hash;
  usec_t until;
  enum dns_type type;
  enum dns_result result;
  uint32_t name_n;
  size_t reply_n;
  unsigned char data[]; /* name, reply */
};

static struct entry *buckets[BUCKETS], *first, *last;
static size_t count, bytes;

static size_t entry_size(const struct entry *e) { return sizeof *e + e->name_n + e->reply_n; }

static void list_remove(struct entry *e) {
  *(e->prev ? &e->prev->next : &first) = e->next;
  *(e->next ? &e->next->prev : &last) = e->prev;
}

static void list_add_first(struct entry *e) {
  e->prev = NULL;
  e->next = first;
  *(first ? &first->prev : &last) = e;
  first = e;
}

static void drop(struct entry *e) {
  struct entry **p = &buckets[e->hash % BUCKETS];
  while (*p != e)
    p = &(*p)->chain;
  *p = e->chain;
  list_remove(e);
  count--;
  bytes -= entry_size(e);
  free(e);
}

static struct entry *find(struct str name, enum dns_type type, uint64_t hash) {
  for (struct entry *e = buckets[hash % BUCKETS]; e; e = e->chain)
    if (e->hash == hash && e->type == type && str_ieq(str_n((const char *)e->data, e->name_n), name))
      return e;
  return NULL;
}

static uint64_t key_hash(struct str name, enum dns_type type) { return str_ihash(name) ^ ((uint64_t)type * 0x9e3779b97f4a7c15u); }

bool dns_cache_get(struct arena *a, struct str name, enum dns_type type, struct dns_cached *ret) {
  struct entry *e = find(name, type, key_hash(name, type));
  if (e == NULL)
    return false;
  if (e->until <= loop_now_fresh()) {
    drop(e);
    return false;
  }
  list_remove(e);
  list_add_first(e);
  ret->result = e->result;
  ret->reply = e->reply_n ? arena_memdup(a, e->data + e->name_n, e->reply_n) : NULL;
  ret->reply_n = e->reply_n;
  return true;
}

void dns_cache_put(struct str name, enum dns_type type, const struct dns_cached *v, uint32_t ttl) {
  uint32_t max = v->result == DNS_OK ? TTL_MAX : NEGATIVE_TTL_MAX;
  if (ttl > max)
    ttl = max;
  if (ttl == 0 || v->reply_n > BYTES_MAX / 16)
    return;
  uint64_t hash = key_hash(name, type);
  struct entry *e = find(name, type, hash);
  if (e)
    drop(e);
  while (count >= ENTRIES_MAX || bytes > BYTES_MAX)
    drop(last);
  e = xmalloc(sizeof *e + name.len + v->reply_n);
  *e = (struct entry){.hash = hash, .type = type, .result = v->result, .name_n = name.len, .reply_n = v->reply_n};
  e->until = loop_now_fresh() + ttl * USEC_PER_SEC;
  memcpy(e->data, name.p, name.len);
  if (v->reply_n)
    memcpy(e->data + name.len, v->reply, v->reply_n);
  e->chain = buckets[hash % BUCKETS];
  buckets[hash % BUCKETS] = e;
  list_add_first(e);
  count++;
  bytes += entry_size(e);
}

void dns_cache_clear(void) {
  while (first)
    drop(first);
}
