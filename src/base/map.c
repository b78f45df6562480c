#include "base/map.h"

#include "base/arena.h"

struct entry {
  struct str key; /* unset: removed */
  void *value;
  uint64_t hash;
};

struct map {
  struct arena *arena;
  struct entry *entries; /* in the order of insertion, removed ones too */
  size_t used, cap;
  size_t count;
  uint32_t *index; /* number of the entry + 1; 0: free. Twice cap slots. */
  bool caseless;
};

static struct map *make(struct arena *a, bool caseless) {
  struct map *m = arena_new_of(a, struct map);
  m->arena = a;
  m->caseless = caseless;
  return m;
}

struct map *map_new(struct arena *a) { return make(a, false); }
struct map *map_new_caseless(struct arena *a) { return make(a, true); }

static uint64_t hash_of(const struct map *m, struct str key) { return m->caseless ? str_ihash(key) : str_hash(key); }

static struct entry *find(const struct map *m, struct str key, uint64_t hash) {
  if (!m->cap)
    return NULL;
  size_t mask = 2 * m->cap - 1;
  for (size_t i = hash & mask; m->index[i]; i = (i + 1) & mask) {
    struct entry *e = &m->entries[m->index[i] - 1];
    if (e->hash == hash && str_is_set(e->key) && (m->caseless ? str_ieq(e->key, key) : str_eq(e->key, key)))
      return e;
  }
  return NULL;
}

static void put_index(struct map *m, size_t number) {
  size_t mask = 2 * m->cap - 1;
  size_t i = m->entries[number].hash & mask;
  while (m->index[i])
    i = (i + 1) & mask;
  m->index[i] = (uint32_t)number + 1;
}

/* Grows, leaving removed entries behind. */
static void grow(struct map *m) {
  struct entry *old = m->entries;
  size_t n = m->used;
  m->cap = m->cap ? m->cap * 2 : 8;
  m->entries = arena_array(m->arena, struct entry, m->cap);
  m->index = arena_array(m->arena, uint32_t, 2 * m->cap);
  m->used = 0;
  for (size_t i = 0; i < n; i++) {
    if (!str_is_set(old[i].key))
      continue;
    m->entries[m->used] = old[i];
    put_index(m, m->used++);
  }
}

void map_set(struct map *m, struct str key, void *value) {
  uint64_t hash = hash_of(m, key);
  struct entry *e = find(m, key, hash);
  if (e) {
    e->value = value;
    return;
  }
  if (m->used == m->cap)
    grow(m);
  struct str copy = {str_dup_c(m->arena, key), key.len, key.taint};
  m->entries[m->used] = (struct entry){copy, value, hash};
  put_index(m, m->used++);
  m->count++;
}

void *map_get(const struct map *m, struct str key) {
  const struct entry *e = find(m, key, hash_of(m, key));
  return e ? e->value : NULL;
}

bool map_has(const struct map *m, struct str key) { return find(m, key, hash_of(m, key)) != NULL; }

void map_remove(struct map *m, struct str key) {
  struct entry *e = find(m, key, hash_of(m, key));
  if (!e)
    return;
  e->key = STR_UNSET;
  m->count--;
}

size_t map_count(const struct map *m) { return m->count; }

bool map_next(const struct map *m, size_t *i, struct str *ret_key, void **ret_value) {
  for (; *i < m->used; (*i)++) {
    const struct entry *e = &m->entries[*i];
    if (!str_is_set(e->key))
      continue;
    if (ret_key)
      *ret_key = e->key;
    if (ret_value)
      *ret_value = e->value;
    (*i)++;
    return true;
  }
  return false;
}
