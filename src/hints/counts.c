/* Counts of what runs at the same time, in the database "misc": "count time". A process that died leaves its count behind:
one that is older than six hours is not believed. */
#include <stdlib.h>
#include <time.h>
#include "base/buf.h"
#include "hints/records.h"

#define DATABASE "misc"
#define OLD (6 * 3600)

struct change {
  int64_t limit; /* 0: count down */
  int64_t now;
  bool full;
};

static int64_t count_of(struct str value, int64_t now) {
  uint64_t count, stamp;
  struct str rest = value, first = str_cut(&rest, ' ');
  if (!str_is_set(value) || !str_is_set(rest) || !str_to_u64(first, &count) || !str_to_u64(rest, &stamp))
    return 0;
  return (int64_t)stamp < now - OLD || count > INT32_MAX ? 0 : (int64_t)count;
}

static int change_count(struct arena *a, struct str *value, void *arg) {
  struct change *ch = arg;
  int64_t n = count_of(*value, ch->now);
  ch->full = ch->limit > 0 && n >= ch->limit;
  if (ch->full)
    return 0;
  n += ch->limit > 0 ? 1 : -1;
  if (n <= 0)
    return -1;
  *value = str_printf(a, "%lld %lld", (long long)n, (long long)ch->now);
  return 1;
}

bool hint_count_enter(struct ctx *c, struct str key, int64_t limit) {
  struct change ch = {.limit = limit, .now = time(NULL)};
  return hints_update(c, DATABASE, key, change_count, &ch) != OUTCOME_OK || !ch.full;
}

void hint_count_leave(struct ctx *c, struct str key) {
  struct change ch = {.now = time(NULL)};
  (void)hints_update(c, DATABASE, key, change_count, &ch);
}
