/* Code that is not ours and may block, crash or take the process with it (loaded objects, PAM modules, client libraries):
called in a child process of its own. */
#pragma once

#include "base/buf.h"

struct ctx;

/* Calls run(arg, out) in a forked child, on a thread with a stack of 8 MiB (a fiber's is too small for foreign code), with
default signals and no descriptors but 0, 1, 2 and `out`. What it wrote to `out` comes into *answer, up to that buffer's
maximum. The child ends when run returns, and is killed with its process group after `seconds`. At most 32 at once.
0, -ETIMEDOUT, -EMSGSIZE, -ECHILD (it died, or ended with another code than 0), -ECANCELED, another -errno. [suspends] */
int foreign_call(void (*run)(void *arg, int out), void *arg, int seconds, struct buf *answer);
/* In the child: all of it, or the process ends. */
void foreign_write(int out, const char *p, size_t n);
/* Why a call failed, for error texts. */
const char *foreign_error(int error);

/* For conditions that check a password. In the child: the verdict, once; `text` says why there is none. */
enum foreign_verdict { FOREIGN_YES = 'y', FOREIGN_NO = 'n', FOREIGN_DEFER = 'd', FOREIGN_ERROR = 'e' };
void foreign_say(int out, enum foreign_verdict verdict, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Calls and waits for the verdict: 0 and *ret, or OUTCOME_DEFER or _ERROR with "NAME: TEXT". [suspends] */
int foreign_ask(struct ctx *c, const char *name, void (*run)(void *arg, int out), void *arg, int seconds, bool *ret);
