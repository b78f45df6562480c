#include "deliver/as_user.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/outcome.h"
#include "loop/fiber.h"
#include "transport/identity.h"
#include "transport/plan.h"

void user_file_read(struct arena *a, int64_t uid, int64_t gid, struct str path, size_t max, struct user_file *ret) {
  struct plan p = {.kind = PLAN_READ, .path = path, .max_read = (int64_t)max, .uid = uid, .gid = gid,
      .initgroups_user = STR_UNSET, .cwd = STR_UNSET, .home = STR_UNSET};
  struct plan_result r = {0};
  memset(ret, 0, sizeof *ret);
  if (uid < 0 || !identity_can_switch())
    p.uid = p.gid = -1;
  plan_run(a, &p, -1, &r);
  ret->uid = (uid_t)r.uid;
  ret->gid = (gid_t)r.gid;
  ret->mode = (mode_t)r.mode;
  ret->text = str_is_set(r.output) ? r.output : STR_EMPTY;
  if (r.outcome == OUTCOME_OK)
    return;
  ret->too_big = r.basic_errno == EFBIG;
  ret->not_regular = !r.basic_errno;
  ret->error = r.basic_errno > 0 ? (int)r.basic_errno : EIO;
}

/* --- filters --- */

#define ANSWER_MAX (64u << 20)
#define EVALUATE_SECONDS 60

static struct config *serve_config;
static void (*serve_request)(struct arena *a, struct config *c, struct str router, struct str request, int body_fd, struct buf *answer);
static pid_t loop_of; /* the process that the loop was made for */

struct evaluation {
  struct arena *arena;
  const struct plan *plan;
  int body_fd;
  struct plan_result *result;
};

static int evaluate_in_fiber(void *arg) {
  struct evaluation *e = arg;
  struct buf answer;
  buf_init(&answer, e->arena, ANSWER_MAX);
  serve_request(e->arena, serve_config, e->plan->transport, e->plan->head, e->body_fd, &answer);
  if (answer.overflow)
    plan_fail(e->arena, e->result, OUTCOME_DEFER, EMSGSIZE, "the filter's result is too big");
  else
    e->result->output = buf_str(&answer);
  return 0;
}

/* In the user's process: with a loop of its own, for programs and servers that the filter's strings ask. */
static void evaluate(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) {
  struct evaluation e = {.arena = a, .plan = p, .body_fd = body_fd, .result = ret};
  if (loop_of != getpid()) {
    if (loop_event_base())
      loop_reinit();
    else
      loop_init();
    loop_of = getpid();
  }
  alarm(EVALUATE_SECONDS); /* the process ends: who waits hears that */
  loop_run(evaluate_in_fiber, &e);
  alarm(0);
}

void user_filter_serve_with(struct config *c,
    void (*serve)(struct arena *a, struct config *c, struct str router, struct str request, int body_fd, struct buf *answer)) {
  serve_config = c;
  serve_request = serve;
  plan_evaluate = evaluate;
}

bool user_filter_other_user(int64_t uid) { return uid >= 0 && identity_can_switch(); }

int user_filter_evaluate(struct arena *a, int64_t uid, int64_t gid, struct str router, struct str request, int body_fd,
    struct str *ret_answer, struct str *ret_error) {
  struct plan p = {.kind = PLAN_EVALUATE, .uid = uid, .gid = gid, .initgroups_user = STR_UNSET, .cwd = STR_UNSET, .home = STR_UNSET,
      .transport = router, .head = request, .timeout = EVALUATE_SECONDS};
  struct plan_result r = {0};
  plan_run(a, &p, body_fd, &r);
  if (r.outcome == OUTCOME_OK && str_is_set(r.output)) {
    *ret_answer = r.output;
    return 0;
  }
  *ret_error = str_is_set(r.message) ? r.message : STR("the filter process failed to return a result");
  return -1;
}
