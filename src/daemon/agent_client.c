/* The worker's side of the agent: requests are numbered, fibers wait for the
answer with their number. */

#include <errno.h>
#include <unistd.h>

#include "base/arena.h"
#include "daemon/agent.h"
#include "loop/fiber.h"

#define ANSWER_SECONDS (2 * 3600) /* longer than a pipe's time limit is by default */

struct pending {
  uint32_t number;
  struct fiber *fiber;
  struct arena *arena;
  struct plan_result *result;
  bool done;
  struct pending *next;
};

static int channel = -1;
static uint32_t last_number;
static struct pending *pending;
static struct fiber *reading;

static struct pending *find(uint32_t number) {
  for (struct pending *p = pending; p; p = p->next)
    if (p->number == number)
      return p;
  return NULL;
}

static void remove_pending(struct pending *gone) {
  for (struct pending **p = &pending; *p; p = &(*p)->next)
    if (*p == gone) {
      *p = gone->next;
      return;
    }
}

static void fail_all(const char *text) {
  for (struct pending *p = pending; p; p = p->next) {
    plan_fail(p->arena, p->result, OUTCOME_DEFER, EPIPE, "%s", text);
    p->done = true;
    fiber_wake(p->fiber);
  }
}

static void read_answers(const struct fiber *self) {
  for (;;) {
    if (fiber_wait_fd(channel, FIBER_READ, DEADLINE_NEVER) < 0 || reading != self)
      return;
    struct arena *a = arena_new("agent answer");
    uint32_t number;
    struct str text;
    int body;
    int n = agent_receive(channel, a, &number, &text, &body);
    if (n > 0) {
      struct pending *p = find(number);
      if (body >= 0)
        close(body);
      if (p && !plan_result_decode(p->arena, text, p->result))
        plan_fail(p->arena, p->result, OUTCOME_DEFER, EBADMSG, "malformed answer of the agent");
      if (p) {
        p->done = true;
        fiber_wake(p->fiber);
      }
    }
    arena_free(a);
    if (n == 0) {
      fail_all("the agent for local deliveries is gone");
      close(channel);
      channel = -1;
      return;
    }
  }
}

static void reader(void *arg) {
  const struct fiber *self = fiber_self();
  read_answers(self);
  if (reading == self)
    reading = NULL;
}

bool agent_client_listens(void) { return reading != NULL; }

void agent_client_stop(void) {
  if (reading)
    fiber_cancel(reading);
}

void agent_client_start(int fd) {
  if (channel >= 0) {
    fail_all("the agent for local deliveries was replaced");
    agent_client_stop();
    loop_forget_fd(channel);
    close(channel);
  }
  channel = fd;
  reading = fiber_spawn("agent answers", reader, NULL);
}

static void run_agent(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) {
  /* A router without a user reads its file as we may ourselves; the agent would have to do it as root. */
  if (p->kind == PLAN_READ && p->uid < 0) {
    plan_runner_offload.run(a, p, body_fd, ret);
    return;
  }
  *ret = (struct plan_result){.outcome = OUTCOME_DEFER};
  if (channel < 0) {
    plan_fail(a, ret, OUTCOME_DEFER, EPIPE, "the agent for local deliveries is not running");
    return;
  }
  struct buf text;
  buf_init(&text, a, AGENT_TEXT_MAX);
  plan_encode(p, &text);
  struct pending wait = {.number = ++last_number, .fiber = fiber_self(), .arena = a, .result = ret, .next = pending};
  int e;
  while ((e = text.overflow ? -EMSGSIZE : agent_send(channel, wait.number, buf_str(&text), body_fd)) == -EAGAIN)
    if (fiber_wait_fd(channel, FIBER_WRITE, deadline_in(60)) < 0)
      break;
  if (e) {
    plan_fail(a, ret, OUTCOME_DEFER, -e, "cannot reach the agent for local deliveries: %s", strerror(-e));
    return;
  }
  pending = &wait;
  usec_t deadline = deadline_in(ANSWER_SECONDS + p->timeout);
  while (!wait.done) {
    int w = fiber_park(deadline);
    if (w < 0 && !wait.done) {
      plan_fail(a, ret, OUTCOME_DEFER, -w, "no answer of the agent for local deliveries");
      break;
    }
  }
  remove_pending(&wait);
}

const struct plan_runner plan_runner_agent = {run_agent};
