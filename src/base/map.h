/* Hash map from strings to pointers, in an arena; insertion order is kept for
iteration. Keys are copied. Not for data that must be removed often. */
#pragma once

#include "base/str.h"

struct arena;
struct map;

struct map *map_new(struct arena *a);
struct map *map_new_caseless(struct arena *a); /* ASCII case ignored */
void map_set(struct map *m, struct str key, void *value); /* replaces */
void *map_get(const struct map *m, struct str key);      /* NULL: absent */
bool map_has(const struct map *m, struct str key);
void map_remove(struct map *m, struct str key);
size_t map_count(const struct map *m);
/* Iteration: size_t i = 0; while (map_next(m, &i, &key, &value)) … */
bool map_next(const struct map *m, size_t *i, struct str *ret_key, void **ret_value);
