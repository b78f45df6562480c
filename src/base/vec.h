/* Growable arrays in an arena: VEC(type) name; vec_push(arena, &name, value). */
#pragma once

#include "base/arena.h"

#define VEC(type)                                                                                                      \
  struct {                                                                                                             \
    type *v;                                                                                                           \
    size_t n, cap;                                                                                                     \
  }

#define vec_push(arena, vec, value)                                                                                    \
  do {                                                                                                                 \
    if ((vec)->n == (vec)->cap)                                                                                        \
      (vec)->v = vec_grow((arena), (vec)->v, sizeof *(vec)->v, &(vec)->cap);                                           \
    (vec)->v[(vec)->n++] = (value);                                                                                    \
  } while (0)

/* Doubles the capacity (at least 8); ends the process on overflow. */
void *vec_grow(struct arena *a, void *v, size_t size, size_t *cap);
