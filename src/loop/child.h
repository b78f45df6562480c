/* Child processes under fibers: commands of ${run}, pipe transports, filters.
Started by vfork-like spawn; reaped through the loop, no zombie left, no
global SIGCHLD handler needed by callers. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"

struct arena;

#define CHILD_MEMORY_MAX (512u << 20)

struct child_spec {
  const char *path;         /* absolute, no search */
  char *const *argv;
  char *const *envp;        /* NULL: empty environment */
  const char *cwd;          /* NULL: "/" */
  int stdin_fd;             /* -1: a pipe is made (ret->in) ; -2: /dev/null */
  int stdout_fd;            /* same (ret->out) */
  int stderr_fd;            /* same; -3: the same as stdout */
  int umask;                /* -1: unchanged */
  bool set_ids;             /* change to uid/gid/groups; needs root */
  unsigned uid, gid;
  const unsigned *groups;   /* NULL with set_ids: none but gid */
  int groups_count;
  bool effective_ids;       /* the effective ids are to be its only ones; its groups stay */
  bool new_group;           /* own process group (with pid as its id), so that it can be killed whole */
  bool restrict_memory;     /* address space of at most CHILD_MEMORY_MAX, no core file */
};

struct child {
  int pid; /* 0: it has been waited for, or was released */
  int in, out, err; /* our ends (non-blocking), or -1 */
  int pidfd; /* of this room */
  bool group;
};

/* 0 or -errno (also of the exec itself). Whoever starts a child must end it with
child_wait that returns 0, or with child_release. The child gets default signal
handlers, no blocked signals and no other descriptors than 0, 1 and 2. */
int child_start(const struct child_spec *spec, struct child *ret);
/* Waits for the end. [suspends] *ret_status as of waitpid. 0, -ETIMEDOUT, -ECANCELED.
After 0 our ends are closed too: read what is wanted from them before. */
int child_wait(struct child *c, usec_t deadline, int *ret_status);
/* Signals the child (its group if new_group) and closes our ends. */
void child_kill(struct child *c, int signo);
/* Closes our ends and leaves the child to the loop, which reaps it when it ends. No suspension. */
void child_release(struct child *c);

/* Runs to the end: feeds `input`, collects at most max bytes of stdout (and
stderr if merged: stderr_fd -3, or -1, which means the same here). Output beyond
max: -EMSGSIZE; at the deadline -ETIMEDOUT; then the child (its group if
new_group) is killed. *ret_output is what came until then. The output is tainted
by the caller's rule. [suspends] */
int child_run(const struct child_spec *spec, struct arena *a, struct str input, size_t max, usec_t deadline,
    struct str *ret_output, int *ret_status);
