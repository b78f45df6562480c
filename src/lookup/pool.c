#include "lookup/pool.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/fiber.h"

#define IDLE_MAX 64
#define IDLE_TIME (60 * USEC_PER_SEC)

struct idle {
  struct idle *next;
  const char *type;
  char *server;
  uint32_t server_len;
  void *conn;
  int fd;
  void (*close)(void *conn);
  usec_t until;
};

static struct idle *first; /* the one used last is in front */
static int count;
static struct loop_timer *timer;
static pid_t owner;

static void idle_free(struct idle *i, bool closing) {
  if (closing)
    i->close(i->conn);
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
  count = 0;
  timer = NULL; /* loop_reinit has dropped it */
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
    count--;
    idle_free(i, true);
  }
  start_timer();
}

static void start_timer(void) {
  if (timer == NULL && first != NULL && fiber_self() != NULL)
    timer = loop_timer_start(IDLE_TIME / 2, close_idle, NULL);
}

static bool is_quiet(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return fd < 0 || poll(&p, 1, 0) == 0;
}

void *db_pool_take(const char *type, struct str server) {
  forget_inherited();
  for (struct idle **p = &first; *p;) {
    struct idle *i = *p;
    if (strcmp(i->type, type) != 0 || i->server_len != server.len || memcmp(i->server, server.p, server.len) != 0) {
      p = &i->next;
      continue;
    }
    *p = i->next;
    count--;
    void *conn = i->conn;
    bool good = is_quiet(i->fd) && i->until > loop_now_fresh();
    idle_free(i, !good);
    if (good)
      return conn;
  }
  return NULL;
}

void db_pool_give(const char *type, struct str server, void *conn, int fd, void (*close_it)(void *conn)) {
  forget_inherited();
  if (count >= IDLE_MAX) {
    close_it(conn);
    return;
  }
  struct idle *i = xcalloc(1, sizeof *i);
  *i = (struct idle){.next = first, .type = type, .server = xmalloc((size_t)server.len + 1), .server_len = server.len,
    .conn = conn, .fd = fd, .close = close_it, .until = loop_now_fresh() + IDLE_TIME};
  memcpy(i->server, server.p, server.len);
  first = i;
  count++;
  start_timer();
}

void db_pool_close(const char *type) {
  forget_inherited();
  for (struct idle **p = &first; *p;) {
    struct idle *i = *p;
    if (strcmp(i->type, type) != 0) {
      p = &i->next;
      continue;
    }
    *p = i->next;
    count--;
    idle_free(i, true);
  }
}
