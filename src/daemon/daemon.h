/* The daemon (DESIGN §4): a master that touches no mail, workers, the agent. */
#pragma once

#include <sys/types.h>
#include "base/arena.h"
#include "config/config.h"
#include "daemon/listen.h"
#include "daemon/scoreboard.h"

struct ctx;
struct message;

/* One periodic queue runner. */
struct daemon_queue_run {
  bool two_stage, first_only, force, force_frozen, local_only;
  struct str queue_name;
  int64_t interval; /* seconds */
};

struct local_caller;

/* EX_TEMPFAIL: exit status of commands that may succeed later. */
#define DAEMON_TRY_AGAIN 75

struct daemon_params {
  const struct config_source *source; /* to read the configuration again at SIGHUP */
  struct config *config;
  struct str pid_file;       /* -oP; unset: the configuration's, unless there is no need for one */
  struct str listen;         /* -oX */
  int inherited_fd;          /* -bw: the listening socket, or -1 */
  bool listening;            /* -bd: false with -q<time> alone */
  bool foreground;
  bool all_tls;              /* -tls-on-connect */
  bool no_delivery;          /* -N */
  bool queue_only;           /* -odq */
  bool queue_smtp;           /* -odqs */
  const struct daemon_queue_run *runs;
  size_t runs_n;
  /* Serves a caller of the local socket (daemon/local.h) in a fiber of a worker; closes fd. NULL: there is no such socket. */
  void (*serve_local)(const struct local_caller *who, int fd);
  void (*ready)(void *arg);  /* called in the master when the workers run; may be NULL */
  void *ready_arg;
};

/* Runs until it is told to stop. Exit status. */
int daemon_run(struct arena *a, struct daemon_params *p);

/* --- between master and workers: one datagram each --- */

enum daemon_message_type {
  DAEMON_NEW_MESSAGE,   /* id: a message is on disk that nobody delivers yet (sendmail, -M…) */
  DAEMON_RAMP,          /* id: as NEW_MESSAGE, one of the many that a two-stage queue run has found to wait for one host */
  DAEMON_CHANGED_MESSAGE, /* id: a command has made, changed or removed a message's files */
  DAEMON_QUEUE_RUN,     /* run */
  DAEMON_DRAIN,         /* stop accepting, end when the work in hand is done */
  DAEMON_AGENT,         /* a new channel to the agent comes along */
  DAEMON_REOPEN_LOGS,
  DAEMON_WHAT,          /* from exiwhat, with a pipe for the answer (what.h) */
  DAEMON_VALIDATOR,     /* to a worker: a channel to the validating resolver comes along; from one: it says nothing any more */
  DAEMON_KEYS,          /* a new channel to the keys process comes along */
  DAEMON_FILES,         /* a command is going to look at the spool: messages in memory get files, then the pipe that comes along is closed */
};

struct daemon_message {
  uint32_t type;
  char id[24];
  char queue_name[64];
  struct {
    bool two_stage, first_only, force, force_frozen, local_only;
    char select_recipient[256], select_sender[256];
  } run;
};

int daemon_message_send(int channel, const struct daemon_message *m, int fd);
/* 1, 0 at end of file, -errno. *ret_fd: -1 or a descriptor. */
int daemon_message_receive(int channel, struct daemon_message *ret, int *ret_fd);

/* --- a worker --- */

struct worker_params {
  struct daemon_params *daemon;
  int index, count;          /* this worker among all */
  int control;               /* channel to the master */
  struct scoreboard *board;
  struct listeners *listeners;
  int local_socket;          /* -1: none */
  int keys;                  /* channel to the keys process, or -1 */
  bool with_agent;
  bool restarted;            /* another worker with this index has died */
};
/* The worker's process. Returns its exit status. */
int worker_run(const struct worker_params *p);

/* Who has called the local socket: the kernel's word. */
struct local_caller {
  struct worker *worker;
  struct config *config;
  uint32_t uid, gid;
  const gid_t *groups;
  int groups_n;
};

/* How a message that a session of a worker has committed is to be delivered. */
struct daemon_delivery {
  bool wait;                 /* -odi: until the first attempt is over */
  bool queue_smtp;           /* -odqs */
  bool no_delivery;          /* -N */
};
/* Takes the message over. `queue`: leave it for a queue run. [suspends] */
void daemon_take_message(struct ctx *c, struct message *m, bool queue, const struct daemon_delivery *how);
/* The configuration's reasons for not delivering at once (queue_only, queue_only_load …). */
struct main_options;
/* Does a file of queue_only_file exist? */
bool daemon_queue_only_file(const struct main_options *o, struct arena *a);
bool daemon_must_queue(struct ctx *c, int messages_in_connection, struct str *ret_why);

/* Tells the daemon of this spool (if one runs) that a message waits on disk. false: nobody listens. */
bool daemon_notify(const struct config *c, const char *id, struct str queue_name);
/* The same for a message that stands for many that go to one host: whoever delivers it takes them along. */
bool daemon_notify_ramp(const struct config *c, const char *id, struct str queue_name);
/* The same when a message's files are other ones, or gone; waits a moment when the daemon is busy. */
bool daemon_notify_changed(const struct config *c, const char *id, struct str queue_name);
/* Before a command looks at the spool. When this returns, what a daemon of this spool had taken has files, and what it is not delivering
is not locked; or some seconds have gone by. [suspends] */
void daemon_show_messages(const struct config *c);
/* In a worker: messages of all workers' queues, without named ones. [no suspension] */
size_t daemon_queued(const struct local_caller *who);
/* The notifier socket of the daemon: bound by the master. Path in `a`. */
struct str daemon_notifier_path(const struct config *c, struct arena *a);

/* Which of n workers owns a message: by its id, so that every process agrees without asking. */
int daemon_owner(const char *id, int n);
