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

/* Without its files. False: they must be read. */
static bool print_summary(const struct queue_list *l, const struct spool_entry *e, struct summaries *known, FILE *out) {
  struct summary s;
  struct summary_recipient r;
  if (!known || e->journal || !summaries_find(known, e->id, e->inode, &s) || (s.generated && l->with_generated))
    return false;
  if (l->own_only && s.uid != l->uid)
    return true;
  print_head(e->id, s.received, s.size, s.login, s.sender, s.frozen, out);
  while (summary_next_recipient(&s, &r))
    print_recipient(l, r.address, r.done, out);
  fputc('\n', out);
  return true;
}

static void print_bad(struct ctx *c, const struct queue_list *l, struct str id, enum spool_read got, FILE *out) {
  struct str text;
  fprintf(out, "      %.*s\n", STRF(id));
  if (got == SPOOL_IO)
    fprintf(out, "    *** spool read error: %.*s ***\n\n", STRF(c->error));
  else if (spool_read_file(c, l->queue_name, id, 'H', c->arena, 64u << 20, &text) == 0)
    fprintf(out, "    *** spool format error: size=%u ***\n\n", text.len);
  else
    fputs("    *** spool format error ***\n\n", out);
}

static void list_one(struct ctx *c, const struct queue_list *l, const struct spool_entry *e, struct summaries *known, FILE *out) {
  struct str id = str_c(e->id);
  if (print_summary(l, e, known, out))
    return;
  struct message *m;
  enum spool_read got = spool_read_message(c, l->queue_name, id, false, &m);
  if (got == SPOOL_NOT_FOUND)
    return; /* it was delivered meanwhile */
  if (got != SPOOL_OK) {
    if (!l->own_only)
      print_bad(c, l, id, got, out);
    return;
  }
  if (!l->own_only || m->originator_uid == l->uid)
    print_message(l, m, out);
  if (known && !e->journal)
    summaries_add(known, m, e->inode);
  message_free(m);
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
  for (size_t i = 0; rc == 0 && i < n; i++) {
    struct str id = str_c(v[i].id);
    if (!wanted(l, id))
      continue;
    if (l->ids_only) {
      fprintf(out, "%s\n", v[i].id);
      continue;
    }
    c->arena = arena_new("queue list entry");
    list_one(c, l, &v[i], known, out);
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
