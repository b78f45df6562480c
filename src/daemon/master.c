/* The master: binds sockets, starts and watches the others, reloads. It parses
nothing from outside but datagrams of fixed form. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "base/buf.h"
#include "config/config.h"
#include "core/build.h"
#include "core/main_options.h"
#include "daemon/agent.h"
#include "daemon/daemon.h"
#include "daemon/keys.h"
#include "daemon/local.h"
#include "log/log.h"
#include "daemon/load.h"
#include "daemon/options.h"
#include "daemon/spool_check.h"
#include "daemon/validator_keeper.h"

#define STOP_SECONDS 5  /* what a session or delivery may still take at the end; nothing acknowledged is lost by cutting it short */
#define RESTART_PAUSE 1 /* seconds between deaths of one worker, so that a broken one does not spin */

struct worker_process {
  int pid, control;
  uint32_t generation;
  bool draining;
  time_t started, restart_at;
  int index;
};

/* The configuration is known from a stack that a leak checker does not look at when a worker's fiber ends the process. */
__attribute__((used)) static struct config *volatile config_in_use;

/* Those before a reload: something of the process may still refer to their texts. */
struct former_config {
  struct former_config *next;
  struct config *config;
};

struct master {
  struct arena *arena;
  struct former_config *former;
  struct daemon_params *p;
  struct listeners listeners;
  struct scoreboard *board;
  struct worker_process workers[WORKERS_MAX * 2]; /* old generations drain beside the new one */
  int workers_n, count;
  int agent_pid, agent_control;
  struct validator_keeper validator;
  int keys_pid, keys_control; /* with key_isolation */
  time_t keys_started, keys_restart_at; /* restart_at: 0, it runs */
  int signals, notifier, local_socket;
  bool stopping, wrote_pid;
  time_t kill_at;            /* when stopping: who has not ended by then is ended */
  struct str pid_path, notifier_path, local_path;
  ino_t local_inode;
  time_t *next_run;
  uint32_t generation;
};

static bool need_agent(void) { return geteuid() == 0; }

static int worker_count(const struct config *c) {
  int64_t n = daemon_options(c)->worker_processes;
  if (n <= 0)
    n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (int)n;
}

/* In a new child: only what it needs stays open. */
static void close_for_child(struct master *m, int keep) {
  for (int i = 0; i < m->workers_n; i++)
    if (m->workers[i].control >= 0 && m->workers[i].control != keep)
      close(m->workers[i].control);
  if (m->agent_control >= 0 && m->agent_control != keep)
    close(m->agent_control);
  if (m->validator.control >= 0)
    close(m->validator.control);
  if (m->keys_control >= 0)
    close(m->keys_control);
  close(m->signals);
  if (m->notifier >= 0)
    close(m->notifier);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static int start_agent(struct master *m) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -errno;
  pid_t pid = fork();
  if (pid == 0) {
    close(pair[0]);
    close_for_child(m, -1);
    listen_close(&m->listeners);
    if (m->local_socket >= 0)
      close(m->local_socket);
    signal(SIGTERM, SIG_IGN); /* it ends when the master hangs up, after the workers */
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "martlet: agent");
    agent_run(m->p->config, pair[1]);
  }
  close(pair[1]);
  if (pid < 0) {
    close(pair[0]);
    return -errno;
  }
  m->agent_pid = pid;
  m->agent_control = pair[0];
  return 0;
}

/* A new program, for it is to have nothing of ours; it ends by itself when neither we nor a worker needs it. */
static int start_keys(struct master *m) {
  int pair[2], size = 1 << 20;
  m->keys_started = time(NULL);
  m->keys_restart_at = 0;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -errno;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  pid_t pid = fork();
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(pair[1], 0);
    (void)close_range(3, ~0U, 0);
    char *argv[] = {(char *)"martlet", (char *)KEYS_ARGUMENT, NULL}, *envp[] = {NULL};
    execve("/proc/self/exe", argv, envp);
    _exit(1);
  }
  close(pair[1]);
  int e = pid < 0 ? -errno : keys_tell_names(m->p->config, pair[0]);
  m->keys_pid = pid < 0 ? 0 : pid;
  m->keys_control = e ? -1 : pair[0];
  if (e)
    close(pair[0]);
  return e;
}

static int make_keys_channel(struct master *m) { return m->keys_control < 0 ? -1 : keys_make_channel(m->keys_control); }

static void connect_to_keys(struct master *m, struct worker_process *w) {
  struct daemon_message msg = {.type = DAEMON_KEYS};
  int fd = make_keys_channel(m);
  if (fd < 0)
    return;
  (void)daemon_message_send(w->control, &msg, fd);
  close(fd);
}

static void keys_ended(struct master *m, int status) {
  m->keys_pid = 0;
  if (m->keys_control >= 0)
    close(m->keys_control);
  m->keys_control = -1;
  if (m->stopping)
    return;
  log_write(LOG_MAIN | LOG_PANIC, NULL, "the keys process ended %s %d; starting another", WIFSIGNALED(status) ? "by signal" : "with status",
      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  time_t now = time(NULL);
  m->keys_restart_at = now - m->keys_started <= RESTART_PAUSE ? now + RESTART_PAUSE : now;
}

static void restart_keys(struct master *m) {
  if (!m->keys_restart_at || m->stopping || m->keys_restart_at > time(NULL))
    return;
  int e = start_keys(m);
  if (e) {
    m->keys_restart_at = time(NULL) + RESTART_PAUSE;
    return;
  }
  for (int i = 0; i < m->workers_n; i++)
    if (m->workers[i].pid)
      connect_to_keys(m, &m->workers[i]);
}

/* A channel between a worker and the agent: one end to each. */
static void connect_to_agent(struct master *m, struct worker_process *w) {
  int pair[2];
  if (m->agent_control < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return;
  int size = 512 << 10;
  for (int i = 0; i < 2; i++)
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  struct daemon_message msg = {.type = DAEMON_AGENT};
  (void)agent_send(m->agent_control, 0, STR("channel"), pair[0]);
  (void)daemon_message_send(w->control, &msg, pair[1]);
  close(pair[0]);
  close(pair[1]);
}

static int start_worker(struct master *m, struct worker_process *w, int index, bool restarted) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -errno;
  scoreboard_clear(&m->board->worker[index]);
  int keys = make_keys_channel(m);
  pid_t pid = fork();
  if (pid == 0) {
    close(pair[0]);
    close_for_child(m, -1);
    prctl(PR_SET_NAME, "martlet: worker");
    struct worker_params p = {.daemon = m->p, .index = index, .count = m->count, .control = pair[1], .board = m->board,
        .listeners = &m->listeners, .local_socket = m->local_socket, .keys = keys, .with_agent = m->agent_control >= 0,
        .restarted = restarted};
    _exit(worker_run(&p));
  }
  close(pair[1]);
  if (keys >= 0)
    close(keys);
  if (pid < 0) {
    close(pair[0]);
    return -errno;
  }
  fcntl(pair[0], F_SETFL, O_NONBLOCK);
  *w = (struct worker_process){.pid = pid, .control = pair[0], .generation = m->generation, .started = time(NULL), .index = index};
  atomic_store(&m->board->worker[index].pid, pid);
  if (m->agent_control >= 0)
    connect_to_agent(m, w);
  validator_connect(&m->validator, w->control);
  return 0;
}

static bool start_all(struct master *m) {
  for (int i = 0; i < m->count; i++) {
    if (m->workers_n == (int)(sizeof m->workers / sizeof *m->workers))
      return false;
    int e = start_worker(m, &m->workers[m->workers_n], i, false);
    if (e) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "cannot start a worker: %s", strerror(-e));
      return false;
    }
    m->workers_n++;
  }
  return true;
}

/* --- files the daemon leaves --- */

static void write_pid_file(struct master *m) {
  const struct main_options *o = main_options(m->p->config);
  m->pid_path = str_is_set(m->p->pid_file)   ? m->p->pid_file
                : str_is_set(o->pid_file_path) && o->pid_file_path.len ? o->pid_file_path
                                             : str_printf(m->arena, "%.*s/exim-daemon.pid", STRF(o->spool_directory));
  char *path = str_dup_c(m->arena, m->pid_path);
  FILE *f = fopen(path, "we");
  if (!f) {
    log_write(LOG_MAIN, NULL, "failed to open pid file %s: %s", path, strerror(errno));
    return;
  }
  fprintf(f, "%d\n", (int)getpid());
  fclose(f);
  (void)!chmod(path, 0644);
  m->wrote_pid = true;
}

static void open_notifier(struct master *m) {
  const struct main_options *o = main_options(m->p->config);
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  m->notifier = -1;
  m->notifier_path = daemon_notifier_path(m->p->config, m->arena);
  if (!m->notifier_path.len || m->notifier_path.len >= sizeof sa.sun_path)
    return;
  memcpy(sa.sun_path, m->notifier_path.p, m->notifier_path.len);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  unlink(sa.sun_path);
  if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
    log_write(LOG_MAIN, NULL, "daemon notifier socket %s: %s", sa.sun_path, strerror(errno));
    if (fd >= 0)
      close(fd);
    return;
  }
  (void)!chmod(sa.sun_path, 0660);
  if (geteuid() == 0 && o->exim_user.set)
    (void)!chown(sa.sun_path, o->exim_user.id, o->exim_group.set ? o->exim_group.id : o->exim_user.gid);
  m->notifier = fd;
}

/* Another daemon may have put its own there. */
static void remove_local_socket(struct master *m) {
  struct stat st;
  char *path = str_dup_c(m->arena, m->local_path);
  if (m->local_socket >= 0 && stat(path, &st) == 0 && st.st_ino == m->local_inode)
    unlink(path);
}

/* A path that stays after a reload keeps its socket, and who waits on it. */
static void open_local_socket(struct master *m) {
  struct str path;
  struct stat st;
  if (m->local_socket >= 0 && local_socket_stays(m->p, m->arena, m->local_path))
    return;
  remove_local_socket(m);
  if (m->local_socket >= 0)
    close(m->local_socket);
  m->local_socket = local_socket_open(m->p, m->arena, &path);
  m->local_path = path;
  m->local_inode = m->local_socket >= 0 && stat(str_dup_c(m->arena, path), &st) == 0 ? st.st_ino : 0;
}

static void remove_files(struct master *m) {
  if (m->wrote_pid)
    unlink(str_dup_c(m->arena, m->pid_path));
  if (m->notifier >= 0)
    unlink(str_dup_c(m->arena, m->notifier_path));
  remove_local_socket(m);
}

/* --- events --- */

static void tell_workers(struct master *m, const struct daemon_message *msg, int fd) {
  for (int i = 0; i < m->workers_n; i++)
    if (m->workers[i].pid && !m->workers[i].draining)
      (void)daemon_message_send(m->workers[i].control, msg, fd);
}

static struct str describe(struct master *m, struct arena *a);

/* What exiwhat shows: the workers answer by themselves. */
static void tell_what(struct master *m, const struct daemon_message *msg, int fd) {
  struct arena *a = arena_new("what");
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  buf_printf(&b, "%d daemon(%s): %.*s\n", (int)getpid(), build.version, STRF(describe(m, a)));
  if (m->agent_pid)
    buf_printf(&b, "%d agent for local deliveries\n", m->agent_pid);
  for (int i = 0; i < m->workers_n; i++) /* these listen no more */
    if (m->workers[i].pid && m->workers[i].draining)
      buf_printf(&b, "%d worker of before a reload, ends what it has in hand\n", m->workers[i].pid);
  struct str s = buf_str(&b);
  (void)fcntl(fd, F_SETFL, O_NONBLOCK); /* who does not read gets less */
  (void)!write(fd, s.p, s.len);
  tell_workers(m, msg, fd);
  arena_free(a);
}

/* From one-shot commands (the notifier socket) and from workers, who hand messages over to those that own them. */
static void take_notifications(struct master *m, int channel) {
  struct daemon_message msg;
  int fd;
  while (daemon_message_receive(channel, &msg, &fd) == 1) {
    if (msg.type == DAEMON_WHAT && fd >= 0 && channel == m->notifier)
      tell_what(m, &msg, fd);
    if (msg.type == DAEMON_FILES && fd >= 0 && channel == m->notifier)
      tell_workers(m, &msg, fd);
    if (fd >= 0)
      close(fd);
    if (msg.type == DAEMON_VALIDATOR && channel != m->notifier)
      validator_hung(&m->validator);
    if (msg.type == DAEMON_QUEUE_RUN) {
      tell_workers(m, &msg, -1);
      continue;
    }
    if (msg.type == DAEMON_RAMP) {
      log_write(LOG_MAIN, NULL, "notify triggered queue run");
      msg.type = DAEMON_NEW_MESSAGE;
    }
    if (msg.type != DAEMON_NEW_MESSAGE && msg.type != DAEMON_CHANGED_MESSAGE)
      continue;
    int owner = daemon_owner(msg.id, m->count);
    for (int i = 0; i < m->workers_n; i++)
      if (m->workers[i].pid && !m->workers[i].draining && m->workers[i].index == owner)
        (void)daemon_message_send(m->workers[i].control, &msg, -1);
  }
}

static void worker_ended(struct master *m, int i, int status) {
  struct worker_process *w = &m->workers[i];
  take_notifications(m, w->control); /* its last words */
  close(w->control);
  w->control = -1;
  w->pid = 0;
  bool wanted = w->draining || m->stopping;
  if (!wanted)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "worker %d (pid %d) ended %s %d; starting another", w->index,
        atomic_load(&m->board->worker[w->index].pid), WIFSIGNALED(status) ? "by signal" : "with status",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  if (wanted) {
    m->workers[i] = m->workers[--m->workers_n];
    return;
  }
  w->restart_at = time(NULL) - w->started < RESTART_PAUSE ? time(NULL) + RESTART_PAUSE : time(NULL);
}

static void restart_workers(struct master *m) {
  time_t now = time(NULL);
  for (int i = 0; i < m->workers_n && !m->stopping; i++) {
    struct worker_process *w = &m->workers[i];
    if (!w->pid && w->restart_at <= now && start_worker(m, w, w->index, true))
      w->restart_at = now + RESTART_PAUSE;
  }
}

static void start_validator(struct master *m) {
  if (m->stopping || !validator_restart(&m->validator, m->p->config))
    return;
  for (int i = 0; i < m->workers_n; i++)
    if (m->workers[i].pid && !m->workers[i].draining)
      validator_connect(&m->validator, m->workers[i].control);
}

static void reap(struct master *m) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == m->keys_pid) {
      keys_ended(m, status);
      continue;
    }
    if (pid == m->agent_pid) {
      m->agent_pid = 0;
      close(m->agent_control);
      m->agent_control = -1;
      if (!m->stopping) {
        log_write(LOG_MAIN | LOG_PANIC, NULL, "the agent (pid %d) ended; starting another", (int)pid);
        if (start_agent(m) == 0)
          for (int i = 0; i < m->workers_n; i++)
            if (m->workers[i].pid)
              connect_to_agent(m, &m->workers[i]);
      }
      continue;
    }
    if (validator_ended(&m->validator, pid))
      continue;
    for (int i = 0; i < m->workers_n; i++)
      if (m->workers[i].pid == pid) {
        worker_ended(m, i, status);
        break;
      }
  }
}

static void drain_all(struct master *m) {
  struct daemon_message msg = {.type = DAEMON_DRAIN};
  for (int i = 0; i < m->workers_n; i++) {
    struct worker_process *w = &m->workers[i];
    if (w->pid && !w->draining)
      (void)daemon_message_send(w->control, &msg, -1);
    w->draining = true;
    if (!w->pid)
      m->workers[i--] = m->workers[--m->workers_n];
  }
}

/* SIGHUP: the new configuration must be sound, else the old one stays. */
static void reload(struct master *m) {
  struct arena *a = arena_new("configuration");
  struct config *c;
  struct str errors;
  if (load_config(m->p->source, a, &c, &errors)) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "SIGHUP: the new configuration has errors, the old one stays: %.*s", STRF(errors));
    arena_free(a);
    return;
  }
  struct listeners fresh;
  struct str error;
  if (m->p->listening && m->p->inherited_fd < 0) {
    if (listen_plan(c, a, m->p->listen, m->p->all_tls, &fresh, &error)) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "SIGHUP: %.*s; the old configuration stays", STRF(error));
      arena_free(a);
      return;
    }
    /* Sockets that stay are kept open all the time, so that no connection is refused. */
    for (int i = 0; i < fresh.n; i++)
      for (int k = 0; k < m->listeners.n; k++)
        if (ip_eq(&fresh.v[i].ip, &m->listeners.v[k].ip) && fresh.v[i].port == m->listeners.v[k].port) {
          fresh.v[i].fd = m->listeners.v[k].fd;
          fresh.v[i].both_families = m->listeners.v[k].both_families;
          m->listeners.v[k].fd = -1;
        }
    listen_close(&m->listeners);
    m->listeners = fresh;
    if (listen_bind_missing(c, a, &m->listeners, &error))
      log_write(LOG_MAIN | LOG_PANIC, NULL, "SIGHUP: %.*s", STRF(error));
  }
  drain_all(m);
  struct former_config *former = xmalloc(sizeof *former); /* beyond the arena's end: a leak checker is to find them */
  *former = (struct former_config){m->former, m->p->config};
  m->former = former;
  m->p->config = config_in_use = c; /* the old one stays: a reload is rare */
  m->generation++;
  log_init(c);
  open_local_socket(m);
  log_write(LOG_MAIN, NULL, "pid %d: SIGHUP received: re-read the configuration", (int)getpid());
  if (m->agent_pid) {
    close(m->agent_control); /* the old one serves the old workers to their end */
    m->agent_pid = 0;
    m->agent_control = -1;
    if (start_agent(m))
      log_write(LOG_MAIN | LOG_PANIC, NULL, "SIGHUP: cannot start another agent for local deliveries");
  }
  validator_leave(&m->validator);
  (void)validator_restart(&m->validator, c);
  if (m->keys_control >= 0)
    close(m->keys_control); /* the same */
  m->keys_pid = 0;
  m->keys_control = -1;
  m->keys_restart_at = 0;
  if (daemon_options(c)->key_isolation && start_keys(m))
    log_write(LOG_MAIN | LOG_PANIC, NULL, "SIGHUP: cannot start another keys process");
  m->count = worker_count(c);
  m->board->workers = m->count;
  (void)start_all(m);
}

static void take_signal(struct master *m) {
  struct signalfd_siginfo s;
  while (read(m->signals, &s, sizeof s) == sizeof s) {
    switch (s.ssi_signo) {
    case SIGHUP:
      reload(m);
      break;
    case SIGTERM:
    case SIGINT:
      m->stopping = true;
      m->kill_at = time(NULL) + STOP_SECONDS;
      drain_all(m);
      break;
    default:
      break;
    }
  }
  reap(m);
}

static void run_queues(struct master *m) {
  time_t now = time(NULL);
  for (size_t i = 0; i < m->p->runs_n; i++) {
    const struct daemon_queue_run *q = &m->p->runs[i];
    if (m->next_run[i] > now)
      continue;
    struct daemon_message msg = {.type = DAEMON_QUEUE_RUN};
    msg.run.two_stage = q->two_stage;
    msg.run.first_only = q->first_only;
    msg.run.force = q->force;
    msg.run.force_frozen = q->force_frozen;
    msg.run.local_only = q->local_only;
    if (q->queue_name.len < sizeof msg.queue_name)
      memcpy(msg.queue_name, q->queue_name.p, q->queue_name.len);
    tell_workers(m, &msg, -1);
    m->next_run[i] = now + q->interval;
  }
}

static int next_wait(struct master *m) {
  time_t now = time(NULL), next = m->stopping ? now + 1 : now + 60;
  for (size_t i = 0; i < m->p->runs_n; i++)
    if (m->next_run[i] < next)
      next = m->next_run[i];
  for (int i = 0; i < m->workers_n; i++)
    if (!m->workers[i].pid && m->workers[i].restart_at < next)
      next = m->workers[i].restart_at;
  if (!m->stopping && m->validator.restart_at && m->validator.restart_at < next)
    next = m->validator.restart_at;
  if (m->keys_restart_at && m->keys_restart_at < next)
    next = m->keys_restart_at;
  return next <= now ? 0 : (int)(next - now) * 1000;
}

static void loop(struct master *m) {
  while (!(m->stopping && m->workers_n == 0)) {
    /* A negative descriptor is passed over: no notifier socket, a worker that waits for its restart. */
    struct pollfd w[2 + WORKERS_MAX * 2] = {{.fd = m->signals, .events = POLLIN}, {.fd = m->notifier, .events = POLLIN}};
    for (int i = 0; i < m->workers_n; i++)
      w[2 + i] = (struct pollfd){.fd = m->workers[i].control, .events = POLLIN};
    int k = poll(w, 2 + (nfds_t)m->workers_n, next_wait(m));
    for (int i = 1; k > 0 && i < 2 + m->workers_n; i++)
      if (w[i].revents & POLLIN)
        take_notifications(m, w[i].fd);
    if (k > 0 && w[0].revents)
      take_signal(m);
    restart_keys(m);
    restart_workers(m);
    start_validator(m);
    if (m->stopping && time(NULL) >= m->kill_at)
      for (int i = 0; i < m->workers_n; i++)
        if (m->workers[i].pid)
          kill(m->workers[i].pid, SIGKILL);
    if (!m->stopping)
      run_queues(m);
  }
}

static void go_to_background(void) {
  if (fork() > 0)
    _exit(0);
  setsid();
  if (fork() > 0)
    _exit(0);
  int null = open("/dev/null", O_RDWR);
  (void)!chdir("/");
  for (int i = 0; i < 3; i++)
    dup2(null, i);
  if (null > 2)
    close(null);
}

/* "-q30m, listening for SMTP on …" */
static struct str describe(struct master *m, struct arena *a) {
  struct buf runs;
  buf_init(&runs, a, BUF_MAX_LINE);
  for (size_t i = 0; i < m->p->runs_n; i++) {
    const struct daemon_queue_run *q = &m->p->runs[i];
    buf_printf(&runs, "%s-q%s%s%s%s%s%.*s%s%.*s", i ? ", " : "", q->two_stage ? "q" : "", q->first_only ? "i" : "", q->force ? "f" : "",
        q->force_frozen ? "f" : "", q->queue_name.len ? "G" : "", STRF(q->queue_name), q->queue_name.len ? "/" : "",
        STRF(time_format_interval(a, q->interval)));
  }
  struct str r = m->p->runs_n ? buf_str(&runs) : STR("no queue runs");
  struct str where = !m->p->listening          ? STR("not listening for SMTP")
                     : m->p->inherited_fd >= 0 ? STR("listening for SMTP on an inherited socket")
                                               : str_printf(a, "listening for %.*s", STRF(listen_describe(a, &m->listeners)));
  return str_printf(a, "%.*s, %.*s", STRF(r), STRF(where));
}

static void log_start(struct master *m) {
  const struct main_options *o = main_options(m->p->config);
  if (m->p->listening && str_is_empty(o->tls_certificate.text) && !str_is_empty(str_trim(o->tls_advertise_hosts.text)))
    log_write(LOG_MAIN, NULL, "Warning: No server certificate defined; will use a selfsigned one.\n"
        " Suggested action: either install a certificate or change tls_advertise_hosts option");
  log_write(LOG_MAIN, NULL, "martlet %s daemon started: pid=%d, %.*s", build.version, (int)getpid(), STRF(describe(m, m->arena)));
}

static int open_sockets(struct master *m) {
  struct daemon_params *p = m->p;
  struct str error = STR_EMPTY;
  m->listeners.n = 0;
  if (!p->listening)
    return 0;
  if (p->inherited_fd >= 0) {
    fcntl(p->inherited_fd, F_SETFL, O_NONBLOCK);
    m->listeners.v[m->listeners.n++] = (struct listener){.fd = p->inherited_fd, .tls_on_connect = p->all_tls};
    return 0;
  }
  if (listen_plan(p->config, m->arena, p->listen, p->all_tls, &m->listeners, &error)) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(error));
    return -1;
  }
  const struct main_options *o = main_options(p->config);
  for (int64_t i = 0;; i++) {
    int e = listen_bind(p->config, m->arena, &m->listeners, &error);
    if (!e)
      return 0;
    if (e != -EADDRINUSE || i >= o->daemon_startup_retries) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s: daemon abandoned", STRF(error));
        return -1;
    }
    log_write(LOG_MAIN, NULL, "%.*s: waiting %llds before trying again (%lld more tries)", STRF(error),
        (long long)o->daemon_startup_sleep, (long long)(o->daemon_startup_retries - i));
    sleep((unsigned)o->daemon_startup_sleep);
  }
}

/* Lets it finish what workers that were killed have asked for, within reason: it dies with us. */
static void end_agent(struct master *m) {
  if (m->agent_control < 0)
    return;
  close(m->agent_control);
  for (int i = 0; i < STOP_SECONDS * 100 && waitpid(m->agent_pid, NULL, WNOHANG) == 0; i++)
    usleep(10000);
}

static void end_keys(struct master *m) {
  if (m->keys_control < 0)
    return;
  close(m->keys_control);
  for (int i = 0; i < STOP_SECONDS * 100; i++) {
    if (waitpid(m->keys_pid, NULL, WNOHANG) != 0)
      return;
    usleep(10000);
  }
  kill(m->keys_pid, SIGKILL);
}

int daemon_run(struct arena *a, struct daemon_params *p) {
  static struct master m;
  m = (struct master){.arena = a, .p = p, .agent_control = -1, .keys_control = -1, .notifier = -1, .local_socket = -1,
      .validator.control = -1};
  struct str trouble = spool_check(p->config, a), logs = log_check(p->config, a); /* mail goes on without them */
  if (str_is_set(logs))
    fprintf(stderr, "martlet: %.*s\n", STRF(logs));
  if (open_sockets(&m))
    return 1;
  if (str_is_set(trouble)) /* what comes is put off until it is mended, which needs no new start */
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(trouble));
  log_set_stderr(false); /* from here on nobody waits for the command's answer */
  if (!p->foreground)
    go_to_background();
  if (str_is_set(logs)) /* for whom what root can still write has it, or syslog */
    log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(logs));
  m.count = worker_count(p->config);
  m.board = scoreboard_new(m.count);
  if (!m.board)
    return 1;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGHUP), sigaddset(&mask, SIGTERM), sigaddset(&mask, SIGINT), sigaddset(&mask, SIGCHLD);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  signal(SIGPIPE, SIG_IGN);
  m.signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  m.next_run = arena_array(a, time_t, p->runs_n + 1);
  log_start(&m);
  open_notifier(&m);
  open_local_socket(&m);
  if (need_agent() && start_agent(&m)) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "cannot start the agent for local deliveries");
    return 1;
  }
  validator_leave(&m.validator);
  (void)validator_restart(&m.validator, p->config);
  if (daemon_options(p->config)->key_isolation && start_keys(&m)) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "cannot start the keys process");
    return 1;
  }
  if (!start_all(&m))
    return 1;
  if (p->listening || str_is_set(p->pid_file))
    write_pid_file(&m);
  if (p->ready)
    p->ready(p->ready_arg);
  loop(&m);
  remove_files(&m);
  end_agent(&m);
  end_keys(&m);
  return 0;
}
