#include "expand/foreign.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "core/ctx.h"
#include "loop/child.h"
#include "loop/stream.h"

#define FOREIGN_ARGUMENT "--foreign"
#define FOREIGN_AT_ONCE 32
#define FOREIGN_SESSIONS 64
#define FOREIGN_SESSION_WAIT 60
#define FOREIGN_OUT 3
#define FOREIGN_TEXTS_MAX 1000000
#define FOREIGN_TEXT_MAX (64u << 20)
#define FOREIGN_GRACE 5 /* seconds after which a process ends that nobody waits for any more */
#define VERDICT_MAX 4096

static bool started_by_main;

/* --- in the role's process --- */

void foreign_write(int out, const char *p, size_t n) {
  if (fd_write_all(out, p, n))
    _exit(1);
}

void foreign_say(int out, enum foreign_verdict verdict, const char *fmt, ...) {
  char text[VERDICT_MAX / 2];
  va_list ap;
  va_start(ap, fmt);
  text[0] = (char)verdict;
  int n = vsnprintf(text + 1, sizeof text - 1, fmt, ap);
  va_end(ap);
  foreign_write(out, text, n < 0 ? 1 : strlen(text));
  _exit(0);
}

static void read_exact(char *p, size_t n) {
  if (fd_read_all(STDIN_FILENO, p, n) != (ssize_t)n)
    _exit(1);
}

static uint32_t read_number(uint32_t max) {
  uint32_t n;
  read_exact((char *)&n, sizeof n);
  n = ntohl(n);
  if (n > max)
    _exit(1);
  return n;
}

static struct str read_text(struct arena *a) {
  uint32_t len = read_number(FOREIGN_TEXT_MAX);
  char *p = arena_alloc_raw(a, len + 1);
  read_exact(p, len);
  p[len] = '\0';
  return str_tainted(str_n(p, len));
}

struct str foreign_receive(struct arena *a) { return read_text(a); }

void foreign_reply(int out, struct str text) {
  uint32_t n = htonl(text.len);
  foreign_write(out, (const char *)&n, sizeof n);
  foreign_write(out, text.p, text.len);
}

/* Whoever has started a set-uid program gets nothing from it but its own rights. */
static void keep_no_privilege(void) {
  if ((getegid() != getgid() && setgid(getgid()) < 0) || (geteuid() != getuid() && setuid(getuid()) < 0))
    _exit(1);
}

static void use_null(int fd) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0 || dup2(null, fd) < 0)
    _exit(1);
  close(null);
}

static void run_role(const struct foreign_role *role, unsigned seconds) {
  alarm(seconds + FOREIGN_GRACE);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  /* Programs that it starts must not hold the connection open, nor does what it prints belong there. */
  if (dup2(STDOUT_FILENO, FOREIGN_OUT) < 0 || fcntl(FOREIGN_OUT, F_SETFD, FD_CLOEXEC) < 0)
    _exit(1);
  use_null(STDOUT_FILENO);
  uint32_t n = read_number(FOREIGN_TEXTS_MAX);
  struct arena *a = arena_new("foreign");
  struct str *v = arena_array(a, struct str, n + 1);
  for (uint32_t i = 0; i < n; i++)
    v[i] = read_text(a);
  if (!role->reads_on)
    use_null(STDIN_FILENO);
  role->run(v, (int)n, FOREIGN_OUT);
  _exit(0);
}

void foreign_main(int argc, char **argv) {
  started_by_main = true;
  if (argc != 4 || strcmp(argv[1], FOREIGN_ARGUMENT) != 0)
    return;
  keep_no_privilege();
  for (const struct foreign_role *const *r = foreign_roles; *r; r++)
    if ((*r)->run && !strcmp((*r)->name, argv[2]))
      run_role(*r, (unsigned)strtoul(argv[3], NULL, 10));
  _exit(1);
}

/* --- our side --- */

static int read_answer(struct stream *s, usec_t deadline, struct buf *out) {
  int rc;
  while ((rc = stream_fill(s, deadline)) > 0) {
    struct str data = stream_peek(s);
    buf_add(out, data);
    stream_consume(s, data.len);
    if (out->overflow)
      return -EMSGSIZE;
  }
  return rc == -ECONNRESET || rc == -EPIPE ? 0 : rc; /* its status tells */
}

static int write_number(struct stream *s, uint32_t n) {
  n = htonl(n);
  return stream_write(s, str_n((const char *)&n, sizeof n));
}

static int write_texts(struct stream *s, const struct str *v, int n) {
  int rc = write_number(s, (uint32_t)n);
  for (int i = 0; i < n && rc >= 0; i++) {
    rc = write_number(s, v[i].len);
    if (rc >= 0)
      rc = stream_write(s, v[i]);
  }
  return rc;
}

static int start(const char *role, int seconds, struct child *child, struct stream **ret) {
  char limit[16];
  int ends[2];
  if (!started_by_main)
    return -ENOSYS;
  snprintf(limit, sizeof limit, "%d", seconds);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
    return -errno;
  char *argv[] = {(char *)"martlet", (char *)FOREIGN_ARGUMENT, (char *)role, limit, NULL};
  bool stay = faccessat(AT_FDCWD, ".", X_OK, AT_EACCESS) == 0;
  struct child_spec spec = {.path = "/proc/self/exe", .argv = argv, .envp = environ, .cwd = stay ? "." : "/", .stdin_fd = ends[1],
      .stdout_fd = ends[1], .stderr_fd = STDERR_FILENO, .umask = -1, .new_group = true, .effective_ids = true};
  int rc = child_start(&spec, child);
  close(ends[1]);
  if (rc < 0) {
    close(ends[0]);
    return rc;
  }
  *ret = stream_new(ends[0], -1);
  stream_set_write_timeout(*ret, seconds);
  return 0;
}

struct feeding {
  const struct str *v;
  int n;
  int (*more)(void *arg, struct stream *to);
  void *arg;
};

/* A process that ends early has perhaps said why, so that trouble of sending counts only when nothing else is wrong. */
static int converse(struct stream *s, const struct feeding *f, usec_t deadline, struct buf *answer) {
  int rc = write_texts(s, f->v, f->n);
  if (rc >= 0 && f->more)
    rc = f->more(f->arg, s);
  if (rc >= 0)
    rc = stream_flush(s);
  if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
    return rc;
  shutdown(stream_fd(s), SHUT_WR);
  int sent = rc < 0 ? -ECHILD : 0;
  rc = read_answer(s, deadline, answer);
  return rc < 0 ? rc : answer->len > 0 ? 0 : sent;
}

static int call_once(const char *role, const struct feeding *f, int seconds, usec_t deadline, struct buf *answer) {
  struct child child;
  struct stream *s = NULL;
  int status = 0, rc = start(role, seconds, &child, &s);
  if (rc < 0)
    return rc;
  rc = converse(s, f, deadline, answer);
  if (rc == 0)
    rc = child_wait(&child, deadline, &status);
  stream_free(s);
  if (rc < 0) {
    child_kill(&child, SIGKILL);
    child_release(&child);
    return rc;
  }
  return status != 0 ? -ECHILD : 0;
}

int foreign_feed(const char *role, const struct str *v, int n, int (*more)(void *arg, struct stream *to), void *arg, int seconds,
    struct buf *answer) {
  static struct fiber_sem slots;
  static bool ready;
  if (!ready)
    fiber_sem_init(&slots, FOREIGN_AT_ONCE);
  ready = true;
  usec_t deadline = deadline_in(seconds);
  int rc = fiber_sem_acquire(&slots, deadline);
  if (rc < 0)
    return rc;
  rc = call_once(role, &(struct feeding){v, n, more, arg}, seconds, deadline, answer);
  fiber_sem_release(&slots);
  return rc;
}

int foreign_call(const char *role, const struct str *v, int n, int seconds, struct buf *answer) {
  return foreign_feed(role, v, n, NULL, NULL, seconds, answer);
}

/* --- conversations --- */

struct foreign_session {
  struct child child;
  struct stream *stream;
};
static struct fiber_sem sessions;

int foreign_open(const char *role, const struct str *v, int n, int seconds, struct foreign_session **ret) {
  static bool ready;
  if (!ready)
    fiber_sem_init(&sessions, FOREIGN_SESSIONS);
  ready = true;
  int rc = fiber_sem_acquire(&sessions, deadline_in(FOREIGN_SESSION_WAIT));
  if (rc < 0)
    return rc;
  struct foreign_session *s = xcalloc(1, sizeof *s);
  rc = start(role, seconds, &s->child, &s->stream);
  if (rc < 0) {
    free(s);
    fiber_sem_release(&sessions);
    return rc;
  }
  *ret = s;
  rc = write_texts(s->stream, v, n);
  if (rc >= 0)
    return 0;
  foreign_close(s);
  *ret = NULL;
  return rc;
}

int foreign_exchange(struct foreign_session *s, struct arena *a, struct str in, size_t max, usec_t deadline, struct str *ret) {
  uint32_t n;
  int rc = write_number(s->stream, in.len);
  if (rc >= 0)
    rc = stream_write(s->stream, in);
  if (rc >= 0)
    rc = stream_flush(s->stream);
  if (rc >= 0)
    rc = stream_read_exact(s->stream, (char *)&n, sizeof n, deadline);
  if (rc < 0)
    return rc;
  n = ntohl(n);
  if (n > max)
    return -EMSGSIZE;
  char *p = arena_alloc_raw(a, n + 1);
  rc = stream_read_exact(s->stream, p, n, deadline);
  p[n] = '\0';
  *ret = str_tainted(str_n(p, n));
  return rc < 0 ? rc : 0;
}

void foreign_close(struct foreign_session *s) {
  if (!s)
    return;
  stream_free(s->stream);
  child_kill(&s->child, SIGKILL);
  child_release(&s->child);
  free(s);
  fiber_sem_release(&sessions);
}

const char *foreign_error(int error) {
  return error == -ETIMEDOUT ? "timed out" : error == -EMSGSIZE ? "its result is too long"
      : error == -ECHILD || error == 0 ? "its process ended before it returned" : strerror(-error);
}

int foreign_ask(struct ctx *c, const char *role, const struct str *v, int n, int seconds, bool *ret) {
  struct buf b;
  buf_init(&b, c->arena, VERDICT_MAX);
  int rc = foreign_call(role, v, n, seconds, &b);
  if (rc < 0 || b.len == 0)
    return ctx_fail(c, rc == -ETIMEDOUT ? OUTCOME_DEFER : OUTCOME_ERROR, "%s: %s", role, foreign_error(rc));
  *ret = b.p[0] == FOREIGN_YES;
  if (*ret || b.p[0] == FOREIGN_NO)
    return OUTCOME_OK;
  return ctx_fail(c, b.p[0] == FOREIGN_DEFER ? OUTCOME_DEFER : OUTCOME_ERROR, "%s: %.*s", role, STRF(str_from(buf_str(&b), 1)));
}
