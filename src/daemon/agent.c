/* The agent's process: policy, and a pool of processes, one user each. */

#include "daemon/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "log/log.h"
#include "route/redirect.h"
#include "transport/identity.h"
#include "transport/options.h"
#include "transport/transport.h"

#define CHANNELS_MAX 256
#define USERS_MAX 64        /* processes at one time */
#define USERS_PER_UID 8
#define IDLE_SECONDS 10
#define WAITING_MAX 4096

/* A process that has become one user. */
struct user_process {
  int pid, channel;
  int64_t uid, gid;
  struct str groups_user;   /* in `arena` */
  struct arena *arena;
  bool busy;
  int reply_to;             /* worker's channel of the request it works on */
  uint32_t number;
  time_t idle_since;
};

/* A request that waits for a process. */
struct waiting {
  struct arena *arena;
  struct plan plan;
  struct str text;
  int body, reply_to;
  uint32_t number;
  struct waiting *next;
};

struct agent {
  struct config *config;
  int control;
  int channels[CHANNELS_MAX];
  int channels_n;
  struct user_process users[USERS_MAX];
  int users_n;
  struct waiting *first, **last;
  int waiting_n;
};

static void reply_failure(int channel, uint32_t number, const char *text) {
  struct arena *a = arena_new("agent");
  struct plan_result r = {0};
  struct buf b;
  plan_fail(a, &r, OUTCOME_DEFER, EPERM, "%s", text);
  buf_init(&b, a, AGENT_INLINE_MAX);
  plan_result_encode(&r, &b);
  (void)agent_send(channel, number, buf_str(&b), -1);
  arena_free(a);
}

/* What a taken-over worker may not ask for. NULL: allowed. */
static const char *refuse(struct agent *g, const struct plan *p) {
  if (p->uid < 0 || p->gid < 0 || p->uid > UINT32_MAX || p->gid > UINT32_MAX)
    return "the agent needs a user and a group for a local delivery";
  if (p->uid == 0)
    return "the agent delivers nothing as root";
  if (identity_is_never(g->config, p->uid))
    return "the user is on never_users";
  if (p->kind == PLAN_READ)
    return NULL;
  const struct instance *t = config_driver(g->config, DRIVER_TRANSPORT, p->transport), *r = config_driver(g->config, DRIVER_ROUTER, p->transport);
  if (p->kind == PLAN_PIPE && r && !strcmp(r->driver->name, "queryprogram"))
    return NULL;
  if (p->kind == PLAN_EVALUATE)
    return redirect_filters_allowed(g->config, p->transport) ? NULL : "the agent knows no router of that name that may run filters";
  if (!t || !((const struct transport_def *)t->driver)->local)
    return "the agent knows no local transport of that name";
  bool pipe = !strcmp(t->driver->name, "pipe"), reply = !strcmp(t->driver->name, "autoreply");
  bool filters = reply && str_is_set(transport_options(t)->transport_filter.text); /* what it returns */
  if ((p->kind == PLAN_PIPE ? !pipe && !filters : pipe) || (p->kind == PLAN_LMTP) != !strcmp(t->driver->name, "lmtp"))
    return "the delivery does not fit its transport";
  return NULL;
}

/* The user process's life: one plan at a time, until the agent hangs up. */
static _Noreturn void serve_as_user(const struct plan *first, int channel) {
  const char *what = "";
  int become = plan_become_user(first, &what);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    struct arena *a = arena_new("local delivery");
    uint32_t number;
    struct str text;
    int body;
    int n = agent_receive(channel, a, &number, &text, &body);
    if (n <= 0)
      _exit(0);
    struct plan p;
    struct plan_result r = {.outcome = OUTCOME_OK};
    char *cwd;
    if (become)
      plan_fail(a, &r, OUTCOME_DEFER, -become, "unable to %s for local delivery: %s", what, strerror(-become));
    else if (!plan_decode(a, text, &p))
      plan_fail(a, &r, OUTCOME_DEFER, EBADMSG, "malformed delivery plan");
    else if (cwd = str_is_set(p.cwd) && p.cwd.len ? str_dup_c(a, p.cwd) : NULL, chdir(cwd ? cwd : "/") < 0)
      plan_fail(a, &r, OUTCOME_DEFER, errno, "failed to chdir to %s", cwd ? cwd : "/");
    else
      plan_execute(a, &p, body, &r);
    if (body >= 0)
      close(body);
    struct buf b;
    buf_init(&b, a, AGENT_TEXT_MAX);
    plan_result_encode(&r, &b);
    while (agent_send(channel, number, buf_str(&b), -1) == -EAGAIN) {
      struct pollfd w = {.fd = channel, .events = POLLOUT};
      poll(&w, 1, 1000);
    }
    arena_free(a);
  }
}

static bool same_user(const struct user_process *u, const struct plan *p) {
  bool groups = str_is_set(p->initgroups_user) ? str_is_set(u->groups_user) && str_eq(u->groups_user, p->initgroups_user)
                                               : !str_is_set(u->groups_user);
  return u->uid == p->uid && u->gid == p->gid && groups;
}

static void end_user(struct agent *g, int i) {
  close(g->users[i].channel);
  arena_free(g->users[i].arena);
  g->users[i] = g->users[--g->users_n];
}

static struct user_process *start_user(struct agent *g, const struct plan *p) {
  int pair[2];
  if (g->users_n == USERS_MAX) {
    for (int i = 0; i < g->users_n; i++)
      if (!g->users[i].busy) {
        end_user(g, i);
        break;
      }
    if (g->users_n == USERS_MAX)
      return NULL;
  }
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return NULL;
  int size = 256 << 10;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  pid_t pid = fork();
  if (pid == 0) {
    close(pair[0]);
    close(g->control);
    for (int i = 0; i < g->channels_n; i++)
      close(g->channels[i]);
    for (int i = 0; i < g->users_n; i++)
      close(g->users[i].channel);
    serve_as_user(p, pair[1]);
  }
  close(pair[1]);
  if (pid < 0) {
    close(pair[0]);
    return NULL;
  }
  struct user_process *u = &g->users[g->users_n++];
  *u = (struct user_process){.pid = pid, .channel = pair[0], .uid = p->uid, .gid = p->gid, .arena = arena_new("agent user")};
  u->groups_user = str_is_set(p->initgroups_user) ? str_dup(u->arena, p->initgroups_user) : STR_UNSET;
  return u;
}

static struct user_process *idle_user(struct agent *g, const struct plan *p) {
  int of_uid = 0;
  for (int i = 0; i < g->users_n; i++) {
    struct user_process *u = &g->users[i];
    if (!same_user(u, p))
      continue;
    if (!u->busy)
      return u;
    of_uid++;
  }
  return of_uid < USERS_PER_UID ? start_user(g, p) : NULL;
}

/* Hands a request to a process of its user. False: none is free. */
static bool hand_over(struct agent *g, struct waiting *w) {
  struct user_process *u = idle_user(g, &w->plan);
  if (!u)
    return false;
  u->busy = true;
  u->reply_to = w->reply_to;
  u->number = w->number;
  if (agent_send(u->channel, w->number, w->text, w->body)) {
    reply_failure(w->reply_to, w->number, "the local delivery process is gone");
    u->busy = false;
  }
  return true;
}

static void drop_waiting(struct waiting *w) {
  if (w->body >= 0)
    close(w->body);
  arena_free(w->arena);
}

static void run_waiting(struct agent *g) {
  struct waiting **at = &g->first;
  while (*at) {
    struct waiting *w = *at;
    if (!hand_over(g, w)) {
      at = &w->next;
      continue;
    }
    *at = w->next;
    g->waiting_n--;
    drop_waiting(w);
  }
  g->last = at;
}

static void take_request(struct agent *g, int i) {
  struct arena *a = arena_new("agent request");
  struct waiting *w = arena_new_of(a, struct waiting);
  *w = (struct waiting){.arena = a, .body = -1, .reply_to = g->channels[i]};
  int n = agent_receive(g->channels[i], a, &w->number, &w->text, &w->body);
  if (n <= 0) {
    if (n != -EAGAIN && n != -EBADMSG) { /* the worker is gone; what it asked for is still done */
      close(g->channels[i]);
      for (int k = 0; k < g->users_n; k++)
        if (g->users[k].reply_to == g->channels[i])
          g->users[k].reply_to = -1;
      for (struct waiting *o = g->first; o; o = o->next)
        if (o->reply_to == g->channels[i])
          o->reply_to = -1;
      g->channels[i] = g->channels[--g->channels_n];
    }
    arena_free(a);
    return;
  }
  const char *no = !plan_decode(a, w->text, &w->plan) ? "malformed delivery plan" : refuse(g, &w->plan);
  if (!no && g->waiting_n >= WAITING_MAX)
    no = "too many local deliveries are waiting";
  if (no) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "agent refused a local delivery (transport %.*s): %s", STRF(w->plan.transport), no);
    reply_failure(w->reply_to, w->number, no);
    drop_waiting(w);
    return;
  }
  if (hand_over(g, w)) {
    drop_waiting(w);
    return;
  }
  w->next = NULL;
  *g->last = w;
  g->last = &w->next;
  g->waiting_n++;
}

static void take_result(struct agent *g, int i) {
  struct user_process *u = &g->users[i];
  struct arena *a = arena_new("agent result");
  uint32_t number;
  struct str text;
  int body;
  int n = agent_receive(u->channel, a, &number, &text, &body);
  if (n > 0) {
    if (body >= 0)
      close(body);
    if (u->reply_to >= 0)
      (void)agent_send(u->reply_to, number, text, -1);
    u->busy = false;
    u->idle_since = time(NULL);
  } else if (n != -EAGAIN) {
    if (u->busy && u->reply_to >= 0)
      reply_failure(u->reply_to, u->number, "the local delivery process ended without a result");
    end_user(g, i);
  }
  arena_free(a);
}

static void take_channel(struct agent *g) {
  struct arena *a = arena_new("agent control");
  uint32_t number;
  struct str text;
  int fd;
  int n = agent_receive(g->control, a, &number, &text, &fd);
  arena_free(a);
  if (n == 0) {
    close(g->control);
    g->control = -1;
  }
  if (n <= 0 || fd < 0)
    return;
  if (g->channels_n == CHANNELS_MAX) {
    close(fd);
    return;
  }
  g->channels[g->channels_n++] = fd;
}

/* The master has hung up (it ends, or another agent serves its new workers), and so have the workers. What was begun is
done first: a delivery that is cut off might come twice, or leave half a message in a mailbox. */
static bool finished(const struct agent *g) {
  if (g->control >= 0 || g->channels_n || g->first)
    return false;
  for (int i = 0; i < g->users_n; i++)
    if (g->users[i].busy)
      return false;
  return true;
}

_Noreturn void agent_run(struct config *c, int control) {
  /* One delivery's memory serves the next one: else it goes back to the system, and comes again, with each of them. */
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
  static struct agent g;
  g = (struct agent){.config = c, .control = control};
  g.last = &g.first;
  umask(0);
  signal(SIGPIPE, SIG_IGN);
  redirect_serve_filters(c);
  for (;;) {
    struct pollfd w[1 + CHANNELS_MAX + USERS_MAX];
    int n = 0, channels = g.channels_n, users = g.users_n;
    w[n++] = (struct pollfd){.fd = g.control, .events = POLLIN};
    for (int i = 0; i < channels; i++)
      w[n++] = (struct pollfd){.fd = g.channels[i], .events = POLLIN};
    for (int i = 0; i < users; i++)
      w[n++] = (struct pollfd){.fd = g.users[i].channel, .events = POLLIN};
    int k = poll(w, (nfds_t)n, users ? 1000 : -1);
    while (waitpid(-1, NULL, WNOHANG) > 0)
      ;
    if (k > 0) {
      /* From the back, so that a removed entry moves one that was looked at already. */
      for (int i = users - 1; i >= 0; i--)
        if (w[1 + channels + i].revents)
          take_result(&g, i);
      for (int i = channels - 1; i >= 0; i--)
        if (w[1 + i].revents)
          take_request(&g, i);
      if (w[0].revents)
        take_channel(&g);
    }
    run_waiting(&g);
    time_t now = time(NULL);
    for (int i = g.users_n - 1; i >= 0; i--)
      if (!g.users[i].busy && now - g.users[i].idle_since > IDLE_SECONDS)
        end_user(&g, i);
    if (finished(&g))
      _exit(0);
  }
}
