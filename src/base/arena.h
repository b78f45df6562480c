/* Arenas: memory that lives exactly as long as its connection, message,
delivery or configuration. Nothing in one is freed singly.

An allocation never returns NULL: inputs are bounded where they are parsed,
and when the machine itself has no memory left the process ends with a line
on stderr (its queue is on disk; the master starts another). Not
thread-safe: an arena belongs to one thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/asan.h"

/* Of arena.c; others see it for the allocations below. */
struct arena {
  char *at, *end; /* what is free of the newest chunk */
  struct arena_chunk *top, *first;
  struct arena_cleanup *cleanups;
  const char *name;
  size_t next_size;  /* of the next chunk */
  size_t below;      /* bytes used in the chunks below the newest */
  size_t first_used; /* what an empty arena uses of its first chunk */
  char *top_data;    /* where the newest chunk's bytes begin */
  _Bool secret;
};
struct str;

/* A new arena. `name` (a literal) is for the accounting in debug output. */
struct arena *arena_new(const char *name);
/* An arena that wipes its memory when it is freed or reset; for secrets. */
struct arena *arena_new_secret(const char *name);
/* Runs the cleanups (last added first) and gives the memory back; NULL is allowed. */
void arena_free(struct arena *a);
/* Runs the cleanups and empties the arena, keeping its first chunk. */
void arena_reset(struct arena *a);

#define ARENA_ALIGNMENT 16
/* Where there is no room left in the newest chunk, and for what AddressSanitizer must know of. */
void *arena_take(struct arena *a, size_t size, size_t alignment);
static inline void *arena_take_fast(struct arena *a, size_t size, size_t alignment) {
  char *p = a->at + (-(uintptr_t)a->at & (alignment - 1));
  if (MARTLET_ASAN || p > a->end || size > (size_t)(a->end - p))
    return arena_take(a, size, alignment);
  a->at = p + size;
  return p;
}
/* Memory as it comes, aligned for any type. */
static inline void *arena_alloc_raw(struct arena *a, size_t size) { return arena_take_fast(a, size, ARENA_ALIGNMENT); }
/* Zeroed memory, aligned for any type. */
static inline void *arena_alloc(struct arena *a, size_t size) { return memset(arena_alloc_raw(a, size), 0, size); }
/* Unaligned bytes, for text. */
static inline char *arena_bytes(struct arena *a, size_t size) { return arena_take_fast(a, size, 1); }
/* Grows the last byte allocation in place where it can, else copies. */
char *arena_regrow(struct arena *a, char *p, size_t old_size, size_t new_size);
void *arena_memdup(struct arena *a, const void *p, size_t size);
char *arena_strdup(struct arena *a, const char *c);

/* fn(arg) runs when the arena is reset or freed. */
void arena_cleanup(struct arena *a, void (*fn)(void *arg), void *arg);

/* Bytes in use, and a mark/rewind pair for temporary work: rewind gives back
everything allocated since the mark (cleanups added since then run). */
static inline size_t arena_used(const struct arena *a) {
  return a->below + (size_t)(a->at - a->top_data) - a->first_used;
}
struct arena_mark {
  void *chunk;
  size_t used;
  void *cleanup;
};
struct arena_mark arena_mark(struct arena *a);
void arena_rewind(struct arena *a, struct arena_mark mark);

#define arena_new_of(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc_n((a), sizeof(type), (n)))
/* Zeroed array; ends the process when the size overflows. */
void *arena_alloc_n(struct arena *a, size_t size, size_t n);

/* The only callers of malloc outside this file use these: they end the
process instead of returning NULL. */
void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *c);
