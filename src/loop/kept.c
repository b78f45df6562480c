#include "loop/kept.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/fiber.h"

struct idle {
  struct idle *next;
  const struct kept_kind *kind;
  char *server;
  uint32_t server_len;
  void *conn;
  int fd;
  usec_t until;
};

static struct idle *first; /* the one used last is in front */
static struct loop_timer *timer;
static usec_t timer_at;
static pid_t owner;

static void idle_free(struct idle *i, bool closing) {
  if (closing)
    i->kind->close(i->conn);
  free(i->server);
  free(i);
}

/* The parent's connections: using or closing one would be heard by its server. */
static void forget_inherited(void) {
  pid_t self = getpid();
  if (owner == self)
    return;
  while (first) {
    struct idle *i = first;
    first = i->next;
    idle_free(i, false);
  }
  owner = self;
  timer = NULL; /* loop_reinit has dropped it */
}

static bool is_to(const struct idle *i, const struct kept_kind *kind, struct str server) {
  return i->kind == kind && i->server_len == server.len && memcmp(i->server, server.p, server.len) == 0;
}

static void start_timer(void);

static void close_idle(void *arg) {
  timer = NULL;
  if (owner != getpid())
    return;
  usec_t now = loop_now_fresh();
  for (struct idle **p = &first; *p;) {
    struct idle *i = *p;
    if (i->until > now) {
      p = &i->next;
      continue;
    }
    *p = i->next;
    idle_free(i, true);
  }
  if (first)
    start_timer();
}

/* For the one that ends first; one that is taken before leaves a timer that finds nothing. */
static void start_timer(void) {
  usec_t now = loop_now_fresh(), until = first->until;
  for (const struct idle *i = first->next; i; i = i->next)
    until = i->until < until ? i->until : until;
  if (until < now + USEC_PER_SEC)
    until = now + USEC_PER_SEC;
  if (timer != NULL && timer_at <= until)
    return;
  if (timer != NULL)
    loop_timer_stop(timer);
  timer_at = until;
  timer = loop_timer_start(until - now, close_idle, NULL);
}

static bool is_quiet(const struct idle *i) {
  if (i->kind->spoke)
    return !i->kind->spoke(i->conn);
  struct pollfd p = {.fd = i->fd, .events = POLLIN};
  return i->fd < 0 || poll(&p, 1, 0) == 0;
}

void *kept_take(const struct kept_kind *kind, struct str server) {
  forget_inherited();
  for (struct idle **p = &first; *p;) {
    struct idle *i = *p;
    if (!is_to(i, kind, server)) {
      p = &i->next;
      continue;
    }
    *p = i->next;
    void *conn = i->conn;
    bool good = is_quiet(i) && i->until > loop_now_fresh();
    idle_free(i, !good);
    if (good)
      return conn;
  }
  return NULL;
}

void kept_give(const struct kept_kind *kind, struct str server, void *conn, int fd) {
  int all = 0, same = 0;
  forget_inherited();
  for (const struct idle *i = first; i; i = i->next) {
    all += i->kind == kind;
    same += is_to(i, kind, server);
  }
  if (all >= kind->max || same >= kind->max_each) {
    kind->close(conn);
    return;
  }
  struct idle *i = xcalloc(1, sizeof *i);
  *i = (struct idle){.next = first, .kind = kind, .server = xmalloc((size_t)server.len + 1), .server_len = server.len,
    .conn = conn, .fd = fd, .until = loop_now_fresh() + kind->seconds * USEC_PER_SEC};
  memcpy(i->server, server.p, server.len);
  first = i;
  if (fiber_self() != NULL)
    start_timer();
}

static void close_some(const struct kept_kind *kind, const struct str *server) {
  forget_inherited();
  for (struct idle **p = &first; *p;) {
    struct idle *i = *p;
    if (server ? !is_to(i, kind, *server) : i->kind != kind) {
      p = &i->next;
      continue;
    }
    *p = i->next;
    idle_free(i, true);
  }
}

void kept_close(const struct kept_kind *kind) { close_some(kind, NULL); }
void kept_close_server(const struct kept_kind *kind, struct str server) { close_some(kind, &server); }
