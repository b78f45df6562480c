#include "daemon/validator_keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "dns/options.h"
#include "dns/validator.h"
#include "log/log.h"

#define SOON 10        /* seconds: who ends within them will not do better the next time */
#define PAUSE_MAX 60
#define HUNG_PAUSE 5   /* seconds that one is given before it may be said to hang */
#define SOCKET_BYTES (512 << 10)

static void become(const struct dns_options *o, int control) {
  struct arena *a = arena_new("validator");
  char *argv[] = {(char *)"martlet", (char *)VALIDATOR_ARGUMENT, str_dup_c(a, o->trust_anchor),
      str_dup_c(a, str_is_set(o->validator_config) ? o->validator_config : STR_EMPTY), (char *)"daemon", NULL};
  char *envp[] = {NULL};
  sigset_t none;
  int null = open("/dev/null", O_RDWR);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (null >= 0 && dup2(control, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2 && !close_range(3, ~0u, 0))
    execve("/proc/self/exe", argv, envp);
  _exit(1);
}

bool validator_restart(struct validator_keeper *k, const struct config *c) {
  int pair[2];
  if (!k->restart_at || k->restart_at > time(NULL))
    return false;
  if (!dns_is_validating(c)) {
    k->restart_at = 0; /* else the master would not sleep */
    return false;
  }
  k->started = time(NULL);
  k->restart_at = k->started + PAUSE_MAX;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return false;
  pid_t pid = fork();
  if (pid == 0)
    become(dns_options(c), pair[1]);
  close(pair[1]);
  if (pid < 0) {
    log_write(LOG_MAIN | LOG_PANIC, NULL, "cannot start the validating resolver: %s", strerror(errno));
    close(pair[0]);
    return false;
  }
  fcntl(pair[0], F_SETFL, O_NONBLOCK);
  k->pid = pid;
  k->control = pair[0];
  k->restart_at = 0;
  return true;
}

void validator_connect(const struct validator_keeper *k, int worker_control) {
  int pair[2], size = SOCKET_BYTES;
  struct daemon_message msg = {.type = DAEMON_VALIDATOR};
  if (k->control < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return;
  for (int i = 0; i < 2; i++)
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (daemon_message_send(k->control, &msg, pair[0]) || daemon_message_send(worker_control, &msg, pair[1]))
    log_write(LOG_MAIN | LOG_PANIC, NULL, "a worker has no channel to the validating resolver");
  close(pair[0]);
  close(pair[1]);
}

bool validator_ended(struct validator_keeper *k, pid_t pid) {
  if (pid != k->pid)
    return false;
  k->pause = time(NULL) - k->started >= SOON || !k->pause ? 1 : k->pause * 2 < PAUSE_MAX ? k->pause * 2 : PAUSE_MAX;
  k->restart_at = time(NULL) + (k->pause == 1 ? 0 : k->pause);
  log_write(LOG_MAIN, NULL, "the validating resolver (pid %d) ended; starting another", (int)pid);
  close(k->control);
  k->control = -1;
  k->pid = 0;
  return true;
}

void validator_hung(const struct validator_keeper *k) {
  if (k->pid > 0 && time(NULL) - k->started >= HUNG_PAUSE)
    kill(k->pid, SIGKILL);
}

void validator_leave(struct validator_keeper *k) {
  if (k->control >= 0)
    close(k->control);
  *k = (struct validator_keeper){.control = -1, .restart_at = 1};
}
