#include "queue/list.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/map.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "queue/spool.h"
#include "queue/summary.h"

/* Fewer messages are read from their files. */
#define SUMMARIES_FROM 50

/* " 5m", "90m", "70h", " 4d". */
static void print_age(FILE *out, int64_t seconds) {
  int64_t n = seconds < 0 ? 0 : seconds / 60;
  char unit = 'm';
  if (n > 90) {
    unit = 'h';
    n = (n + 30) / 60;
    if (n > 72) {
      unit = 'd';
      n = (n + 12) / 24;
    }
  }
  fprintf(out, "%2lld%c ", (long long)n, unit);
}

/* Five columns. */
static void print_size(FILE *out, uint64_t n) {
  if (n == 0)
    fputs("     ", out);
  else if (n < 1024)
    fprintf(out, "%5llu", (unsigned long long)n);
  else if (n < 10 * 1024)
    fprintf(out, "%4.1fK", (double)n / 1024);
  else if (n < 1024 * 1024)
    fprintf(out, "%4lluK", (unsigned long long)((n + 512) / 1024));
  else if (n < 10 * 1024 * 1024)
    fprintf(out, "%4.1fM", (double)n / (1024 * 1024));
  else
    fprintf(out, "%4lluM", (unsigned long long)((n + 512 * 1024) / (1024 * 1024)));
}

static int compare_addresses(const void *a, const void *b) { return str_cmp(*(const struct str *)a, *(const struct str *)b); }

static void print_recipient(const struct queue_list *l, struct str address, bool done, FILE *out) {
  if (!done || !l->undelivered_only)
    fprintf(out, "        %s %.*s\n", done ? "D" : " ", STRF(address));
}

static void print_recipients(const struct queue_list *l, const struct message *m, FILE *out) {
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    print_recipient(l, address, message_is_nonrecipient(m, address), out);
  }
  if (!l->with_generated || !m->nonrecipients)
    return;
  struct map *known = map_new(m->arena);
  for (size_t i = 0; i < m->recipients.n; i++)
    map_set(known, m->recipients.v[i].address, known);
  size_t i = 0;
  struct str address;
  void *value;
  VEC(struct str) more = {0};
  while (map_next(m->nonrecipients, &i, &address, &value))
    if (!map_has(known, address))
      vec_push(m->arena, &more, address);
  if (more.n)
    qsort(more.v, more.n, sizeof *more.v, compare_addresses);
  for (i = 0; i < more.n; i++)
    fprintf(out, "       +D %.*s\n", STRF(more.v[i]));
}

/* The first line; login: unset unless an ordinary user said who the sender is. */
static void print_head(const char *id, int64_t received, uint64_t size, struct str login, struct str sender, bool frozen, FILE *out) {
  print_age(out, time(NULL) - received);
  print_size(out, size);
  fprintf(out, " %s ", id);
  if (str_is_set(login))
    fprintf(out, "(%.*s) ", STRF(login));
  fprintf(out, "<%.*s>%s\n", STRF(sender), frozen ? " *** frozen ***" : "");
}

static void print_message(const struct queue_list *l, const struct message *m, FILE *out) {
  print_head(m->id, m->received_time.tv_sec, m->size, m->reverse_path_set_untrusted ? m->originator_login : STR_UNSET,
    m->reverse_path, m->frozen, out);
  print_recipients(l, m, out);
  fputc('\n', out);
}

/* Without its files. */
static void print_summary(const struct queue_list *l, struct summary *s, const char *id, FILE *out) {
  struct summary_recipient r;
  if (l->own_only && s->uid != l->uid)
    return;
  print_head(id, s->received, s->size, s->login, s->sender, s->frozen, out);
  while (summary_next_recipient(s, &r))
    print_recipient(l, r.address, r.done, out);
  fputc('\n', out);
}

static void print_bad(struct ctx *c, const struct queue_list *l, const struct spool_reading *r, FILE *out) {
  struct str text;
  fprintf(out, "      %s\n", r->id);
  if (r->got == SPOOL_IO)
    fprintf(out, "    *** spool read error: %.*s ***\n\n", STRF(r->error));
  else if (spool_read_file(c, l->queue_name, str_c(r->id), 'H', c->arena, 64u << 20, &text) == 0)
    fprintf(out, "    *** spool format error: size=%u ***\n\n", text.len);
  else
    fputs("    *** spool format error ***\n\n", out);
}

/* Of those not found: they were delivered meanwhile. */
static void print_read(struct ctx *c, const struct queue_list *l, struct spool_reading *r, FILE *out) {
  if (r->got == SPOOL_BAD || r->got == SPOOL_IO) {
    if (!l->own_only)
      print_bad(c, l, r, out);
  } else if (r->got == SPOOL_OK && (!l->own_only || r->m->originator_uid == l->uid)) {
    print_message(l, r->m, out);
  }
}

/* The next lines of the list: their messages are read in one go, as far as their summaries do not do. */
struct piece {
  const struct spool_entry *entries[SPOOL_MANY];
  size_t n;
};

static void list_piece(struct ctx *c, const struct queue_list *l, struct piece *p, struct summaries *known, FILE *out) {
  struct summary found[SPOOL_MANY];
  struct spool_reading read[SPOOL_MANY];
  bool has[SPOOL_MANY];
  size_t n = 0;
  for (size_t i = 0; i < p->n; i++) {
    const struct spool_entry *e = p->entries[i];
    has[i] = known && !e->journal && summaries_find(known, e->id, e->inode, &found[i]) && !(found[i].generated && l->with_generated);
    if (!has[i])
      read[n++] = (struct spool_reading){.id = e->id};
  }
  if (n)
    spool_read_many(c, l->queue_name, read, n);
  struct spool_reading *r = read;
  for (size_t i = 0; i < p->n; i++) {
    if (has[i]) {
      print_summary(l, &found[i], p->entries[i]->id, out);
      continue;
    }
    print_read(c, l, r, out);
    if (r->got == SPOOL_OK) {
      if (known && !p->entries[i]->journal)
        summaries_add(known, r->m, p->entries[i]->inode);
      message_free(r->m);
    }
    r++;
  }
  p->n = 0;
}

static bool wanted(const struct queue_list *l, struct str id) {
  for (size_t i = 0; i < l->n; i++)
    if (str_eq(l->ids[i], id))
      return true;
  return l->n == 0;
}

struct load_job {
  struct arena *a;
  struct str queue_name;
  struct summaries *loaded;
};

static int load(void *arg) {
  struct load_job *job = arg;
  job->loaded = summaries_load(job->a, job->queue_name);
  return 0;
}

static struct summaries *load_summaries(struct arena *a, struct str queue_name) {
  struct load_job job = {a, queue_name, NULL};
  (void)fiber_offload(load, &job);
  return job.loaded;
}

static int save_summaries(void *arg) {
  summaries_save(arg);
  return 0;
}

int queue_list(struct ctx *c, const struct queue_list *l, FILE *out) {
  struct arena *a = arena_new("queue list"), *saved = c->arena;
  struct spool_entry *v;
  size_t n;
  int rc = spool_scan(c, l->queue_name, a, &v, &n);
  struct summaries *known = rc == 0 && n >= SUMMARIES_FROM && !l->ids_only ? load_summaries(a, l->queue_name) : NULL;
  struct piece p = {.n = 0};
  for (size_t i = 0; rc == 0 && i <= n; i++) {
    if (i < n && l->ids_only && wanted(l, str_c(v[i].id)))
      fprintf(out, "%s\n", v[i].id);
    else if (i < n && wanted(l, str_c(v[i].id)))
      p.entries[p.n++] = &v[i];
    if (p.n < SPOOL_MANY && i < n)
      continue;
    c->arena = arena_new("queue list entries");
    list_piece(c, l, &p, known, out);
    arena_free(c->arena);
    c->arena = saved;
  }
  if (known)
    (void)fiber_offload(save_summaries, known);
  arena_free(a);
  return rc;
}

int queue_list_count(struct ctx *c, struct str queue_name, FILE *out) {
  struct arena *a = arena_new("queue list");
  struct spool_entry *v;
  size_t n;
  int rc = spool_scan(c, queue_name, a, &v, &n);
  if (rc == 0)
    fprintf(out, "%zu\n", n);
  arena_free(a);
  return rc;
}
