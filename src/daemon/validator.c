/* The process in which libunbound looks names up and validates what comes. It holds nothing of anybody's mail, may open no
files and start no programs. */
#include "dns/validator.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unbound-event.h>
#include <unbound.h>
#include <unistd.h>

#include "daemon/sandbox.h"

#define MEMORY_MAX (1u << 30)
#define AT_ONCE_MAX 1000
#define CLASS_IN 1

#if defined(__SANITIZE_ADDRESS__)
#define UNBOUNDED_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNBOUNDED_MEMORY 1
#endif
#endif

struct job {
  uint32_t id;
};

static struct ub_ctx *ub;
static int at_once;

bool validator_available(void) { return true; }

/* Nobody waits for an answer that does not fit into the socket. */
static void reply(uint32_t id, const unsigned char *packet, size_t n, bool secure) {
  static unsigned char buffer[VALIDATOR_REPLY_MAX];
  struct validator_reply head = {.id = id, .answered = packet != NULL};
  if (n < 12 || n > sizeof buffer - sizeof head) {
    head.answered = 0;
    n = 0;
  }
  memcpy(buffer, &head, sizeof head);
  if (n) {
    memcpy(buffer + sizeof head, packet, n);
    unsigned char *flags = buffer + sizeof head + 3;
    *flags = (unsigned char)((*flags & ~0x20u) | (secure ? 0x20u : 0u));
  }
  (void)!send(0, buffer, sizeof head + n, MSG_NOSIGNAL);
}

static void on_result(void *arg, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited) {
  struct job *job = arg;
  bool good = rcode == 0 && n > 0 && sec != 1;
  reply(job->id, good ? packet : NULL, good ? (size_t)n : 0, sec == 2);
  free(job);
  at_once--;
}

static void on_request(evutil_socket_t fd, short what, void *arg) {
  struct validator_request r;
  ssize_t n = recv(fd, &r, sizeof r, MSG_DONTWAIT);
  const ssize_t head = offsetof(struct validator_request, name);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n < head || n != head + r.name_n || r.name_n >= sizeof r.name)
    _exit(0); /* who has started us is gone */
  r.name[r.name_n] = '\0';
  struct job *job = xmalloc(sizeof *job);
  job->id = r.id;
  at_once++;
  if (at_once > AT_ONCE_MAX || memchr(r.name, '\0', r.name_n) || ub_resolve_event(ub, r.name, r.type, CLASS_IN, job, on_result, NULL)) {
    reply(r.id, NULL, 0, false);
    free(job);
    at_once--;
  }
}

static void no_result(void *arg, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited) {}

int validator_run(const char *anchor, const char *config) {
  struct event_base *base = event_base_new();
  ub = base ? ub_ctx_create_event(base) : NULL;
  if (!ub)
    return 1;
  /* Files are read now; the first question makes it read those that the configuration names. */
  if ((config[0] && ub_ctx_config(ub, config)) || ub_ctx_add_ta_file(ub, anchor) ||
      ub_resolve_event(ub, "localhost", DNS_A, CLASS_IN, NULL, no_result, NULL))
    return 1;
  sandbox_drop_root();
#ifndef UNBOUNDED_MEMORY /* the sanitizer's own is much */
  const struct rlimit memory = {MEMORY_MAX, MEMORY_MAX};
  setrlimit(RLIMIT_AS, &memory);
#endif
  const struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_FSIZE, &none);
  (void)sandbox_enter_alone();
  struct event *e = event_new(base, 0, EV_READ | EV_PERSIST, on_request, NULL);
  if (!e || event_add(e, NULL))
    return 1;
  event_base_dispatch(base);
  return 1;
}
