#include "smtp/client/patience.h"

#include <stdlib.h>

#include "base/test.h"

/* Messages are only told apart, so any addresses do. */
static char messages[64];
#define MESSAGE(n) ((const struct message *)(const void *)(messages + (n)))

static usec_t now = USEC_PER_SEC;

static usec_t test_clock(void) { return now; }

static void nothing_is_limited_without_limits(void **state) {
  struct patience p;
  patience_limit(0, 0);
  patience_begin(&p, MESSAGE(0), STR("192.0.2.1"), 25);
  now += 60 * USEC_PER_SEC;
  assert_false(patience_full(STR("192.0.2.1"), 25));
  patience_end(&p);
}

static void host_that_never_answers_takes_only_so_many(void **state) {
  struct patience p[2];
  patience_limit(2, 5);
  for (int i = 0; i < 2; i++) {
    assert_false(patience_full(STR("192.0.2.1"), 25));
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
  }
  assert_false(patience_full(STR("192.0.2.1"), 25)); /* nobody has waited yet */
  assert_int_equal(patience_waiting(), 0);
  now += PATIENCE_WAIT - 1;
  assert_int_equal(patience_waiting(), 0);
  now++;
  assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_false(patience_full(STR("192.0.2.1"), 26));
  assert_false(patience_full(STR("192.0.2.2"), 25));
  assert_int_equal(patience_waiting(), 2);
  assert_true(patience_again(STR("192.0.2.1"), 25) >= 15);
  patience_end(&p[0]);
  assert_false(patience_full(STR("192.0.2.1"), 25));
  patience_end(&p[1]);
  assert_int_equal(patience_waiting(), 0);
}

/* Before a second has told, it must not have all places. */
static void host_that_has_said_nothing_yet_takes_half(void **state) {
  struct patience p[3];
  patience_limit(2, 6);
  for (int i = 0; i < 3; i++) {
    assert_false(patience_full(STR("192.0.2.1"), 25));
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
  }
  assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_true(patience_again(STR("192.0.2.1"), 25) < 15);
  assert_false(patience_full(STR("192.0.2.2"), 25));
  for (int i = 0; i < 3; i++)
    patience_end(&p[i]);
}

static int answers_somebody(void *arg) {
  struct patience p[5];
  patience_limit(2, 5);
  for (int i = 0; i < 5; i++) {
    assert_false(patience_full(STR("192.0.2.1"), 25));
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
    if (i == 0)
      patience_progress();
  }
  now += PATIENCE_WAIT;
  assert_int_equal(patience_waiting(), 5);
  assert_true(patience_full(STR("192.0.2.1"), 25)); /* by their number */
  assert_true(patience_again(STR("192.0.2.1"), 25) < 15);
  for (int i = 0; i < 5; i++)
    patience_end(&p[i]);
  return 0;
}

static void host_that_answers_somebody_may_be_used_by_all(void **state) {
  loop_init();
  assert_int_equal(loop_run(answers_somebody, NULL), 0);
  loop_done();
}

static void many_sent_away_come_later(void **state) {
  struct patience p[2];
  patience_limit(2, 5);
  for (int i = 0; i < 2; i++)
    patience_begin(&p[i], MESSAGE(i), STR("192.0.2.1"), 25);
  now += PATIENCE_WAIT;
  int first = patience_again(STR("192.0.2.1"), 25);
  for (int i = 0; i < 1000; i++)
    assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_int_equal(patience_again(STR("192.0.2.1"), 25), first + 100);
  for (int i = 0; i < 100000; i++)
    assert_true(patience_full(STR("192.0.2.1"), 25));
  assert_int_equal(patience_again(STR("192.0.2.1"), 25), 300);
  patience_end(&p[1]);
  patience_end(&p[0]);
}

/* A message that goes to several hosts at one time has one place of the worker. */
static void message_counts_once(void **state) {
  struct patience p[3];
  patience_limit(5, 5);
  for (int i = 0; i < 3; i++)
    patience_begin(&p[i], MESSAGE(0), i ? STR("192.0.2.1") : STR("192.0.2.2"), 25);
  now += PATIENCE_WAIT;
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[0]);
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[2]);
  assert_int_equal(patience_waiting(), 1);
  patience_end(&p[1]);
  assert_int_equal(patience_waiting(), 0);
}

static void routing_waits_for_no_host(void **state) {
  struct patience p[3];
  patience_limit(1, 5);
  patience_begin_routing(&p[0], MESSAGE(0), STR("a@b.test"));
  now += PATIENCE_WAIT;
  patience_begin_routing(&p[1], MESSAGE(1), STR("c@b.test"));
  patience_begin(&p[2], MESSAGE(2), STR("192.0.2.1"), 25);
  assert_int_equal(patience_waiting(), 1);
  assert_false(patience_full(STR("192.0.2.1"), 25));
  assert_false(patience_full(STR(""), 0));
  patience_progress();
  for (int i = 0; i < 3; i++)
    patience_end(&p[i]);
  assert_int_equal(patience_waiting(), 0);
}

/* --- against the simplest way to do it: an array that is walked through for each answer --- */

#define FIBERS 60 /* each a delivery at a time */
#define HOSTS 6
#define MESSAGES 40
#define STEPS 20000
#define MOST_WAITING 4
#define MOST_ALL 14

enum step { BEGIN, BEGIN_ROUTING, PROGRESS, END };

struct walked {
  struct fiber *fiber;
  enum step step;
  struct patience p;
  bool used, second;
  int host, message; /* host: -1 while it is routed */
  usec_t since;
  unsigned begun; /* which was first */
};

static struct {
  struct fiber *driver;
  struct walked v[FIBERS];
  usec_t heard[HOSTS];
  int sent_away[HOSTS];
  unsigned begun;
  bool end;
} walk;

static struct str host_name(int i) {
  static const char *const names[] = {"192.0.2.1", "192.0.2.2", "2001:db8::1"};
  return str_c(names[i / 2]);
}

static int host_port(int i) { return 25 + i % 2; }

static int walk_users(int host, usec_t silent_for) {
  int n = 0;
  for (int i = 0; i < FIBERS; i++)
    n += walk.v[i].used && walk.v[i].host == host && now - walk.v[i].since >= silent_for;
  return n;
}

static bool walk_dead(int host) {
  return (!walk.heard[host] || now - walk.heard[host] >= PATIENCE_DEAD) && walk_users(host, PATIENCE_WAIT) >= MOST_WAITING;
}

static int walk_waiting(void) {
  int n = 0;
  for (int i = 0; i < FIBERS; i++)
    n += walk.v[i].used && !walk.v[i].second && now - walk.v[i].since >= PATIENCE_WAIT;
  return n;
}

static void walk_begin(struct walked *x, int host) {
  x->second = false;
  for (int i = 0; i < FIBERS; i++)
    x->second = x->second || (walk.v[i].used && walk.v[i].message == x->message && !walk.v[i].second);
  x->used = true;
  x->host = host;
  x->since = now;
  x->begun = ++walk.begun;
}

static void walk_end(struct walked *x) {
  struct walked *heir = NULL;
  x->used = false;
  if (x->host >= 0 && walk_users(x->host, 0) == 0)
    walk.heard[x->host] = walk.sent_away[x->host] = 0;
  for (int i = 0; i < FIBERS && !x->second; i++)
    if (walk.v[i].used && walk.v[i].message == x->message && (!heir || walk.v[i].begun > heir->begun))
      heir = &walk.v[i];
  if (heir)
    heir->second = false;
}

static void one_delivery(void *arg) {
  struct walked *x = arg;
  for (; !walk.end; fiber_wake(walk.driver), (void)fiber_park(DEADLINE_NEVER))
    switch (x->step) {
    case BEGIN:
      patience_begin(&x->p, MESSAGE(x->message), host_name(x->host), host_port(x->host));
      break;
    case BEGIN_ROUTING:
      patience_begin_routing(&x->p, MESSAGE(x->message), STR("a@b.test"));
      break;
    case PROGRESS:
      patience_progress();
      break;
    case END:
      patience_end(&x->p);
    }
  fiber_wake(walk.driver);
}

static void have_it_done(struct walked *x, enum step step) {
  x->step = step;
  if (!x->fiber)
    x->fiber = fiber_spawn_joinable("delivery", one_delivery, x);
  else
    fiber_wake(x->fiber);
  (void)fiber_park(DEADLINE_NEVER);
}

static int below(int n) { return (int)((unsigned)rand() % (unsigned)n); }

static void random_step(void) {
  struct walked *x = &walk.v[below(FIBERS)];
  if (!x->used) {
    x->message = below(MESSAGES);
    walk_begin(x, below(4) ? below(HOSTS) : -1);
    have_it_done(x, x->host < 0 ? BEGIN_ROUTING : BEGIN);
  } else if (below(3)) {
    have_it_done(x, PROGRESS);
    if (x->host >= 0)
      x->since = walk.heard[x->host] = now;
  } else {
    walk_end(x);
    have_it_done(x, END);
  }
}

static void compare(void) {
  int n = 0, host = below(HOSTS), users = walk_users(host, 0);
  bool dead = walk_dead(host), full = users >= (walk.heard[host] ? MOST_ALL : MOST_ALL / 2) || (users && dead);
  assert_int_equal(patience_waiting(), walk_waiting());
  assert_int_equal(patience_full(host_name(host), host_port(host)), full);
  walk.sent_away[host] += full;
  assert_int_equal(patience_again(host_name(host), host_port(host)), (users && dead ? 15 : 1) + walk.sent_away[host] / 10);
  for (int i = 0; i < FIBERS; i++)
    n += walk.v[i].used;
  for (const struct patience *p = patience_first(); p; p = p->next, n--)
    assert_true(!p->next || p->next->since >= p->since);
  assert_int_equal(n, 0);
}

static int random_steps(void *arg) {
  walk.driver = fiber_self();
  patience_limit(MOST_WAITING, MOST_ALL);
  for (int i = 0; i < STEPS; i++) {
    random_step();
    if (below(2))
      now += below(50) ? below((int)PATIENCE_WAIT / 10) : below((int)PATIENCE_DEAD);
    if (below(3) == 0) /* seldom enough that much has happened between two */
      compare();
  }
  for (int i = 0; i < FIBERS; i++)
    if (walk.v[i].used) {
      walk_end(&walk.v[i]);
      have_it_done(&walk.v[i], END);
    }
  compare();
  assert_null(patience_first());
  walk.end = true;
  for (int i = 0; i < FIBERS; i++)
    if (walk.v[i].fiber) {
      fiber_wake(walk.v[i].fiber);
      fiber_join(walk.v[i].fiber);
    }
  return 0;
}

static void answers_are_those_of_a_simple_walk(void **state) {
  srand(5);
  loop_init();
  assert_int_equal(loop_run(random_steps, NULL), 0);
  loop_done();
}

int main(void) {
  patience_set_clock(test_clock);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_limited_without_limits),
      cmocka_unit_test(host_that_never_answers_takes_only_so_many), cmocka_unit_test(host_that_has_said_nothing_yet_takes_half),
      cmocka_unit_test(host_that_answers_somebody_may_be_used_by_all),
      cmocka_unit_test(many_sent_away_come_later),
      cmocka_unit_test(message_counts_once),
      cmocka_unit_test(routing_waits_for_no_host),
      cmocka_unit_test(answers_are_those_of_a_simple_walk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
