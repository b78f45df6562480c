/* The process that has the private keys. It reads only the files that the configuration names, signs, and gives no key away;
nothing else of a message or a connection comes here. A thread for each channel: what a worker could sign at one time, this can. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd_pass.h"
#include "daemon/keys.h"
#include "daemon/sandbox.h"
#include "tls/keys_store.h"

#define CHANNELS_MAX 1024

static struct keys_store *store;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int channels; /* locked */
static bool alone;   /* locked: who has started us is gone */

static void channel_ended(void) {
  pthread_mutex_lock(&mutex);
  bool last = --channels == 0 && alone;
  pthread_mutex_unlock(&mutex);
  if (last)
    _exit(0);
}

static void *serve(void *arg) {
  int fd = (int)(intptr_t)arg;
  unsigned char request[KEYS_REQUEST_MAX], reply[KEYS_REPLY_MAX];
  for (;;) {
    ssize_t n = recv(fd, request, sizeof request, 0);
    if (n < 0 && errno == EINTR)
      continue;
    size_t size = n > 0 ? keys_store_serve(store, request, (size_t)n, reply) : 0;
    if (size == 0 || send(fd, reply, size, MSG_NOSIGNAL) != (ssize_t)size)
      break;
  }
  close(fd);
  channel_ended();
  return NULL;
}

static void open_channel(int fd) {
  pthread_t thread;
  pthread_mutex_lock(&mutex);
  bool room = channels < CHANNELS_MAX;
  channels += room;
  pthread_mutex_unlock(&mutex);
  if (room && pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0) {
    pthread_detach(thread);
    return;
  }
  close(fd);
  if (room)
    channel_ended();
}

static void shut_in(void) {
  const struct rlimit none = {0, 0};
  sandbox_drop_root_but_reading();
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_FSIZE, &none);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody of the same user may look into it */
  (void)sandbox_enter_reader();
}

int keys_run(void) {
  char text[KEYS_NAME_MAX + 1];
  bool begun = false;
  int fd;
  for (int i = 1; i < NSIG; i++)
    if (i == SIGTERM || i == SIGINT || i == SIGHUP || i == SIGPIPE)
      signal(i, SIG_IGN); /* it ends when nobody needs it any more */
  store = keys_store_new();
  for (;;) {
    struct iovec part = {text, sizeof text};
    size_t fds_n;
    ssize_t n = fd_pass_receive(0, &part, 1, &fd, 1, &fds_n, 0);
    if (n <= 0)
      break;
    struct str name = str_n(text + 1, (size_t)n - 1);
    if (text[0] == KEYS_CHANNEL && begun && fds_n)
      open_channel(fd);
    else if (fds_n)
      close(fd);
    if ((text[0] == KEYS_ALLOW_FILE || text[0] == KEYS_ALLOW_PREFIX) && !begun)
      (void)keys_store_allow(store, name, text[0] == KEYS_ALLOW_PREFIX);
    if (text[0] == KEYS_BEGIN && !begun) {
      shut_in();
      begun = true;
    }
  }
  pthread_mutex_lock(&mutex);
  alone = true;
  bool last = channels == 0;
  pthread_mutex_unlock(&mutex);
  while (!last)
    pause();
  return 0;
}
