#include "lookup/handles.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/main_options.h"

#define DEFAULT_OPEN_MAX 25

struct lookup_handle {
  struct lookup_handle *prev, *next; /* most recently used first */
  const struct lookup_def *def;
  char *file; /* NULL: a query type without one */
  void *data;
  int users;
  bool dropped; /* not in the list any more: freed with the last user */
};

static struct lookup_handle *first, *last;
static int open_count;

static void unlink_handle(struct lookup_handle *h) {
  *(h->prev ? &h->prev->next : &first) = h->next;
  *(h->next ? &h->next->prev : &last) = h->prev;
  open_count--;
}

static void link_first(struct lookup_handle *h) {
  h->prev = NULL;
  h->next = first;
  *(first ? &first->prev : &last) = h;
  first = h;
  open_count++;
}

static void handle_free(struct lookup_handle *h) {
  if (h->def->close && h->data)
    h->def->close(h->data);
  free(h->file);
  free(h);
}

static void handle_drop(struct lookup_handle *h) {
  unlink_handle(h);
  h->dropped = true;
  if (h->users == 0)
    handle_free(h);
}

static struct lookup_handle *handle_find(const struct lookup_def *def, struct str file) {
  for (struct lookup_handle *h = first; h; h = h->next)
    if (h->def == def && (h->file ? str_is_set(file) && str_eq_c(file, h->file) : !str_is_set(file)))
      return h;
  return NULL;
}

static void make_room(const struct ctx *c) {
  int64_t max = c->config ? main_options(c->config)->lookup_open_max : DEFAULT_OPEN_MAX;
  if (max < 1)
    max = 1;
  struct lookup_handle *h = last, *prev;
  for (; h && open_count >= max; h = prev) {
    prev = h->prev;
    if (h->users == 0)
      handle_drop(h);
  }
}

static bool inherited; /* since the fork nobody has looked for handles */

static void note_fork(void) { inherited = true; }

/* In a forked child: the parent's connections to databases are left alone, neither used nor closed. */
static void forget_inherited(void) {
  if (!inherited)
    return;
  inherited = false;
  for (struct lookup_handle *h = first, *next; h; h = next) {
    next = h->next;
    if (h->def->flags & LOOKUP_QUERY)
      unlink_handle(h);
  }
}

static pid_t closer;

/* Servers are told that we go, and libraries give back what leak checkers cannot see that they hold. */
static void close_at_exit(void) {
  if (closer == getpid())
    lookup_tidy();
}

static void arrange_closing(void) {
  if (closer == 0) {
    atexit(close_at_exit);
    pthread_atfork(NULL, NULL, note_fork);
  }
  closer = getpid();
}

int lookup_handle_acquire(struct ctx *c, const struct lookup_def *def, struct str file, struct lookup_handle **ret) {
  forget_inherited();
  struct lookup_handle *h = handle_find(def, file);
  if (h && def->stale && def->stale(h->data, file)) {
    handle_drop(h);
    h = NULL;
  }
  if (h) {
    unlink_handle(h);
    link_first(h);
    h->users++;
    *ret = h;
    return OUTCOME_OK;
  }
  make_room(c);
  arrange_closing();
  void *data = NULL;
  int r = def->open ? def->open(c, def, file, &data) : OUTCOME_OK;
  if (r == OUTCOME_OK && def->check && (r = def->check(c, def, data, file)) != OUTCOME_OK && def->close)
    def->close(data);
  if (r != OUTCOME_OK)
    return r;
  h = xcalloc(1, sizeof *h);
  h->def = def;
  h->data = data;
  if (str_is_set(file)) {
    h->file = xmalloc((size_t)file.len + 1);
    memcpy(h->file, file.p, file.len);
    h->file[file.len] = '\0';
  }
  h->users = 1;
  link_first(h);
  *ret = h;
  return OUTCOME_OK;
}

void *lookup_handle_data(const struct lookup_handle *h) { return h->data; }

void lookup_handle_release(struct lookup_handle *h) {
  h->users--;
  if (h->dropped && h->users == 0)
    handle_free(h);
}

void lookup_handles_close(void) {
  while (first)
    handle_drop(first);
}
