/* The side that asks the keys process. */
#include <errno.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/fiber.h"
#include "tls/keys_internal.h"
#include "tls/keys_store.h"

#define PENDING_MAX 4096
#define SECONDS 20
#define PATIENCE (5 * USEC_PER_SEC) /* without a process */
#define LOOK (USEC_PER_SEC / 20)
#define FULL_PAUSE (USEC_PER_SEC / 500)

struct pending {
  struct pending *next;
  struct fiber *fiber;
  uint32_t number;
  bool done;
  int result;
  unsigned char *to;
  char *error;
};

static struct {
  bool isolated;
  int (*connect)(void *arg);
  void *arg;
  pid_t owner;
  int fd;
  struct event *event;
  struct pending *pending;
  int pending_n;
  uint32_t last_number;
} state = {.fd = -1};

void keys_isolate(int (*connect)(void *arg), void *arg) {
  state.isolated = true;
  state.connect = connect;
  state.arg = arg;
}

bool keys_isolated(void) { return state.isolated; }

static void finish(struct pending *p, int result, const char *error) {
  if (p->done)
    return;
  p->done = true;
  p->result = result;
  if (error)
    snprintf(p->error, KEYS_ERROR_MAX, "%s", error);
  fiber_wake(p->fiber);
}

static void hang_up(void) {
  if (state.event)
    event_free(state.event);
  if (state.fd >= 0)
    close(state.fd);
  state.event = NULL;
  state.fd = -1;
  for (struct pending *p = state.pending; p; p = p->next)
    finish(p, -EPIPE, "the keys process has ended");
}

static void take_answer(const unsigned char *bytes, size_t n) {
  struct keys_answer head;
  memcpy(&head, bytes, sizeof head);
  n -= sizeof head;
  for (struct pending *p = state.pending; p; p = p->next) {
    if (p->number != head.number || p->done)
      continue;
    char text[KEYS_ERROR_MAX] = "the keys process gave no answer";
    if (head.failed)
      snprintf(text, sizeof text, "%.*s", (int)n, (const char *)bytes + sizeof head);
    else
      memcpy(p->to, bytes + sizeof head, n);
    finish(p, head.failed || n == 0 ? -EINVAL : (int)n, head.failed || n == 0 ? text : NULL);
    return;
  }
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
  unsigned char bytes[KEYS_REPLY_MAX];
  for (;;) {
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return;
    if (n < (ssize_t)sizeof(struct keys_answer)) {
      hang_up();
      return;
    }
    take_answer(bytes, (size_t)n);
  }
}

void keys_use_channel(int fd) {
  hang_up();
  state.owner = getpid();
  state.event = event_new(loop_event_base(), fd, EV_READ | EV_PERSIST, on_readable, NULL);
  if (!state.event || event_add(state.event, NULL)) {
    if (state.event)
      event_free(state.event);
    state.event = NULL;
    close(fd);
    return;
  }
  state.fd = fd;
}

/* After a fork the parent's channel is not ours. */
static bool have_channel(void) {
  if (state.fd >= 0 && state.owner != getpid()) {
    close(state.fd);
    state.fd = -1;
    state.event = NULL;
    state.pending = NULL;
    state.pending_n = 0;
  }
  if (state.fd < 0 && state.connect) {
    int fd = state.connect(state.arg);
    if (fd >= 0)
      keys_use_channel(fd);
  }
  return state.fd >= 0;
}

static int send_request(const unsigned char *bytes, size_t n, usec_t deadline) {
  for (int attempt = 0;;) {
    if (!have_channel())
      return -EPIPE;
    if (send(state.fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n)
      return 0;
    if (errno != EAGAIN && errno != ENOBUFS) {
      hang_up();
      if (++attempt > 1)
        return -EPIPE;
    } else if (loop_now_fresh() > deadline || fiber_sleep(FULL_PAUSE) < 0) {
      return -ETIMEDOUT;
    }
  }
}

static void forget(struct pending *gone) {
  for (struct pending **p = &state.pending; *p; p = &(*p)->next)
    if (*p == gone) {
      *p = gone->next;
      state.pending_n--;
      return;
    }
}

static int ask_once(struct keys_request *r, unsigned char to[KEYS_ANSWER_MAX], char error[KEYS_ERROR_MAX]) {
  unsigned char bytes[KEYS_REQUEST_MAX];
  r->number = ++state.last_number;
  size_t n = keys_request_write(r, bytes);
  if (!fiber_self() || n == 0 || state.pending_n >= PENDING_MAX) {
    snprintf(error, KEYS_ERROR_MAX, "%s", n == 0 ? "too long for the keys process" : "the keys process cannot be asked now");
    return -EINVAL;
  }
  usec_t deadline = deadline_in(SECONDS);
  int e = send_request(bytes, n, deadline);
  if (e) {
    snprintf(error, KEYS_ERROR_MAX, "%s", e == -EPIPE ? "the keys process is not running" : "the keys process does not listen");
    return e;
  }
  struct pending p = {.next = state.pending, .fiber = fiber_self(), .number = r->number, .to = to, .error = error};
  state.pending = &p;
  state.pending_n++;
  while (!p.done && (e = fiber_park(deadline)) == 0)
    ;
  forget(&p);
  if (p.done)
    return p.result;
  snprintf(error, KEYS_ERROR_MAX, "%s", e == -ETIMEDOUT ? "the keys process does not answer" : "given up while waiting for the keys process");
  return e;
}

/* The same question may be asked twice, and after its end there is soon another process. */
int keys_ask(struct keys_request *r, unsigned char to[KEYS_ANSWER_MAX], char error[KEYS_ERROR_MAX]) {
  usec_t until = loop_now_fresh() + PATIENCE;
  int got;
  while ((got = ask_once(r, to, error)) == -EPIPE && loop_now_fresh() < until)
    if (fiber_sleep(LOOK) < 0)
      break;
  return got;
}

int keys_load(struct str file, EVP_PKEY **ret, char error[KEYS_ERROR_MAX]) {
  unsigned char der[KEYS_ANSWER_MAX], id[KEYS_ID_SIZE], *again = NULL;
  const unsigned char *p = der;
  struct keys_request r = {.op = KEYS_LOAD, .file = file};
  int n = keys_ask(&r, der, error);
  if (n < 0)
    return n;
  EVP_PKEY *public = d2i_PUBKEY(NULL, &p, n);
  *ret = public && keys_public(public, &again, id) && keys_provider_load() ? keys_provider_key(public, file, id) : NULL;
  OPENSSL_free(again);
  EVP_PKEY_free(public);
  ERR_clear_error();
  if (*ret)
    return 0;
  snprintf(error, KEYS_ERROR_MAX, "a key of a kind that key_isolation cannot be used with");
  return -EINVAL;
}

void keys_done(void) {
  if (state.owner == getpid())
    hang_up();
}
