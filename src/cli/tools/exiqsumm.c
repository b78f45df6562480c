/* exiqsumm: how much waits for which domain (Exim manual, section "Summarizing the queue"). Reads the output of -bp. */

#include <stdlib.h>

#include "base/ascii.h"
#include "base/map.h"
#include "base/vec.h"
#include "cli/tools/tools.h"

struct line {
  struct str name;
  uint64_t count, volume;
  struct str oldest, newest;
  int64_t oldest_age, newest_age;
};

struct summary {
  struct tool *t;
  struct map *by_name;
  VEC(struct line *) lines;
  struct line total;
  bool bounces, frozen, senders, by_age, by_count;
};

static void add_to(struct line *l, const struct tool_message *m) {
  int64_t age = tool_age(m->age), size = tool_size(m->size);
  if (!l->count || age > l->oldest_age) {
    l->oldest = m->age;
    l->oldest_age = age;
  }
  if (!l->count || age < l->newest_age) {
    l->newest = m->age;
    l->newest_age = age;
  }
  l->count++;
  l->volume += size > 0 ? (uint64_t)size : 0;
}

static struct str domain_of(struct arena *a, struct str address) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  return str_lower(a, at < 0 ? address : str_from(address, (size_t)at + 1));
}

static struct str sender_domain(struct arena *a, struct str sender) {
  return sender.len > 2 ? domain_of(a, str_slice(sender, 1, sender.len - 1)) : STR("<>");
}

static void add_message(struct summary *s, const struct tool_message *m) {
  struct arena *a = s->t->arena;
  for (size_t i = 0; i < m->n; i++) {
    struct str address = m->recipients[i];
    if (str_starts(address, STR("D ")))
      continue;
    if (str_starts(address, STR("+D ")))
      address = str_from(address, 3);
    struct str name = domain_of(a, address);
    if (s->senders)
      name = str_printf(a, "%.*s > %.*s", STRF(sender_domain(a, m->sender)), STRF(name));
    if (s->bounces && m->sender.len <= 2)
      name = str_cat(a, name, STR(" (b)"));
    if (s->frozen && m->frozen)
      name = str_cat(a, name, STR(" (f)"));
    struct line *l = map_get(s->by_name, name);
    if (!l) {
      l = arena_new_of(a, struct line);
      l->name = name;
      map_set(s->by_name, name, l);
      vec_push(a, &s->lines, l);
    }
    add_to(l, m);
    add_to(&s->total, m);
  }
}

static int by_name(const void *x, const void *y) { return str_cmp((*(struct line *const *)x)->name, (*(struct line *const *)y)->name); }

static int by_age(const void *x, const void *y) {
  const struct line *a = *(struct line *const *)x, *b = *(struct line *const *)y;
  return a->oldest_age != b->oldest_age ? (a->oldest_age < b->oldest_age) - (a->oldest_age > b->oldest_age) : by_name(x, y);
}

static int by_count(const void *x, const void *y) {
  const struct line *a = *(struct line *const *)x, *b = *(struct line *const *)y;
  return a->count != b->count ? (a->count < b->count) - (a->count > b->count) : by_name(x, y);
}

static void show(struct arena *a, const struct line *l, struct str name) {
  struct str volume = str_printf(a, "%llu", (unsigned long long)l->volume);
  if (l->volume >= (10u << 20))
    volume = str_printf(a, "%lluMB", (unsigned long long)(l->volume + (1u << 19)) >> 20);
  else if (l->volume >= 10000)
    volume = str_printf(a, "%lluKB", (unsigned long long)(l->volume + 512) >> 10);
  printf("%5llu  %6.*s  %6.*s  %6.*s  %.*s\n", (unsigned long long)l->count, STRF(volume), STRF(l->oldest), STRF(l->newest), STRF(name));
}

int tool_exiqsumm(struct tool *t) {
  struct summary s = {.t = t, .by_name = map_new(t->arena), .total = {.oldest = STR_EMPTY, .newest = STR_EMPTY}};
  struct tool_options o = {0};
  struct str value;
  for (int letter; (letter = tool_option(t, &o, "acbfs", &value));)
    switch (letter) {
    case 'a': s.by_age = true; break;
    case 'c': s.by_count = true; break;
    case 'b': s.bounces = true; break;
    case 'f': s.frozen = true; break;
    case 's': s.senders = true; break;
    default: fputs("Usage: exiqsumm [-a] [-c] [-b] [-f] [-s] < output of exim -bp\n", stderr); return 1;
    }
  struct buf all;
  struct str line, listing;
  buf_init(&all, t->arena, 1u << 30);
  while (tool_read_line(stdin, t->arena, &line)) {
    buf_add(&all, line);
    buf_add_byte(&all, '\n');
  }
  listing = buf_str(&all);
  struct tool_message m;
  int rc;
  while ((rc = tool_take_message(t, &listing, &m)) > 0)
    add_message(&s, &m);
  if (rc < 0)
    return 1;
  if (s.lines.n)
    qsort(s.lines.v, s.lines.n, sizeof *s.lines.v, s.by_age ? by_age : s.by_count ? by_count : by_name);
  puts("\nCount  Volume  Oldest  Newest  Domain\n-----  ------  ------  ------  ------\n");
  for (size_t i = 0; i < s.lines.n; i++)
    show(t->arena, s.lines.v[i], s.lines.v[i]->name);
  puts("---------------------------------------------------------------");
  if (!s.total.count) { /* as the script of that name shows nothing */
    s.total.oldest = STR("0m");
    s.total.newest = STR("0000d");
  }
  show(t->arena, &s.total, STR("TOTAL"));
  putchar('\n');
  return 0;
}
