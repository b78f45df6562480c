#include "queue/list.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/map.h"
#include "message/message.h"
#include "queue/spool.h"

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

static void print_recipients(const struct queue_list *l, const struct message *m, FILE *out) {
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    bool done = message_is_nonrecipient(m, address);
    if (!done || !l->undelivered_only)
      fprintf(out, "        %s %.*s\n", done ? "D" : " ", STRF(address));
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

static void print_message(const struct queue_list *l, const struct message *m, FILE *out) {
  print_age(out, time(NULL) - m->received_time.tv_sec);
  print_size(out, m->size);
  fprintf(out, " %s ", m->id);
  if (m->reverse_path_set_untrusted)
    fprintf(out, "(%.*s) ", STRF(m->originator_login));
  fprintf(out, "<%.*s>%s\n", STRF(m->reverse_path), m->frozen ? " *** frozen ***" : "");
  print_recipients(l, m, out);
  fputc('\n', out);
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

static void list_one(struct ctx *c, const struct queue_list *l, struct str id, FILE *out) {
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
  message_free(m);
}

static bool wanted(const struct queue_list *l, struct str id) {
  for (size_t i = 0; i < l->n; i++)
    if (str_eq(l->ids[i], id))
      return true;
  return l->n == 0;
}

int queue_list(struct ctx *c, const struct queue_list *l, FILE *out) {
  struct arena *a = arena_new("queue list"), *saved = c->arena;
  struct spool_entry *v;
  size_t n;
  int rc = spool_scan(c, l->queue_name, a, &v, &n);
  for (size_t i = 0; rc == 0 && i < n; i++) {
    struct str id = str_c(v[i].id);
    if (!wanted(l, id))
      continue;
    if (l->ids_only) {
      fprintf(out, "%s\n", v[i].id);
      continue;
    }
    c->arena = arena_new("queue list entry");
    list_one(c, l, id, out);
    arena_free(c->arena);
    c->arena = saved;
  }
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
