/* The process in which libunbound looks names up and validates what comes. It holds nothing of anybody's mail, may open no
files and start no programs. */
#include "dns/validator.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unbound-event.h>
#include <unbound.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/sandbox.h"

#define MEMORY_MAX (1u << 30)
#define AT_ONCE_MAX 1000
#define CHANNEL_AT_ONCE_MAX 512 /* nobody takes it all */
#define CLASS_IN 1

#if defined(__SANITIZE_ADDRESS__)
#define UNBOUNDED_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNBOUNDED_MEMORY 1
#endif
#endif

/* Somebody who asks. */
struct channel {
  int fd; /* -1: gone, but the answers to what it asked are not all there */
  struct event *event;
  int at_once;
};

struct job {
  struct channel *channel;
  uint32_t id;
};

static struct ub_ctx *ub;
static struct event_base *base;
static int at_once, channels;
static bool controlled; /* there may be more channels */

bool validator_available(void) { return true; }

static void end_if_alone(void) {
  if (channels == 0 && !controlled)
    _exit(0);
}

static void channel_release(struct channel *ch) {
  if (ch->fd >= 0 || ch->at_once)
    return;
  free(ch);
}

static void channel_close(struct channel *ch) {
  event_free(ch->event);
  close(ch->fd);
  ch->fd = -1;
  channels--;
  end_if_alone();
  channel_release(ch);
}

/* Nobody waits for an answer that does not fit into the socket. */
static void reply(const struct channel *ch, uint32_t id, const unsigned char *packet, size_t n, bool secure) {
  static unsigned char buffer[VALIDATOR_REPLY_MAX];
  struct validator_reply head = {.id = id, .answered = packet != NULL};
  if (ch->fd < 0)
    return;
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
  (void)!send(ch->fd, buffer, sizeof head + n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void job_done(struct job *job) {
  struct channel *ch = job->channel;
  free(job);
  at_once--;
  ch->at_once--;
  channel_release(ch);
}

static void on_result(void *arg, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited) {
  struct job *job = arg;
  bool good = rcode == 0 && n > 0 && sec != 1;
  reply(job->channel, job->id, good ? packet : NULL, good ? (size_t)n : 0, sec == 2);
  job_done(job);
}

static void on_request(evutil_socket_t fd, short what, void *arg) {
  struct channel *ch = arg;
  struct validator_request r;
  ssize_t n = recv(fd, &r, sizeof r, MSG_DONTWAIT);
  const ssize_t head = offsetof(struct validator_request, name);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n < head || n != head + r.name_n || r.name_n >= sizeof r.name) {
    channel_close(ch); /* who has asked is gone, or not in his right mind */
    return;
  }
  r.name[r.name_n] = '\0';
  if (at_once >= AT_ONCE_MAX || ch->at_once >= CHANNEL_AT_ONCE_MAX || memchr(r.name, '\0', r.name_n)) {
    reply(ch, r.id, NULL, 0, false);
    return;
  }
  struct job *job = xmalloc(sizeof *job);
  *job = (struct job){ch, r.id};
  at_once++;
  ch->at_once++;
  if (ub_resolve_event(ub, r.name, r.type, CLASS_IN, job, on_result, NULL)) {
    reply(ch, r.id, NULL, 0, false);
    job_done(job);
  }
}

static bool channel_open(int fd) {
  struct channel *ch = xcalloc(1, sizeof *ch);
  *ch = (struct channel){.fd = fd, .event = event_new(base, fd, EV_READ | EV_PERSIST, on_request, ch)};
  if (!ch->event || event_add(ch->event, NULL)) {
    free(ch);
    return false;
  }
  channels++;
  return true;
}

/* From the master: a worker's channel. When the master hangs up, the workers of before a reload may still ask. */
static void on_control(evutil_socket_t fd, short what, void *arg) {
  struct daemon_message msg;
  struct event **event = arg;
  int channel = -1, r = daemon_message_receive(fd, &msg, &channel);
  if (r == -EAGAIN || r == -EINTR)
    return;
  if (r != 1) {
    event_free(*event);
    close(fd);
    controlled = false;
    end_if_alone();
  } else if (channel >= 0 && !channel_open(channel)) {
    close(channel);
  }
}

static void no_result(void *arg, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited) {}

int validator_run(const char *anchor, const char *config, bool of_daemon) {
  static struct event *control;
  base = event_base_new();
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
  controlled = of_daemon;
  if (of_daemon) {
    (void)!fcntl(0, F_SETFL, O_NONBLOCK);
    control = event_new(base, 0, EV_READ | EV_PERSIST, on_control, &control);
    if (!control || event_add(control, NULL))
      return 1;
  } else if (!channel_open(0)) {
    return 1;
  }
  event_base_dispatch(base);
  return 1;
}
