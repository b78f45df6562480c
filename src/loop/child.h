/* Child processes under fibers: commands of ${run}, pipe transports, filters.
Started by vfork-like spawn; reaped through the loop, no zombie left, no
global SIGCHLD handler needed by callers. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"

struct arena;

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
  bool new_group;           /* own process group, so that it can be killed whole */
  bool restrict_memory;     /* with rlimits of limits below */
};

struct child {
  int pid;
  int in, out, err; /* our ends, or -1 */
};

/* 0 or -errno (also of the exec itself). */
int child_start(const struct child_spec *spec, struct child *ret);
/* Waits for the end. [suspends] *ret_status as of waitpid. 0, -ETIMEDOUT, -ECANCELED. */
int child_wait(struct child *c, usec_t deadline, int *ret_status);
/* Signals the child (its group if new_group) and closes our ends. */
void child_kill(struct child *c, int signo);

/* Runs to the end: feeds `input`, collects at most max bytes of stdout (and
stderr if merged). Output beyond max: -EMSGSIZE, the child is killed. The
output is tainted by the caller's rule. [suspends] */
int child_run(const struct child_spec *spec, struct arena *a, struct str input, size_t max, usec_t deadline,
    struct str *ret_output, int *ret_status);
