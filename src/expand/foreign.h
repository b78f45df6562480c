/* Code that is not ours and may block, crash or take the process with it (loaded objects, PAM modules, client libraries): called
in a process of its own. That is a new program, this one under another argument, not a fork: a thread of ours may hold a lock
of OpenSSL or malloc at that moment, which nobody would ever release in the copy. */
#pragma once

#include "base/buf.h"
#include "loop/fiber.h"

struct arena;
struct ctx;
struct stream;

/* What the program can do when it is started so; without run(), a library was missing at build time. run() gets the texts of foreign_call (each with a NUL behind its end), writes
its answer to `out` and returns. It has default signals, no other descriptors than 0, 1, 2 and `out`, and standard input at
its end, or with `reads_on` what more() of foreign_feed sent. */
struct foreign_role {
  const char *name;
  void (*run)(const struct str *v, int n, int out);
  bool reads_on;
};
/* All of them, ended by NULL (src/registry.c). */
extern const struct foreign_role *const foreign_roles[];

/* The first call of main(). A process that was started for a role does its work here, and ends. Where this has not been called
(programs of unit tests), foreign_call fails with -ENOSYS. */
void foreign_main(int argc, char **argv);

/* Has the role run with n texts. What it wrote comes into *answer, up to that buffer's maximum. The process has our effective
ids for good; it is killed with its process group after `seconds`. At most 32 at once.
0, -ETIMEDOUT, -EMSGSIZE, -ECHILD (it died, or ended with another code than 0), -ECANCELED, another -errno. [suspends] */
int foreign_call(const char *role, const struct str *v, int n, int seconds, struct buf *answer);
/* The same; more() writes behind the texts what the role reads from its standard input. */
int foreign_feed(const char *role, const struct str *v, int n, int (*more)(void *arg, struct stream *to), void *arg, int seconds,
    struct buf *answer);
/* A conversation: a process that answers each text by one. At most 64 at once, for which others wait a minute. foreign_open: 0 or
-errno, and what foreign_exchange gave goes on in the same way; it ends in `seconds` at the latest. [suspends] */
struct foreign_session;
int foreign_open(const char *role, const struct str *v, int n, int seconds, struct foreign_session **ret);
/* 0 and *ret in `a`, tainted; -ETIMEDOUT, -EMSGSIZE beyond `max`, -EPIPE (it has ended), -ECANCELED, another -errno: no more comes
after that. [suspends] */
int foreign_exchange(struct foreign_session *s, struct arena *a, struct str in, size_t max, usec_t deadline, struct str *ret);
/* Kills the process. NULL is allowed. No suspension. */
void foreign_close(struct foreign_session *s);

/* Why a call failed, for error texts. */
const char *foreign_error(int error);

/* In the process of a conversation: the next text; the process ends when there is none. And an answer. */
struct str foreign_receive(struct arena *a);
void foreign_reply(int out, struct str text);

/* In the role's process: all of it, or the process ends. */
void foreign_write(int out, const char *p, size_t n);

/* For conditions that check a password. In the role's process: the verdict, once; `text` says why there is none. */
enum foreign_verdict { FOREIGN_YES = 'y', FOREIGN_NO = 'n', FOREIGN_DEFER = 'd', FOREIGN_ERROR = 'e' };
void foreign_say(int out, enum foreign_verdict verdict, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Calls and waits for the verdict: 0 and *ret, or OUTCOME_DEFER or _ERROR with "ROLE: TEXT". [suspends] */
int foreign_ask(struct ctx *c, const char *role, const struct str *v, int n, int seconds, bool *ret);
