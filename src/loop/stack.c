#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/asan.h"
#include "loop/loop_internal.h"
#if MARTLET_ASAN
#include <sanitizer/lsan_interface.h>
#endif

/* Memory is only used where a stack was touched. The sanitizers' frames are
several times larger. */
#define STACK_SIZE (MARTLET_ASAN ? 1u << 20 : 192u << 10)
#define GUARD_SIZE (64u << 10)
/* Stacks kept mapped although nobody uses them. */
#define POOL_MAX 256

static struct stack *pool;
static size_t pool_count;

struct stack *stack_take(void) {
  if (pool) {
    struct stack *s = pool;
    pool = s->next;
    pool_count--;
    return s;
  }
  char *p = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED || mprotect(p, GUARD_SIZE, PROT_NONE) < 0) {
    fprintf(stderr, "martlet: no memory for a fiber's stack: %s\n", strerror(errno));
    _exit(70);
  }
  struct stack *s = xcalloc(1, sizeof *s);
  s->low = p + GUARD_SIZE;
  s->size = STACK_SIZE;
#if MARTLET_ASAN
  __lsan_register_root_region(s->low, s->size);
#endif
  return s;
}

void stack_unmap(struct stack *s) {
  asan_unpoison(s->low, s->size);
#if MARTLET_ASAN
  __lsan_unregister_root_region(s->low, s->size);
#endif
  munmap(s->low - GUARD_SIZE, GUARD_SIZE + s->size);
  free(s);
}

void stack_give(struct stack *s) {
  asan_unpoison(s->low, s->size); /* the frames that never returned */
  s->dirty = true;
  s->next = pool;
  pool = s;
  pool_count++;
}

void stack_trim(struct stack *s, char *sp) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  /* Some room below sp: a leaf function's red zone. */
  char *end = (char *)(((uintptr_t)sp - 512) & ~(page - 1));
  if (end > s->low)
    madvise(s->low, (size_t)(end - s->low), MADV_DONTNEED);
}

bool stack_pool_dirty(void) {
  for (const struct stack *s = pool; s; s = s->next)
    if (s->dirty)
      return true;
  return pool_count > POOL_MAX;
}

/* The first pages stay: the next fiber needs them at once. */
#define POOL_KEEP 8192

void stack_pool_trim(void) {
  while (pool_count > POOL_MAX) {
    struct stack *s = pool;
    pool = s->next;
    pool_count--;
    stack_unmap(s);
  }
  for (struct stack *s = pool; s; s = s->next) {
    if (s->dirty)
      stack_trim(s, s->low + s->size - POOL_KEEP);
    s->dirty = false;
  }
}

void stack_pool_free(void) {
  while (pool) {
    struct stack *s = pool;
    pool = s->next;
    stack_unmap(s);
  }
  pool_count = 0;
}
