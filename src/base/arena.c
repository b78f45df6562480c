#include "base/arena.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/asan.h"
#include "base/vec.h"

#define ALIGNMENT 16
#define CHUNK_FIRST 1024
#define CHUNK_MAX 65536
/* Bytes that stay poisoned behind each allocation, so that ASan sees overruns. */
#define REDZONE (MARTLET_ASAN ? ALIGNMENT : 0)

struct chunk {
  struct chunk *prev;
  size_t size, used; /* of data[] */
  _Alignas(ALIGNMENT) char data[];
};

struct cleanup {
  struct cleanup *prev;
  void (*fn)(void *arg);
  void *arg;
};

/* Lives at the start of its own first chunk. */
struct arena {
  struct chunk *top, *first;
  struct cleanup *cleanups;
  const char *name;
  size_t next_size;  /* of the next chunk */
  size_t below;      /* bytes used in the chunks below the top one */
  size_t first_used; /* what an empty arena uses of its first chunk */
  bool secret;
};

static void __attribute__((noreturn)) out_of_memory(size_t size) {
  fprintf(stderr, "martlet: out of memory (%zu bytes wanted)\n", size);
  _Exit(70);
}

void *xmalloc(size_t size) {
  void *p = malloc(size ? size : 1);
  if (!p)
    out_of_memory(size);
  return p;
}

void *xcalloc(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size ? size : 1);
  if (!p)
    out_of_memory(size);
  return p;
}

void *xrealloc(void *old, size_t size) {
  void *p = realloc(old, size ? size : 1);
  if (!p)
    out_of_memory(size);
  return p;
}

char *xstrdup(const char *c) {
  size_t n = strlen(c) + 1;
  return memcpy(xmalloc(n), c, n);
}

static struct chunk *chunk_new(size_t size) {
  size_t all;
  if (__builtin_add_overflow(size, sizeof(struct chunk), &all))
    out_of_memory(size);
  struct chunk *c = xmalloc(all);
  c->prev = NULL;
  c->size = size;
  c->used = 0;
  asan_poison(c->data, size);
  return c;
}

static void chunk_wipe(struct chunk *c, size_t from) {
  asan_unpoison(c->data + from, c->size - from);
  explicit_bzero(c->data + from, c->size - from);
  asan_poison(c->data + from, c->size - from);
}

static void chunk_free(struct arena *a, struct chunk *c) {
  bool secret = a->secret;
  asan_unpoison(c->data, c->size);
  if (secret)
    explicit_bzero(c->data, c->size);
  free(c);
}

static struct arena *arena_make(const char *name, bool secret) {
  struct chunk *c = chunk_new(CHUNK_FIRST - sizeof(struct chunk));
  c->used = (sizeof(struct arena) + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  asan_unpoison(c->data, sizeof(struct arena));
  struct arena *a = (struct arena *)(void *)c->data;
  *a = (struct arena){.top = c, .first = c, .name = name, .next_size = 2 * CHUNK_FIRST, .secret = secret,
      .first_used = c->used};
  return a;
}

struct arena *arena_new(const char *name) { return arena_make(name, false); }
struct arena *arena_new_secret(const char *name) { return arena_make(name, true); }

/* A cleanup may add others while it runs: they run too. */
static void run_cleanups(struct arena *a, const struct cleanup *until) {
  while (a->cleanups && a->cleanups != until) {
    struct cleanup *c = a->cleanups;
    a->cleanups = c->prev;
    c->fn(c->arg);
  }
}

static void rewind_to(struct arena *a, struct chunk *chunk, size_t used) {
  while (a->top != chunk) {
    struct chunk *c = a->top;
    a->top = c->prev;
    a->below -= a->top->used;
    chunk_free(a, c);
  }
  chunk->used = used;
  asan_poison(chunk->data + used, chunk->size - used);
  if (a->secret)
    chunk_wipe(chunk, used);
}

void arena_free(struct arena *a) {
  if (!a)
    return;
  run_cleanups(a, NULL);
  rewind_to(a, a->first, a->first_used);
  chunk_free(a, a->first);
}

void arena_reset(struct arena *a) {
  run_cleanups(a, NULL);
  rewind_to(a, a->first, a->first_used);
  a->next_size = 2 * CHUNK_FIRST;
}

static void add_chunk(struct arena *a, size_t need) {
  size_t size = a->next_size - sizeof(struct chunk);
  if (size < need)
    size = need;
  else if (a->next_size < CHUNK_MAX)
    a->next_size *= 2;
  struct chunk *c = chunk_new(size);
  a->below += a->top->used;
  c->prev = a->top;
  a->top = c;
}

static void *take(struct arena *a, size_t size, size_t alignment) {
  size_t need;
  if (MARTLET_ASAN)
    alignment = ALIGNMENT; /* poisoning works in units of 8 bytes */
  if (__builtin_add_overflow(size, REDZONE + ALIGNMENT, &need))
    out_of_memory(size);
  size_t from = (a->top->used + alignment - 1) & ~(alignment - 1);
  if (from > a->top->size || a->top->size - from < size + REDZONE) {
    add_chunk(a, need);
    from = 0;
  }
  char *p = a->top->data + from;
  a->top->used = from + size + REDZONE;
  asan_unpoison(p, size);
  return p;
}

void *arena_alloc_raw(struct arena *a, size_t size) { return take(a, size, ALIGNMENT); }
char *arena_bytes(struct arena *a, size_t size) { return take(a, size, 1); }

void *arena_alloc(struct arena *a, size_t size) { return memset(take(a, size, ALIGNMENT), 0, size); }

void *arena_alloc_n(struct arena *a, size_t size, size_t n) {
  size_t all;
  if (__builtin_mul_overflow(size, n, &all))
    out_of_memory(SIZE_MAX);
  return arena_alloc(a, all);
}

char *arena_regrow(struct arena *a, char *p, size_t old_size, size_t new_size) {
  if (!p)
    return arena_bytes(a, new_size);
  if (new_size <= old_size)
    return p;
  struct chunk *c = a->top;
  bool is_last = p >= c->data && p + old_size + REDZONE == c->data + c->used;
  if (is_last && c->size - (size_t)(p - c->data) - REDZONE >= new_size) {
    c->used = (size_t)(p - c->data) + new_size + REDZONE;
    asan_unpoison(p, new_size);
    return p;
  }
  return memcpy(arena_bytes(a, new_size), p, old_size);
}

void *arena_memdup(struct arena *a, const void *p, size_t size) {
  void *copy = arena_alloc_raw(a, size);
  if (size)
    memcpy(copy, p, size);
  return copy;
}

char *arena_strdup(struct arena *a, const char *c) {
  size_t n = strlen(c) + 1;
  return memcpy(arena_bytes(a, n), c, n);
}

void arena_cleanup(struct arena *a, void (*fn)(void *arg), void *arg) {
  struct cleanup *c = arena_alloc_raw(a, sizeof *c);
  *c = (struct cleanup){a->cleanups, fn, arg};
  a->cleanups = c;
}

size_t arena_used(const struct arena *a) { return a->below + a->top->used - a->first_used; }

struct arena_mark arena_mark(struct arena *a) { return (struct arena_mark){a->top, a->top->used, a->cleanups}; }

void arena_rewind(struct arena *a, struct arena_mark mark) {
  run_cleanups(a, mark.cleanup);
  rewind_to(a, mark.chunk, mark.used);
}

void *vec_grow(struct arena *a, void *v, size_t size, size_t *cap) {
  size_t new_cap, bytes;
  if (__builtin_mul_overflow(*cap, (size_t)2, &new_cap))
    out_of_memory(SIZE_MAX);
  if (new_cap < 8)
    new_cap = 8;
  if (__builtin_mul_overflow(new_cap, size, &bytes))
    out_of_memory(SIZE_MAX);
  void *copy = arena_alloc(a, bytes);
  if (*cap)
    memcpy(copy, v, *cap * size);
  *cap = new_cap;
  return copy;
}
