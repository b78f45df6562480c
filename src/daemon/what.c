#include "daemon/what.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "smtp/client/patience.h"

#define ANSWER_SECONDS 5

static struct what_item *items;

void what_begin(struct what_item *i, const char *doing) {
  *i = (struct what_item){.doing = doing, .uid = -1, .since = time(NULL), .next = items, .link = &items};
  if (items)
    items->link = &i->next;
  items = i;
}

void what_end(struct what_item *i) {
  *i->link = i->next;
  if (i->next)
    i->next->link = i->link;
}

/* The hosts that the message is being sent to: several lines when they are tried in parallel. */
static bool deliveries(struct buf *b, const struct what_item *i, long long seconds) {
  bool any = false;
  for (const struct patience *p = patience_first(); p; p = p->next)
    if (!strcmp(p->message->id, i->id) && !p->host) {
      buf_printf(b, "%d %s %s: routing %.*s for %llds\n", (int)getpid(), i->doing, i->id, STRF(p->recipient), seconds);
      any = true;
    } else if (!strcmp(p->message->id, i->id)) {
      buf_printf(b, "%d %s %s to %.*s [%.*s] (%.*s) for %llds\n", (int)getpid(), i->doing, i->id, STRF(p->host_name), STRF(p->host_address),
          STRF(p->recipient), seconds);
      any = true;
    }
  return any;
}

void what_lines(struct buf *b) {
  time_t now = time(NULL);
  for (const struct what_item *i = items; i; i = i->next) {
    long long seconds = now > i->since ? now - i->since : 0;
    if (i->id[0] && deliveries(b, i, seconds))
      continue;
    buf_printf(b, "%d %s", (int)getpid(), i->doing);
    if (i->id[0])
      buf_printf(b, " %s", i->id);
    struct arena *a = i->port ? arena_new("what") : NULL;
    if (a)
      buf_printf(b, " [%.*s]:%d", STRF(ip_text(a, &i->peer)), i->port);
    arena_free(a);
    if (i->uid >= 0)
      buf_printf(b, " uid=%ld", i->uid);
    buf_printf(b, " for %llds\n", seconds);
  }
}

struct answer {
  struct arena *arena;
  struct str text;
  int fd;
};

/* As much as a pipe takes in one piece, whole lines: those of other processes come in between. */
static size_t piece(struct str s) {
  size_t n = s.len < PIPE_BUF ? s.len : PIPE_BUF;
  for (size_t i = n; i > 0; i--)
    if (s.p[i - 1] == '\n')
      return i;
  return n;
}

static void answer_fiber(void *arg) {
  struct answer *w = arg;
  usec_t deadline = deadline_in(ANSWER_SECONDS);
  (void)fcntl(w->fd, F_SETFL, O_NONBLOCK);
  while (w->text.len) {
    ssize_t n = write(w->fd, w->text.p, piece(w->text));
    if (n > 0)
      w->text = str_from(w->text, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR) || fiber_wait_fd(w->fd, FIBER_WRITE, deadline) < 0)
      break;
  }
  close(w->fd);
  arena_free(w->arena);
}

void what_answer(int fd, struct str text) {
  struct arena *a = arena_new("what");
  struct answer *w = arena_new_of(a, struct answer);
  *w = (struct answer){.arena = a, .text = str_dup(a, text), .fd = fd};
  (void)fiber_spawn("what", answer_fiber, w);
}
