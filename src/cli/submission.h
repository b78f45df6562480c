/* Commands of users who may not write the spool: the program hands what it was asked, and its standard input, to the daemon
through the local socket (daemon/local_wire.h); the daemon does it as if root had started the command, knowing from the
kernel who asks. docs/internals/submission.md. */
#pragma once

#include "base/buf.h"
#include "cli/process.h"
#include "daemon/daemon.h"

#define SUBMISSION_VERSION 2u
#define SUBMISSION_ARGS_MAX 100000
#define SUBMISSION_SECONDS_MAX INT32_MAX

/* --- the request: the options that matter, and the arguments --- */

/* The maximum of `out` should be LOCAL_REQUEST_MAX. */
void submission_encode(const struct cli *c, struct buf *out);
/* Strings are in `a` and tainted. *ret_error says what is wrong with one that is refused. */
bool submission_decode(struct arena *a, struct str text, struct cli *ret, const char **ret_error);

/* --- the user's end --- */

/* A mode the daemon can serve. */
bool submission_possible(const struct process *p);
/* May this process not do it itself? */
bool submission_needed(const struct process *p);
/* Before the configuration is read, which ordinary users perhaps may not read: true: it was done, *ret_status is the exit
status; false: no daemon answered, and this user can read it. */
bool submission_try_default(struct process *p, int *ret_status);
/* For those who could do it themselves, but a running daemon is quicker at it: -bpc. False: there is none. */
bool submission_try_count(struct process *p, int *ret_status);
/* Through the daemon of p's configuration. Exit status; EX_TEMPFAIL when there is none. */
int submission_send(struct process *p);

/* --- the daemon's end --- */

/* [suspends] */
void submission_serve(const struct local_caller *who, int fd);
