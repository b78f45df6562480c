#include "base/arena.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/asan.h"
#include "base/vec.h"

#define CHUNK_FIRST 1024
#define CHUNK_MAX 65536
/* Bytes that stay poisoned behind each allocation, so that ASan sees overruns. */
#define REDZONE (MARTLET_ASAN ? ARENA_ALIGNMENT : 0)

struct arena_chunk {
  struct arena_chunk *prev;
  size_t size, used; /* of data[]; what the newest one uses is in the arena */
  _Alignas(ARENA_ALIGNMENT) char data[];
};

struct arena_cleanup {
  struct arena_cleanup *prev;
  void (*fn)(void *arg);
  void *arg;
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

static struct arena_chunk *chunk_new(size_t size) {
  size_t all;
  if (__builtin_add_overflow(size, sizeof(struct arena_chunk), &all))
    out_of_memory(size);
  struct arena_chunk *c = xmalloc(all);
  c->prev = NULL;
  c->size = size;
  c->used = 0;
  asan_poison(c->data, size);
  return c;
}

static void chunk_wipe(struct arena_chunk *c, size_t from) {
  asan_unpoison(c->data + from, c->size - from);
  explicit_bzero(c->data + from, c->size - from);
  asan_poison(c->data + from, c->size - from);
}

static void chunk_free(struct arena *a, struct arena_chunk *c) {
  bool secret = a->secret;
  asan_unpoison(c->data, c->size);
  if (secret)
    explicit_bzero(c->data, c->size);
  free(c);
}

/* Makes `c` the newest chunk; its first `used` bytes are in use. */
static void open_chunk(struct arena *a, struct arena_chunk *c, size_t used) {
  a->top = c;
  a->top_data = c->data;
  a->at = c->data + used;
  a->end = c->data + c->size;
}

/* The arena lives at the start of its own first chunk. */
static struct arena *arena_make(const char *name, bool secret) {
  struct arena_chunk *c = chunk_new(CHUNK_FIRST - sizeof(struct arena_chunk));
  size_t used = (sizeof(struct arena) + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1);
  asan_unpoison(c->data, sizeof(struct arena));
  struct arena *a = (struct arena *)(void *)c->data;
  *a = (struct arena){.first = c, .name = name, .next_size = 2 * CHUNK_FIRST, .secret = secret, .first_used = used};
  open_chunk(a, c, used);
  return a;
}

struct arena *arena_new(const char *name) { return arena_make(name, false); }
struct arena *arena_new_secret(const char *name) { return arena_make(name, true); }

/* A cleanup may add others while it runs: they run too. */
static void run_cleanups(struct arena *a, const struct arena_cleanup *until) {
  while (a->cleanups && a->cleanups != until) {
    struct arena_cleanup *c = a->cleanups;
    a->cleanups = c->prev;
    c->fn(c->arg);
  }
}

static void rewind_to(struct arena *a, struct arena_chunk *chunk, size_t used) {
  while (a->top != chunk) {
    struct arena_chunk *c = a->top;
    a->below -= c->prev->used;
    open_chunk(a, c->prev, c->prev->used);
    chunk_free(a, c);
  }
  open_chunk(a, chunk, used);
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
  size_t size = a->next_size - sizeof(struct arena_chunk);
  if (size < need)
    size = need;
  else if (a->next_size < CHUNK_MAX)
    a->next_size *= 2;
  struct arena_chunk *c = chunk_new(size);
  a->top->used = (size_t)(a->at - a->top_data);
  a->below += a->top->used;
  c->prev = a->top;
  open_chunk(a, c, 0);
}

void *arena_take(struct arena *a, size_t size, size_t alignment) {
  size_t need;
  if (MARTLET_ASAN)
    alignment = ARENA_ALIGNMENT; /* poisoning works in units of 8 bytes */
  if (__builtin_add_overflow(size, REDZONE + ARENA_ALIGNMENT, &need))
    out_of_memory(size);
  char *p = a->at + (-(uintptr_t)a->at & (alignment - 1));
  if (p > a->end || (size_t)(a->end - p) < size + REDZONE) {
    add_chunk(a, need);
    p = a->at;
  }
  a->at = p + size + REDZONE;
  asan_unpoison(p, size);
  return p;
}

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
  bool is_last = p >= a->top_data && p + old_size + REDZONE == a->at;
  if (is_last && (size_t)(a->end - p) >= new_size + REDZONE) {
    a->at = p + new_size + REDZONE;
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
  struct arena_cleanup *c = arena_alloc_raw(a, sizeof *c);
  *c = (struct arena_cleanup){a->cleanups, fn, arg};
  a->cleanups = c;
}

struct arena_mark arena_mark(struct arena *a) {
  return (struct arena_mark){a->top, (size_t)(a->at - a->top_data), a->cleanups};
}

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
