#include "base/ascii.h"
#include "config/config.h"

#define NAME_MAX_COMPARED 64

static size_t min3(size_t a, size_t b, size_t c) { return a < b ? (a < c ? a : c) : (b < c ? b : c); }

/* Edits (insert, delete, change, swap of neighbours) between two names. */
static size_t distance(struct str a, struct str b) {
  size_t rows[3][NAME_MAX_COMPARED + 1];
  size_t *before = rows[0], *last = rows[1], *now = rows[2];
  for (size_t j = 0; j <= b.len; j++)
    last[j] = j;
  for (size_t i = 1; i <= a.len; i++) {
    now[0] = i;
    for (size_t j = 1; j <= b.len; j++) {
      char x = ascii_lower(a.p[i - 1]), y = ascii_lower(b.p[j - 1]);
      now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
      if (i > 1 && j > 1 && x == ascii_lower(b.p[j - 2]) && ascii_lower(a.p[i - 2]) == y && before[j - 2] + 1 < now[j])
        now[j] = before[j - 2] + 1;
    }
    size_t *spare = before;
    before = last;
    last = now;
    now = spare;
  }
  return last[b.len];
}

const char *config_nearest(struct str name, const void *names, size_t stride, size_t n) {
  const char *best = NULL;
  size_t best_distance = name.len < 4 ? 1 : name.len < 8 ? 2 : 3;
  if (name.len == 0 || name.len > NAME_MAX_COMPARED)
    return NULL;
  best_distance++;
  for (size_t i = 0; i < n; i++) {
    const char *candidate = *(const char *const *)((const char *)names + i * stride);
    struct str c = str_c(candidate);
    if (c.len > NAME_MAX_COMPARED || c.len + best_distance < name.len || name.len + best_distance < c.len)
      continue;
    size_t d = distance(name, c);
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}
