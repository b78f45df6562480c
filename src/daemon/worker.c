/* A worker: accepts, receives, owns and delivers its messages, all in fibers
of one thread (DESIGN §4). */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/load.h"
#include "core/main_options.h"
#include "daemon/agent.h"
#include "daemon/admission.h"
#include "daemon/daemon.h"
#include "daemon/local.h"
#include "daemon/options.h"
#include "daemon/sandbox.h"
#include "daemon/what.h"
#include "daemon/worker.h"
#include "deliver/follow.h"
#include "deliver/msglog.h"
#include "smtp/client/client.h"
#include "dns/options.h"
#include "dns/validator.h"
#include "expand/perl.h"
#include "hints/hints.h"
#include "log/log.h"
#include "loop/stream.h"
#include "message/message.h"
#include "queue/queue.h"
#include "queue/retry.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "smtp/client/patience.h"
#include "smtp/server/server.h"
#include "tls/keys.h"
#include "tls/tls.h"
#include "transport/identity.h"

static struct worker w;

/* --- deliveries --- */

/* Who waits for the end of a delivery (-odi). */
struct delivery_wait {
  struct fiber *fiber;
  bool over;
};

struct delivery_job {
  struct message *message;     /* fresh from reception, or NULL: read from disk */
  struct queue_entry *entry;
  struct daemon_delivery how;
  struct delivery_wait *wait;  /* or NULL */
};

static void wake_scheduler(void) {
  if (w.scheduler)
    fiber_wake(w.scheduler);
}

#define LOAD_SECONDS 10 /* until the load is looked at again (deliver_queue_load_max) */
#define ROOM_SECONDS 1 /* until deliveries that wait may have left their places */
#define WAITING_MOST 10 /* times worker_deliveries: deliveries, waiting ones included */
#define DRAIN_GRACE 5 /* seconds that sessions go on after the worker was told to make room */
#define DRAIN_LOOK (USEC_PER_SEC / 20)
#define LOCKED_SECONDS 60 /* another process works on the message: look again then */

/* Another worker is to look after this message from now on: the master tells its owner. [suspends] */
static void tell_master(enum daemon_message_type type, const char *id, struct str queue_name) {
  struct daemon_message msg = {.type = type};
  if (queue_name.len >= sizeof msg.queue_name)
    return;
  memcpy(msg.id, id, strnlen(id, sizeof msg.id - 1));
  if (queue_name.len)
    memcpy(msg.queue_name, queue_name.p, queue_name.len);
  /* The channel is narrow while all workers start. Without a master nobody needs to know: the next one reads the spool. */
  while (daemon_message_send(w.p.control, &msg, -1) == -EAGAIN)
    (void)fiber_sleep(USEC_PER_SEC / 100);
}

static void hand_over(const char *id, struct str queue_name) { tell_master(DAEMON_NEW_MESSAGE, id, queue_name); }

static void validator_hung(void) {
  struct daemon_message msg = {.type = DAEMON_VALIDATOR};
  (void)daemon_message_send(w.p.control, &msg, -1); /* if there is no room, the next query that fails says it again */
}

/* By a command that this worker serves. [suspends] */
static void changed(const struct message *m) { tell_master(DAEMON_CHANGED_MESSAGE, m->id, m->queue_name); }

static void tell_queued(void) { atomic_store(&w.slot->queued, (int)queue_count_default()); }

/* When the message is to be looked at again without being asked. */
static void wait_again(struct queue_entry *e, const struct message *m) {
  int64_t retry = m->next_attempt, event = deliver_next_event(w.config, m);
  int64_t due = m->frozen ? 0 : retry < 0 ? -retry : retry;
  if (event > 0 && (due == 0 || event < due))
    due = event;
  queue_put_back(e, w.p.daemon->runs_n && due > 0 ? due : QUEUE_NEVER, m->frozen);
  e->timed = !m->frozen && retry > 0 && w.p.daemon->runs_n && e->due > 0;
}

/* Those that wait for a host that does not answer leave their places to others, up to a bound. */
static bool has_room(void) {
  int64_t most = daemon_options(w.config)->worker_deliveries;
  return w.deliveries < most || (w.deliveries < most * WAITING_MOST && w.deliveries - patience_waiting() < most);
}

static void attempt_ended(struct queue_entry *e, struct message *m, enum deliver_result end) {
  if (end == DELIVER_COMPLETE) {
    queue_remove(e);
    atomic_fetch_add(&w.slot->delivered, 1);
  } else if (!m) {
    queue_put_back(e, time(NULL) + LOCKED_SECONDS, e->frozen);
  } else if (end == DELIVER_BUSY) {
    queue_put_back(e, m->next_attempt, false); /* it has not been tried: no need for a queue runner */
  } else {
    wait_again(e, m);
  }
  tell_queued();
}

/* Messages that are delivered before their time because a connection to their host is open. */
static void *claim(struct str queue_name, const char *id) { return w.draining ? NULL : queue_take_now(id, queue_name); }

static void release(void *claimed, const struct message *m, enum deliver_result end) {
  struct queue_entry *e = claimed, before = *e;
  if (end == DELIVER_COMPLETE) {
    attempt_ended(e, NULL, end);
    return;
  }
  /* What is left of it has its turn as if nothing had been. */
  queue_put_back(e, before.due, m ? m->frozen : before.frozen);
  e->first = before.first;
  e->forced = before.forced;
  e->forced_frozen = before.forced_frozen;
  e->timed = before.timed;
  wake_scheduler();
}

static const struct deliver_claims claims = {claim, release};

static void run_ends(int64_t now);

static void deliver_fiber(void *arg) {
  struct delivery_job *job = arg;
  struct message *m = job->message;
  struct arena *a = arena_new("delivery");
  struct ctx *c = ctx_new(a, w.config);
  enum deliver_result end = DELIVER_TROUBLE;
  struct deliver_how how = {.first = m != NULL, .queue_run = m == NULL, .force = job->entry->forced, .force_frozen = job->entry->forced_frozen,
      .follows = true, .dont_deliver = w.p.daemon->no_delivery || job->how.no_delivery, .queue_smtp = job->how.queue_smtp, .give_up_by = STR_UNSET, .select_recipient = STR_UNSET};
  if (!m) {
    enum spool_read r = spool_read_message(c, job->entry->queue_name, str_c(job->entry->id), true, &m);
    if (r != SPOOL_OK) {
      if (r == SPOOL_BAD)
        log_write(LOG_MAIN, NULL, "%s %.*s", job->entry->id, STRF(c->error));
      m = NULL;
      end = r == SPOOL_NOT_FOUND ? DELIVER_COMPLETE : DELIVER_TROUBLE;
    }
  }
  struct what_item item;
  what_begin(&item, "delivering");
  memcpy(item.id, job->entry->id, sizeof item.id);
  if (m)
    end = deliver_message(c, m, &how);
  what_end(&item);
  char id[sizeof job->entry->id];
  struct str queue_name = job->entry->queue_name;
  memcpy(id, job->entry->id, sizeof id);
  struct smtp_connection *held = m ? deliver_held(m) : NULL;
  attempt_ended(job->entry, m, end);
  if (m)
    message_free(m);
  deliver_follow(w.config, held, &how);
  if (w.draining && end != DELIVER_COMPLETE)
    hand_over(id, queue_name);
  arena_free(a);
  if (job->wait) {
    job->wait->over = true;
    fiber_wake(job->wait->fiber);
  }
  free(job);
  atomic_store(&w.slot->deliveries, --w.deliveries);
  if (w.draining)
    run_ends(0);
  wake_scheduler();
}

static struct delivery_job *start_delivery(struct message *m, struct queue_entry *e, const struct daemon_delivery *how) {
  struct delivery_job *job = xcalloc(1, sizeof *job);
  *job = (struct delivery_job){.message = m, .entry = e, .how = *how};
  atomic_store(&w.slot->deliveries, ++w.deliveries);
  (void)fiber_spawn("delivery", deliver_fiber, job);
  return job;
}

static void deliver_and_wait(struct message *m, struct queue_entry *e, const struct daemon_delivery *how) {
  struct delivery_wait wait = {.fiber = fiber_self()};
  struct delivery_job *job = start_delivery(m, e, how);
  job->wait = &wait;
  while (!wait.over)
    if (fiber_park(DEADLINE_NEVER) < 0 && !wait.over) {
      job->wait = NULL; /* the worker ends */
      return;
    }
}

static const struct daemon_delivery ordinary;

/* The lines about queue runs. Each worker runs its part of the queue; the first one tells of its own. */
static struct str run_name; /* what stands behind the pid: the named queue and options; unset: no run is under way */

static void log_run(const char *what) {
  if (log_selected(LOGSEL_queue_run))
    log_write(LOG_MAIN, NULL, "%s queue run: pid=%d%.*s", what, (int)getpid(), STRF(run_name));
}

static void run_starts(const struct daemon_message *m) {
  static char text[160];
  if (w.p.index != 0 || str_is_set(run_name))
    return;
  bool named = m->queue_name[0];
  int n = snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s", m->run.two_stage || m->run.first_only || m->run.force || m->run.local_only || named ? " -q" : "",
      m->run.two_stage ? "q" : "", m->run.first_only ? "i" : "", m->run.force ? "f" : "", m->run.force_frozen ? "f" : "",
      m->run.local_only ? "l" : "", named ? "G" : "", m->queue_name);
  run_name = str_n(text, n < 0 || (size_t)n >= sizeof text ? 0 : (size_t)n);
  log_run("Start");
}

static void run_ends(int64_t now) {
  if (!str_is_set(run_name) || w.deliveries || (!w.draining && queue_next_due() <= now))
    return;
  log_run("End");
  run_name = STR_UNSET;
}

/* Starts what is due as far as worker_deliveries allows, then sleeps until the next is. */
static void scheduler(void *arg) {
  w.scheduler = fiber_self();
  while (!w.draining) {
    struct queue_entry *e;
    int64_t now = time(NULL);
    int64_t load_max = main_options(w.config)->deliver_queue_load_max;
    bool busy = load_max >= 0 && queue_next_due() <= now && load_average() > load_max;
    while (!busy && has_room() && (e = queue_take(now)))
      (void)start_delivery(NULL, e, &ordinary);
    run_ends(now);
    int64_t next = busy ? now + LOAD_SECONDS : queue_next_due();
    bool full = !has_room();
    usec_t deadline = full ? deadline_in(ROOM_SECONDS) : next == QUEUE_NEVER ? DEADLINE_NEVER : deadline_in(next > now ? next - now : 1);
    (void)fiber_park(deadline);
  }
  run_ends(0);
  w.scheduler = NULL;
}

void daemon_take_message(struct ctx *c, struct message *m, bool queue, const struct daemon_delivery *how) {
  atomic_fetch_add(&w.slot->received, 1);
  queue |= m->frozen;
  bool deliver = !queue && (how->wait || has_room());
  struct queue_entry *e = deliver ? queue_take_now(m->id, m->queue_name) : queue_hold(m->id, m->queue_name, m->frozen);
  if (!e) {
    message_free(m);
    return;
  }
  if (deliver && how->wait) {
    deliver_and_wait(m, e, how);
    return;
  }
  if (deliver) {
    (void)start_delivery(m, e, how);
    return;
  }
  /* Too much at once is no reason to wait for a queue run: it comes when there is room. */
  bool soon = !queue && !how->queue_smtp && !how->no_delivery;
  if (!soon)
    msglog_begin(c, m);
  (void)spool_rest(c, m);
  queue_put_back(e, soon ? time(NULL) : QUEUE_NEVER, m->frozen);
  message_free(m);
  tell_queued();
  if (w.draining && soon)
    hand_over(e->id, e->queue_name);
  wake_scheduler(); /* to look when there is room */
}

bool daemon_must_queue(struct ctx *c, int messages_in_connection, struct str *ret_why) {
  return admission_must_queue(NULL, c, messages_in_connection, ret_why);
}

/* The SMTP server hands a committed message over. */
static void accepted(void *arg, struct ctx *c, struct message *m, bool queue) {
  daemon_take_message(c, m, queue || w.p.daemon->queue_only, &ordinary);
}

/* Bounces and warnings that a delivery of ours has written. */
static void submitted(struct ctx *c, struct message *m) {
  accepted(NULL, c, m, main_options(c->config)->queue_only || m->queue_only_policy);
}

/* --- sessions --- */

struct connection {
  int fd;
  int place; /* on the scoreboard */
  struct ip_addr peer, local;
  int peer_port, local_port;
  bool tls_on_connect;
};

/* Sessions of a worker that makes room may go on for a while: a connection that it has just taken is not refused, and
only who stays is sent away. */
static bool stopping(void *arg) { return w.draining && time(NULL) - w.draining_since >= DRAIN_GRACE; }

static const struct smtp_hooks session_hooks = {
    .admit = admission_check,
    .connections = admission_connections,
    .must_queue = admission_must_queue,
    .accepted = accepted,
    .stopping = stopping,
};

static void session_fiber(void *arg) {
  struct connection *n = arg;
  struct stream *s = stream_new(n->fd, n->fd);
  struct smtp_params p = {.config = w.config, .kind = SESSION_SMTP, .stream = s, .peer = n->peer, .local = n->local,
      .peer_port = n->peer_port, .local_port = n->local_port, .tls_on_connect = n->tls_on_connect, .timeout = -1,
      .queue_only = w.p.daemon->queue_only, .hooks = &session_hooks};
  p.ident = p.host_name = p.authenticated_id = p.authenticated_sender = p.host_authenticated = p.protocol = p.bounced_id = p.sender =
      STR_UNSET;
  struct what_item item;
  what_begin(&item, "handling incoming connection from");
  item.peer = n->peer;
  item.port = n->peer_port;
  (void)smtp_server_run(&p);
  what_end(&item);
  stream_free(s);
  scoreboard_disconnect(w.slot, n->place);
  free(n);
  w.sessions--;
  if (w.accept_paused)
    admission_resume(&w);
}

static void connection_accepted(struct listener *l, int fd, const struct sockaddr *from) {
  struct connection *n = xcalloc(1, sizeof *n);
  struct sockaddr_storage own;
  socklen_t len = sizeof own;
  *n = (struct connection){.fd = fd, .tls_on_connect = l->tls_on_connect};
  if (!ip_from_sockaddr(from, &n->peer, &n->peer_port) || getsockname(fd, (struct sockaddr *)&own, &len) < 0 ||
      !ip_from_sockaddr((struct sockaddr *)&own, &n->local, &n->local_port)) {
    close(fd);
    free(n);
    return;
  }
  if (main_options(w.config)->smtp_accept_keepalive) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
  n->place = scoreboard_connect(w.slot, &n->peer);
  w.sessions++;
  (void)fiber_spawn("smtp session", session_fiber, n);
}

/* How many connections wait, if that is more than is usual. */
static void watch_backlog(const struct listener *l) {
  int64_t level = main_options(w.config)->smtp_backlog_monitor;
  struct tcp_info t;
  socklen_t n = sizeof t;
  if (level <= 0 || getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &t, &n) < 0 || (int64_t)t.tcpi_unacked <= level)
    return;
  struct arena *a = arena_new("backlog");
  log_write(LOG_MAIN, NULL, "listen backlog %u I=[%.*s]:%d", t.tcpi_unacked, STRF(ip_text(a, &l->ip)), l->port);
  arena_free(a);
}

static void accept_fiber(void *arg) {
  struct listener *l = arg;
  while (!w.draining) {
    if (w.sessions >= w.sessions_max) {
      admission_pause(&w);
      continue;
    }
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    watch_backlog(l);
    int fd = accept4(l->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      connection_accepted(l, fd, (struct sockaddr *)&from);
      continue;
    }
    if (errno == EAGAIN) {
      if (fiber_wait_fd(l->fd, FIBER_READ, DEADLINE_NEVER) < 0)
        return;
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "daemon: accept() failed: %s", strerror(errno));
      (void)fiber_sleep(USEC_PER_SEC);
    }
  }
}

/* --- the master's messages --- */

static void drain(void) {
  w.draining = true;
  w.draining_since = time(NULL);
  for (int i = 0; i < w.accepters_n; i++)
    fiber_cancel(w.accepters[i]);
  wake_scheduler();
  smtp_pool_close_all();
  if (w.control_fiber)
    fiber_cancel(w.control_fiber);
}

/* What others have put into the spool belongs to it, too. [suspends] */
static void start_queue_run(const struct daemon_message *m) {
  static uint64_t known_cleared;
  struct arena *a = arena_new("queue run");
  struct ctx *c = ctx_new(a, w.config);
  struct queue_run r = {.queue_name = str_dup(a, str_c(m->queue_name)), .first_only = m->run.first_only, .force = m->run.force,
      .force_frozen = m->run.force_frozen, .frozen_too = main_options(w.config)->move_frozen_messages};
  uint64_t cleared = retry_cleared(c);
  r.all = cleared != known_cleared;
  known_cleared = cleared;
  queue_refresh(c, r.queue_name, w.p.index, w.p.count, daemon_owner);
  run_starts(m);
  queue_start_run(&r, time(NULL));
  tell_queued();
  arena_free(a);
  wake_scheduler();
}

#define WHAT_MAX (8u << 20)

static void tell_what(int fd) {
  struct arena *a = arena_new("what");
  struct buf b;
  buf_init(&b, a, WHAT_MAX);
  buf_printf(&b, "%d worker %d%s: %d sessions, %d deliveries, %d of them wait for a host, %zu messages queued\n", (int)getpid(), w.p.index,
      w.draining ? " (drains)" : "", w.sessions, w.deliveries, patience_waiting(), queue_count());
  if (str_is_set(run_name))
    buf_printf(&b, "%d running queue%.*s\n", (int)getpid(), STRF(run_name));
  what_lines(&b);
  what_answer(fd, buf_str(&b));
  arena_free(a);
}

#define SHOW_SECONDS 5 /* that a message may take to get its place in the queue before a command looks at it */

/* A command looks at the spool when this closes its pipe. */
static void show_fiber(void *arg) {
  int *end = arg;
  usec_t now = loop_now(), deadline = deadline_in(SHOW_SECONDS);
  while (spool_show_all(now, queue_passing) && loop_now() < deadline && fiber_sleep(USEC_PER_SEC / 200) == 0)
    ;
  close(*end);
  free(end);
}

static void show_messages(int fd) {
  int *end = xmalloc(sizeof *end);
  *end = fd;
  (void)fiber_spawn("files for a command", show_fiber, end);
}

static void control_fiber(void *arg) {
  w.control_fiber = fiber_self();
  for (;;) {
    struct daemon_message m;
    int fd, n = daemon_message_receive(w.p.control, &m, &fd);
    if (n == -EAGAIN) {
      if (fiber_wait_fd(w.p.control, FIBER_READ, DEADLINE_NEVER) < 0)
        break;
      continue;
    }
    if (n == 0) { /* the master is gone */
      drain();
      break;
    }
    if (n < 0)
      continue;
    switch ((enum daemon_message_type)m.type) {
    case DAEMON_NEW_MESSAGE:
    case DAEMON_RAMP:
      queue_add(m.id, str_c(m.queue_name), time(NULL));
      wake_scheduler();
      break;
    case DAEMON_CHANGED_MESSAGE:
      queue_changed(m.id, str_c(m.queue_name), spool_exists(str_c(m.queue_name), m.id));
      tell_queued();
      break;
    case DAEMON_QUEUE_RUN:
      start_queue_run(&m);
      break;
    case DAEMON_DRAIN:
      drain();
      w.control_fiber = NULL;
      if (fd >= 0)
        close(fd);
      return;
    case DAEMON_AGENT:
      if (fd >= 0) {
        agent_client_start(fd);
        fd = -1;
      }
      break;
    case DAEMON_KEYS:
      if (fd >= 0) {
        keys_use_channel(fd);
        fd = -1;
      }
      break;
    case DAEMON_REOPEN_LOGS:
      log_reopen();
      break;
    case DAEMON_WHAT:
      if (fd >= 0) {
        tell_what(fd);
        fd = -1;
      }
      break;
    case DAEMON_FILES:
      if (fd >= 0)
        show_messages(fd);
      fd = -1;
      break;
    case DAEMON_VALIDATOR:
      if (fd >= 0)
        validator_take(fd);
      fd = -1;
      break;
    }
    if (fd >= 0)
      close(fd);
  }
  w.control_fiber = NULL;
}

size_t daemon_queued(const struct local_caller *who) {
  const struct scoreboard *s = who->worker->p.board;
  size_t n = 0;
  for (int i = 0; i < s->workers; i++)
    n += (size_t)atomic_load(&s->worker[i].queued);
  return n;
}

/* --- start --- */

static int drop_privilege(void) {
  const struct main_options *o = main_options(w.config);
  if (geteuid() != 0 || !o->exim_user.set)
    return 0;
  gid_t gid = o->exim_group.set ? o->exim_group.id : o->exim_user.gid;
  if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(o->exim_user.id, o->exim_user.id, o->exim_user.id) < 0) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "worker: cannot become exim_user: %s", strerror(errno));
    return -1;
  }
  return 0;
}

static bool id_is_ours(const char *id, void *arg) { return daemon_owner(id, w.p.count) == w.p.index; }
static bool waits_here(const char *id) { return id_is_ours(id, NULL); }

/* What a dead process's log of writes brings back may belong to another worker, which may have read the spool before. */
struct orphan {
  char id[24];
  struct str queue_name;
};
struct orphans {
  struct arena *arena;
  VEC(struct orphan) v;
};

static void recovered(void *arg, const char *id, struct str queue_name) {
  struct orphans *o = arg;
  struct orphan one = {.queue_name = str_dup(o->arena, queue_name)};
  if (daemon_owner(id, w.p.count) == w.p.index)
    return; /* read from the spool in a moment */
  memcpy(one.id, id, strnlen(id, sizeof one.id - 1));
  vec_push(o->arena, &o->v, one);
}

static void orphans_fiber(void *arg) {
  struct orphans *o = arg;
  for (size_t i = 0; i < o->v.n; i++)
    hand_over(o->v.v[i].id, o->v.v[i].queue_name);
  arena_free(o->arena);
}

static int worker_main(void *arg) {
  struct ctx *c = ctx_new(w.arena, w.config);
  struct arena *a = arena_new("orphans");
  struct orphans *orphans = arena_new_of(a, struct orphans);
  orphans->arena = a;
  if (dns_is_validating(w.config))
    validator_managed(validator_hung);
  if (w.p.with_agent && !main_options(w.config)->deliver_drop_privilege) {
    plan_set_runner(&plan_runner_agent);
    identity_set_can_switch(true);
  }
  if (daemon_options(w.config)->key_isolation)
    keys_isolate(NULL, NULL);
  if (w.p.keys >= 0)
    keys_use_channel(w.p.keys);
  deliver_take_over = submitted;
  deliver_write_patience = 600;
  deliver_claims = &claims;
  int most = (int)daemon_options(w.config)->worker_deliveries;
  patience_limit(most >= 20 ? most / 10 : 2, most);
  spool_changed = changed;
  smtp_wait_is_ours = waits_here;
  if (main_options(w.config)->perl_at_start && perl_start_early(c) != 0)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(c->error));
  int rc = spool_log_start(c, recovered, orphans);
  if (rc)
    log_write(rc == -ENOSPC ? LOG_MAIN : LOG_MAIN | LOG_PANIC, NULL, "spool log: %s: messages go into files at once", strerror(-rc));
  message_id_set_filter(id_is_ours, NULL);
  (void)fiber_spawn("orphans", orphans_fiber, orphans);
  (void)fiber_spawn("control", control_fiber, NULL);
  if (w.p.listeners->n > 0)
    smtp_server_preload(w.config);
  for (int i = 0; i < w.p.listeners->n; i++)
    if (w.p.listeners->v[i].fd >= 0)
      w.accepters[w.accepters_n++] = fiber_spawn("accept", accept_fiber, &w.p.listeners->v[i]);
  if (w.p.local_socket >= 0)
    w.accepters[w.accepters_n++] = fiber_spawn("accept local", local_accept_fiber, &w);
  struct fiber *refresher = w.p.index == 0 ? tls_ocsp_refresh_start(w.config) : NULL;
  if (refresher)
    w.accepters[w.accepters_n++] = refresher;
  /* What an earlier life has left. Without queue runs it waits for somebody to say so, as Exim's users expect of a bare -bd;
  after a crash of this worker alone what it had taken on goes on. */
  int64_t due = w.p.daemon->runs_n || w.p.restarted ? time(NULL) : QUEUE_NEVER;
  (void)queue_load(c, STR_EMPTY, w.p.index, w.p.count, daemon_owner, due);
  tell_queued();
  scheduler(NULL);
  /* The work in hand may still need the agent; when nobody is left but who waits for its answers, that ends too. */
  while (agent_client_listens() && fiber_count() > 2 && fiber_sleep(DRAIN_LOOK) == 0)
    ;
  agent_client_stop();
  return 0;
}

#define SESSIONS_ORDINARY 2000
#define SESSIONS_FILES 1000 /* descriptors for everything else: deliveries, data bases, lists */

/* As many as smtp_accept_max lets in must fit into one worker, however uneven they come, and some more, which are told that
there are too many. The limit of open files is raised for them where that is allowed; else they are fewer. */
static void make_room_for_sessions(void) {
  int64_t wanted = daemon_options(w.config)->worker_connections, most = main_options(w.config)->smtp_accept_max;
  if (wanted <= 0)
    wanted = most <= 0 ? WORKER_SESSIONS_MAX : most + most / 10 > SESSIONS_ORDINARY ? most + most / 10 : SESSIONS_ORDINARY;
  if (wanted > WORKER_SESSIONS_MAX)
    wanted = WORKER_SESSIONS_MAX;
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < (rlim_t)wanted + SESSIONS_FILES) {
    struct rlimit more = {(rlim_t)wanted + SESSIONS_FILES, r.rlim_max};
    if (more.rlim_cur > more.rlim_max)
      more.rlim_max = more.rlim_cur; /* root may */
    if (setrlimit(RLIMIT_NOFILE, &more) < 0) {
      more = (struct rlimit){r.rlim_max, r.rlim_max};
      (void)setrlimit(RLIMIT_NOFILE, &more);
    }
    int64_t files = (int64_t)more.rlim_cur, others = files / 4 < SESSIONS_FILES ? files / 4 : SESSIONS_FILES;
    if (files - others < wanted)
      wanted = files - others;
  }
  w.sessions_max = (int)wanted;
}

/* Without an agent the worker's children are the local deliveries, which may need more. */
static void enter_sandbox(void) {
  if (!w.p.with_agent)
    return;
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int e = daemon_options(w.config)->sandbox ? sandbox_enter() : 0;
  if (e)
    DEBUG(process_info, "worker: no system call filter: %s\n", strerror(-e));
}

int worker_run(const struct worker_params *p) {
  w = (struct worker){.p = *p, .config = p->daemon->config, .arena = arena_new("worker"), .slot = &p->board->worker[p->index]};
  admission_init(&w);
  make_room_for_sessions();
  if (drop_privilege())
    return 1;
  enter_sandbox();
  (void)fcntl(w.p.control, F_SETFL, O_NONBLOCK);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole group; the master says what to do */
  signal(SIGHUP, SIG_IGN);
  loop_init();
  int status = loop_run(worker_main, NULL);
  spool_log_stop();
  hints_close();
  keys_done();
  loop_done();
  log_done();
  return status;
}
