/* Compiled filters, by their text: what was compiled for one message serves
the next ones. Least recently used goes first. */

#include "base/arena.h"
#include "filter/sieve.h"

#define CACHE_SLOTS 256
#define CACHE_BYTES (8u << 20)

struct filter_cached {
  struct arena *arena;
  struct str text;
  unsigned rights;            /* of the rules that decide about the syntax */
  const struct filter_program *program;
  unsigned uses;              /* runs under way: they may suspend */
  uint64_t last;
  bool dropped;               /* out of the cache: to be freed by its last user */
};

static struct filter_cached *slots[CACHE_SLOTS];
static size_t used_bytes, compilations;
static uint64_t clock_now;

static unsigned rights_of(const struct filter_rules *r) {
  return (r->system ? 1u : 0) | (r->allow_defer ? 2u : 0) | (r->allow_fail ? 4u : 0) | (r->allow_freeze ? 8u : 0) |
         (r->testing ? 16u : 0) | (str_is_set(r->sieve_enotify_owner) ? 32u : 0) | (str_is_set(r->sieve_vacation_directory) ? 64u : 0);
}

static void drop(size_t i) {
  struct filter_cached *e = slots[i];
  slots[i] = NULL;
  used_bytes -= arena_used(e->arena);
  e->dropped = true;
  if (!e->uses)
    arena_free(e->arena);
}

static void drop_oldest(void) {
  size_t oldest = CACHE_SLOTS;
  for (size_t i = 0; i < CACHE_SLOTS; i++)
    if (slots[i] && (oldest == CACHE_SLOTS || slots[i]->last < slots[oldest]->last))
      oldest = i;
  if (oldest < CACHE_SLOTS)
    drop(oldest);
}

static struct filter_cached *compile(struct str text, const struct filter_rules *rules) {
  struct arena *a = arena_new("filter");
  struct filter_cached *e = arena_new_of(a, struct filter_cached);
  e->arena = a;
  e->text = str_dup(a, text);
  e->rights = rights_of(rules);
  if (filter_kind(e->text) == FILTER_SIEVE && !rules->system) {
    struct filter_program *p = arena_new_of(a, struct filter_program);
    p->error = STR_UNSET;
    p->sieve = sieve_compile(a, e->text, rules);
    e->program = p;
  } else {
    e->program = filter_compile(a, e->text, rules);
  }
  compilations++;
  return e;
}

const struct filter_program *filter_cache_get(struct str text, const struct filter_rules *rules, struct filter_cached **ret_held) {
  size_t slot = (str_hash(text) ^ rights_of(rules)) % CACHE_SLOTS;
  struct filter_cached *e = slots[slot];
  if (!e || e->rights != rights_of(rules) || !str_eq(e->text, text)) {
    if (e)
      drop(slot);
    slots[slot] = e = compile(text, rules);
    used_bytes += arena_used(e->arena);
  }
  e->last = ++clock_now;
  e->uses++;
  while (used_bytes > CACHE_BYTES)
    drop_oldest();
  *ret_held = e;
  return e->program;
}

void filter_cache_release(struct filter_cached *e) {
  if (--e->uses == 0 && e->dropped)
    arena_free(e->arena);
}

void filter_cache_clear(void) {
  for (size_t i = 0; i < CACHE_SLOTS; i++)
    if (slots[i])
      drop(i);
}

size_t filter_compilations(void) { return compilations; }
