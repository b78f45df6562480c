#include "daemon/local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/build.h"
#include "core/main_options.h"
#include "daemon/local_wire.h"
#include "daemon/options.h"
#include "daemon/what.h"
#include "daemon/worker.h"
#include "log/log.h"

#define RUN_DIRECTORY "/run/martlet"
#define CALLERS_MAX 256 /* at one time in a worker */
#define CALLERS_PER_UID 64
#define GROUPS_MAX 1024

/* --- where --- */

bool local_config_is_default(bool given, struct str paths) {
  if (!given || !str_is_set(paths))
    return true;
  struct str rest = str_c(build.config_path);
  while (str_is_set(rest))
    if (str_eq(str_trim(str_cut(&rest, ':')), paths))
      return true;
  return false;
}

int local_socket_paths(const struct config *c, bool by_default, struct arena *a, struct str ret[2]) {
  struct str set = c ? daemon_options(c)->submission_socket : STR_UNSET;
  if (str_is_set(set)) {
    ret[0] = set;
    return set.len > 0;
  }
  ret[0] = STR(RUN_DIRECTORY "/submission");
  if (!c)
    return 1;
  struct str spool = main_options(c)->spool_directory;
  ret[1] = str_printf(a, "%.*s/submission", STRF(spool));
  if (!by_default) {
    /* Daemons of other configurations have sockets of their own, named after their spool. */
    char *name = str_dup_c(a, str_printf(a, "%.*s", STRF(spool)));
    for (char *at = name; *at; at++)
      if (*at == '/')
        *at = '-';
    ret[0] = str_printf(a, RUN_DIRECTORY "/submission%s", name);
  }
  return 2;
}

static bool address_of(struct str path, struct sockaddr_un *ret) {
  *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (path.len == 0 || path.len >= sizeof ret->sun_path || memchr(path.p, 0, path.len))
    return false;
  memcpy(ret->sun_path, path.p, path.len);
  return true;
}

int local_socket_connect(struct str path) {
  struct sockaddr_un sa;
  if (!address_of(path, &sa))
    return -ENAMETOOLONG;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
    int e = -errno;
    close(fd);
    return e;
  }
  return fd;
}

/* Under another name first, so that there is no moment without a socket when one daemon takes over from another. */
static int bind_at(struct arena *a, struct str path) {
  struct sockaddr_un sa;
  struct str new = str_printf(a, "%.*s.%d", STRF(path), (int)getpid());
  char *final = str_dup_c(a, path);
  if (!address_of(new, &sa))
    return -ENAMETOOLONG;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  unlink(sa.sun_path);
  if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(sa.sun_path, 0666) < 0 || listen(fd, 128) < 0 ||
      rename(sa.sun_path, final) < 0) {
    int e = -errno;
    unlink(sa.sun_path);
    close(fd);
    return e;
  }
  return fd;
}

static int paths_of(const struct daemon_params *p, struct arena *a, struct str ret[2]) {
  const struct config_source *source = p->source;
  return local_socket_paths(p->config, local_config_is_default(str_is_set(source->paths), source->paths), a, ret);
}

bool local_socket_stays(const struct daemon_params *p, struct arena *a, struct str path) {
  struct str paths[2];
  int n = paths_of(p, a, paths);
  return (n > 0 && str_eq(paths[0], path)) || (n > 1 && str_eq(paths[1], path));
}

int local_socket_open(const struct daemon_params *p, struct arena *a, struct str *ret_path) {
  struct str paths[2];
  int n = paths_of(p, a, paths);
  int fd = -ENOENT;
  *ret_path = STR_UNSET;
  if (n == 0 || !p->serve_local)
    return -1;
  if (n == 2 && geteuid() == 0)
    (void)!mkdir(RUN_DIRECTORY, 0755);
  int i = 0;
  for (; i < n && fd < 0; i++) {
    *ret_path = paths[i];
    /* A second daemon for the queue alone leaves the first one's socket in place. */
    int other = p->listening ? -1 : local_socket_connect(paths[i]);
    if (other >= 0) {
      close(other);
      return -1;
    }
    fd = bind_at(a, paths[i]);
  }
  if (fd >= 0)
    return fd;
  log_write(LOG_MAIN, NULL, "local submission socket %.*s: %s: ordinary users cannot submit mail with this program", STRF(*ret_path),
      strerror(-fd));
  *ret_path = STR_UNSET;
  return -1;
}

/* --- who comes --- */

struct caller {
  struct local_caller who;
  gid_t groups[GROUPS_MAX];
  int fd;
  struct caller *next;
};

static struct caller *callers;
static int callers_n;

static bool identify(struct caller *k) {
  struct ucred peer;
  socklen_t len = sizeof peer, groups_len = sizeof k->groups;
  if (getsockopt(k->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || len != sizeof peer)
    return false;
  k->who.uid = peer.uid;
  k->who.gid = peer.gid;
  k->who.groups = k->groups;
  /* Without them (an old kernel, or too many) the caller counts as a member of his own group alone. */
  if (getsockopt(k->fd, SOL_SOCKET, SO_PEERGROUPS, k->groups, &groups_len) == 0)
    k->who.groups_n = (int)(groups_len / sizeof *k->groups);
  return true;
}

static int callers_of(uint32_t uid) {
  int n = 0;
  for (const struct caller *k = callers; k; k = k->next)
    n += k->who.uid == uid;
  return n;
}

static void caller_fiber(void *arg) {
  struct caller *k = arg;
  struct what_item item;
  what_begin(&item, "serving a local command");
  item.uid = k->who.uid;
  k->who.worker->p.daemon->serve_local(&k->who, k->fd);
  what_end(&item);
  for (struct caller **at = &callers; *at; at = &(*at)->next)
    if (*at == k) {
      *at = k->next;
      break;
    }
  callers_n--;
  free(k);
}

static void take_caller(struct worker *w, int fd) {
  struct caller *k = xcalloc(1, sizeof *k);
  k->fd = fd;
  k->who.worker = w;
  k->who.config = w->config;
  bool known = identify(k);
  bool many = known && (callers_n >= CALLERS_MAX || callers_of(k->who.uid) >= CALLERS_PER_UID);
  if (!known || many) {
    if (many)
      local_refuse(fd, "martlet: too many messages are being submitted at this time; try again later\n", DAEMON_TRY_AGAIN);
    close(fd);
    free(k);
    return;
  }
  k->next = callers;
  callers = k;
  callers_n++;
  (void)fiber_spawn("local submission", caller_fiber, k);
}

void local_accept_fiber(void *arg) {
  struct worker *w = arg;
  while (!w->draining) {
    int fd = accept4(w->p.local_socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      take_caller(w, fd);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      log_write(LOG_MAIN | LOG_PANIC, NULL, "local submission: accept() failed: %s", strerror(errno));
      (void)fiber_sleep(USEC_PER_SEC);
    } else if (errno == EAGAIN && fiber_wait_fd(w->p.local_socket, FIBER_READ, DEADLINE_NEVER) < 0) {
      return;
    }
  }
}
