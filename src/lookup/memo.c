#include "lookup/memo.h"

#include "base/map.h"
#include "loop/fiber.h"

#define MEMO_MAX_ENTRIES 1000
#define MEMO_MAX_BYTES (2u << 20)
#define MEMO_SECONDS 60

struct memo {
  struct arena *arena;
  struct map *map;
  const struct message *message;
  usec_t until;
};

struct entry {
  struct memo_value v;
  usec_t until;
};

static void memo_free(void *arg) {
  struct ctx *c = arg;
  if (c->memo == NULL)
    return;
  struct arena *a = c->memo->arena;
  c->memo = NULL;
  arena_free(a);
}

void memo_forget(struct ctx *c) {
  struct memo *m = c->memo;
  if (m == NULL)
    return;
  struct arena *a = m->arena;
  arena_reset(a);
  m = arena_new_of(a, struct memo);
  m->arena = a;
  m->map = map_new(a);
  m->message = c->message;
  m->until = loop_now_fresh() + MEMO_SECONDS * USEC_PER_SEC;
  c->memo = m;
}

static struct memo *memo_of(struct ctx *c, usec_t now) {
  if (c->memo == NULL) {
    struct arena *a = arena_new("memo");
    c->memo = arena_new_of(a, struct memo);
    c->memo->arena = a;
    arena_cleanup(c->arena, memo_free, c);
    memo_forget(c);
  } else if (c->memo->message != c->message || now > c->memo->until ||
             map_count(c->memo->map) >= MEMO_MAX_ENTRIES || arena_used(c->memo->arena) > MEMO_MAX_BYTES) {
    memo_forget(c);
  }
  return c->memo;
}

const struct memo_value *memo_get(struct ctx *c, struct str key) {
  if (c->memo == NULL)
    return NULL;
  usec_t now = loop_now_fresh();
  struct entry *e = map_get(memo_of(c, now)->map, key);
  return e && e->until > now ? &e->v : NULL;
}

void memo_put(struct ctx *c, struct str key, int outcome, struct str value, int seconds) {
  if (seconds == 0 || (size_t)value.len + key.len > MEMO_MAX_BYTES / 8)
    return;
  struct memo *m = memo_of(c, loop_now_fresh());
  struct entry *e = arena_new_of(m->arena, struct entry);
  e->v.outcome = outcome;
  e->v.value = str_is_set(value) ? str_dup(m->arena, value) : STR_UNSET;
  e->until = seconds < 0 ? DEADLINE_NEVER : deadline_in(seconds);
  map_set(m->map, key, e);
}
