/* The side that asks. */
#include "dns/validator.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dns/options.h"
#include "log/log.h"
#include "loop/child.h"
#include "loop/fiber.h"

#define PENDING_MAX 512
#define SECONDS_DEFAULT 30
#define RESTART_PAUSE USEC_PER_SEC
#define TELL_PAUSE (60 * USEC_PER_SEC)

struct pending {
  struct pending *next;
  struct fiber *fiber;
  struct arena *arena;
  const struct validator_request *request;
  size_t request_n;
  uint32_t id;
  bool sent, done;
  unsigned char *reply;
  size_t reply_n;
};

static struct {
  pid_t owner, pid;
  int fd;
  struct event *event;
  struct pending *pending;
  int pending_n;
  uint32_t last_id;
  usec_t started, last_reply, told;
  bool managed;
  void (*hung)(void);
} state = {.fd = -1};

static void answer(struct pending *p, const unsigned char *bytes, size_t n) {
  if (p->done)
    return;
  if (n) {
    p->reply = arena_memdup(p->arena, bytes, n);
    p->reply_n = n;
  }
  p->done = true;
  fiber_wake(p->fiber);
}

/* Who has asked gets no answer. */
static void hang_up(bool kill_it) {
  if (state.event)
    event_free(state.event);
  if (state.fd >= 0)
    close(state.fd);
  if (kill_it && state.pid > 0)
    kill(state.pid, SIGKILL); /* the loop reaps it; its number is not given away before */
  state.event = NULL;
  state.fd = -1;
  state.pid = 0;
  for (struct pending *p = state.pending; p; p = p->next)
    if (p->sent)
      answer(p, NULL, 0);
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
  static unsigned char buffer[VALIDATOR_REPLY_MAX];
  struct validator_reply head;
  for (;;) {
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return;
    if (n < (ssize_t)sizeof head) {
      DEBUG(resolver, "the validating resolver has ended\n");
      if (state.last_reply < state.started && state.started > state.told + TELL_PAUSE) {
        state.told = state.started;
        log_write(LOG_MAIN, NULL, "the validating resolver ended before it answered anything (are the files of dns_trust_anchor and "
                                  "dns_validator_config there, and right?)");
      }
      hang_up(false);
      return;
    }
    memcpy(&head, buffer, sizeof head);
    state.last_reply = loop_now_fresh();
    for (struct pending *p = state.pending; p; p = p->next)
      if (p->id == head.id) {
        answer(p, buffer + sizeof head, head.answered ? (size_t)n - sizeof head : 0);
        break;
      }
  }
}

static bool use_channel(int fd) {
  state.event = event_new(loop_event_base(), fd, EV_READ | EV_PERSIST, on_readable, NULL);
  if (!state.event)
    return false;
  event_add(state.event, NULL);
  state.fd = fd;
  return true;
}

static bool start(const struct config *c, struct arena *a) {
  const struct dns_options *o = dns_options(c);
  int pair[2], size = 512 << 10;
  usec_t now = loop_now_fresh();
  if (state.started && now - state.started < RESTART_PAUSE) /* one that always dies must not keep us busy */
    return false;
  state.started = now;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return false;
  for (int i = 0; i < 2; i++)
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  char *argv[] = {(char *)"martlet", (char *)VALIDATOR_ARGUMENT, str_dup_c(a, o->trust_anchor),
      str_dup_c(a, str_is_set(o->validator_config) ? o->validator_config : STR_EMPTY), NULL};
  struct child_spec spec = {.path = "/proc/self/exe", .argv = argv, .envp = NULL, .stdin_fd = pair[1], .stdout_fd = -2, .stderr_fd = -2,
      .umask = 077};
  struct child child;
  int e = child_start(&spec, &child);
  close(pair[1]);
  if (e || !use_channel(pair[0])) {
    log_write(LOG_MAIN, NULL, "cannot start the validating resolver: %s", strerror(e ? -e : ENOMEM));
    close(pair[0]);
    return false;
  }
  state.pid = child.pid;
  child_release(&child);
  return true;
}

/* After a fork the parent's resolver is not ours. */
static void check_process(void) {
  if (state.owner == getpid())
    return;
  if (state.fd >= 0)
    close(state.fd);
  memset(&state, 0, sizeof state);
  state.fd = -1;
  state.owner = getpid();
}

/* false: it is not to be had. Without a channel from the master the query waits for one. */
static bool send_request(const struct config *c, struct arena *a, struct pending *p) {
  for (int attempt = 0; attempt < 2; attempt++) {
    if (state.fd < 0 && state.managed)
      return true;
    if (state.fd < 0 && !start(c, a))
      return false;
    if (send(state.fd, p->request, p->request_n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)p->request_n)
      return p->sent = true;
    if (errno == EAGAIN || errno == ENOBUFS)
      return false;
    hang_up(true);
    state.started = 0; /* it may have ended long ago, and nobody looked */
  }
  return false;
}

void validator_managed(void (*hung)(void)) {
  check_process();
  state.managed = true;
  state.hung = hung;
}

void validator_take(int fd) {
  hang_up(false);
  if (!use_channel(fd)) {
    close(fd);
    return;
  }
  state.started = loop_now_fresh();
  for (struct pending *p = state.pending; p; p = p->next)
    if (!p->sent && !p->done && !send_request(NULL, p->arena, p))
      answer(p, NULL, 0);
}

static void forget(struct pending *gone) {
  for (struct pending **p = &state.pending; *p; p = &(*p)->next)
    if (*p == gone) {
      *p = gone->next;
      state.pending_n--;
      return;
    }
}

int validator_ask(const struct config *c, struct arena *a, struct str name, enum dns_type type, int64_t seconds,
    const unsigned char **ret, size_t *ret_n) {
  struct validator_request r = {.type = (uint16_t)type, .name_n = (uint16_t)name.len};
  if (!fiber_self() || name.len >= sizeof r.name)
    return -1;
  check_process();
  if (state.pending_n >= PENDING_MAX)
    return -1;
  memcpy(r.name, name.p, name.len);
  struct pending *p = arena_new_of(a, struct pending);
  *p = (struct pending){.next = state.pending, .fiber = fiber_self(), .arena = a, .id = r.id = ++state.last_id,
      .request = &r, .request_n = offsetof(struct validator_request, name) + name.len};
  state.pending = p;
  state.pending_n++;
  usec_t asked = loop_now_fresh(), deadline = deadline_in(seconds > 0 ? seconds : SECONDS_DEFAULT);
  bool waits = send_request(c, a, p);
  while (waits && !p->done && fiber_park(deadline) == 0)
    ;
  forget(p);
  if (p->sent && !p->done && !fiber_cancelled() && state.last_reply < asked && state.started < asked) {
    /* It has said nothing to anybody all the time: another one is to try. */
    if (state.managed)
      state.hung();
    else
      hang_up(true);
  }
  *ret = p->reply;
  *ret_n = p->reply_n;
  return p->reply_n ? 0 : -1;
}

void validator_done(void) {
  if (state.owner == getpid())
    hang_up(true);
}
