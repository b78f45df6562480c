/* LMTP's client side for the lmtp transport: blocking, over one descriptor, a
command and its reply at a time (RFC 2033). Each read and write has a time
limit; replies are bounded. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "deliver/errors.h"
#include "transport/plan.h"

#define REPLY_MAX 4096
#define LINES_MAX 128

struct lmtp {
  struct arena *arena;
  const struct plan *plan;
  struct plan_result *result;
  int fd;
  const char *last;        /* what the next reply is for, as log lines say it */
  char in[REPLY_MAX];
  size_t used;
  int64_t written;         /* of the message */
  int code;
  struct str reply;        /* all lines, joined by "\n", code included */
};

static bool lost(struct lmtp *l, const char *what) {
  int e = errno;
  if (e == EAGAIN || e == EWOULDBLOCK || e == ETIMEDOUT)
    plan_fail(l->arena, l->result, OUTCOME_DEFER, ERROR_UNKNOWN, "LMTP timeout after %s%s", l->last,
        l->written ? str_printf(l->arena, " (%lld bytes written)", (long long)l->written).p : "");
  else if (e == 0 || e == EPIPE || e == ECONNRESET)
    plan_fail(l->arena, l->result, OUTCOME_DEFER, ERROR_UNKNOWN, "LMTP connection closed after %s", l->last);
  else
    plan_fail(l->arena, l->result, OUTCOME_DEFER, e, "LMTP %s error after %s: %s", what, l->last, strerror(e));
  return false;
}

static bool send_text(struct lmtp *l, struct str s) {
  while (s.len) {
    ssize_t n = send(l->fd, s.p, s.len, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return lost(l, "write");
    s = str_from(s, (size_t)n);
  }
  return true;
}

/* A line without its end; false: none within the limits. */
static bool read_line(struct lmtp *l, struct str *ret) {
  for (;;) {
    char *nl = memchr(l->in, '\n', l->used);
    if (nl) {
      size_t n = (size_t)(nl - l->in), take = n + 1;
      *ret = str_dup(l->arena, str_rtrim(str_n(l->in, n)));
      memmove(l->in, l->in + take, l->used - take);
      l->used -= take;
      return true;
    }
    if (l->used == sizeof l->in) {
      plan_fail(l->arena, l->result, OUTCOME_DEFER, ERROR_SMTP_FORMAT, "LMTP reply after %s is too long", l->last);
      return false;
    }
    ssize_t n = read(l->fd, l->in + l->used, sizeof l->in - l->used);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      if (n == 0)
        errno = 0;
      return lost(l, "read");
    }
    l->used += (size_t)n;
  }
}

/* A whole reply into code and reply. */
static bool read_reply(struct lmtp *l) {
  struct str line;
  l->reply = STR_EMPTY;
  for (int i = 0; i < LINES_MAX; i++) {
    uint64_t code;
    if (!read_line(l, &line))
      return false;
    if (line.len < 3 || !str_to_u64(str_slice(line, 0, 3), &code) || code < 200 || code > 599 ||
        (line.len > 3 && line.p[3] != ' ' && line.p[3] != '-'))
      break;
    l->reply = l->reply.len ? str_printf(l->arena, "%.*s\n%.*s", STRF(l->reply), STRF(line)) : line;
    l->code = (int)code;
    if (line.len == 3 || line.p[3] == ' ')
      return true;
  }
  plan_fail(l->arena, l->result, OUTCOME_DEFER, ERROR_SMTP_FORMAT, "Malformed LMTP response after %s: %.*s", l->last, STRF(line));
  return false;
}

static struct str refusal(struct lmtp *l) {
  return str_printf(l->arena, "LMTP error after %s: %.*s", l->last, STRF(l->reply));
}

/* A reply with that first digit; another one is the outcome of all, with that error number if it is a temporary one. */
static bool expect(struct lmtp *l, int digit, int error_4xx) {
  if (!read_reply(l))
    return false;
  if (l->code / 100 == digit)
    return true;
  plan_fail(l->arena, l->result, l->code >= 500 ? OUTCOME_FAIL : OUTCOME_DEFER, l->code / 100 == 4 ? error_4xx : ERROR_UNKNOWN, "%s",
      refusal(l).p);
  return false;
}

static bool command(struct lmtp *l, struct str text) {
  l->last = text.p;
  return send_text(l, str_cat(l->arena, text, STR("\r\n")));
}

static void note(struct lmtp *l, int64_t i, enum outcome o, int error, struct str text) {
  struct str *v = l->result->recipients + i * 3;
  v[0] = str_printf(l->arena, "%d", (int)o);
  v[1] = str_printf(l->arena, "%d", error);
  v[2] = text;
}

static bool is_pending(const struct lmtp *l, int64_t i) { return str_eq_c(l->result->recipients[i * 3 + 2], "pending"); }

/* What those get that have no answer of their own. */
static void settle(struct lmtp *l) {
  for (int64_t i = 0; i < l->plan->recipients_n; i++)
    if (is_pending(l, i))
      note(l, i, (enum outcome)l->result->outcome, (int)l->result->basic_errno, l->result->message);
}

static bool offers(struct str reply, const char *keyword) {
  while (str_is_set(reply) && reply.len) {
    struct str line = str_cut(&reply, '\n');
    if (line.len > 4 && str_ieq_c(str_trim(str_from(line, 4)), keyword))
      return true;
  }
  return false;
}

/* RCPT for each; false: the connection is gone. *ret_accepted of them may have the message. */
static bool send_recipients(struct lmtp *l, bool ignore_quota, int64_t *ret_accepted) {
  for (int64_t i = 0; i < l->plan->recipients_n; i++) {
    struct str rcpt = str_printf(l->arena, "RCPT TO:<%.*s>", STRF(l->plan->recipients[i]));
    if (!send_text(l, str_printf(l->arena, "%.*s%s\r\n", STRF(rcpt), ignore_quota ? " IGNOREQUOTA" : "")))
      return false;
    l->last = rcpt.p;
    if (!read_reply(l))
      return false;
    if (l->code / 100 == 2)
      (*ret_accepted)++;
    else
      note(l, i, l->code >= 500 ? OUTCOME_FAIL : OUTCOME_DEFER, l->code >= 500 ? 0 : ERROR_RCPT_4XX, refusal(l));
  }
  return true;
}

static void send_message(struct lmtp *l, int body_fd) {
  int64_t size;
  l->last = "sending data block";
  int e = plan_write_message(l->plan, body_fd, l->fd, &size);
  if (e <= PLAN_FILTER_TIMEOUT) {
    plan_write_failed(l->arena, l->result, e, "");
    return;
  }
  if (e) {
    errno = -e;
    (void)lost(l, "write");
    return;
  }
  if (!send_text(l, STR(".\r\n")))
    return;
  l->last = "end of data";
  l->written = size + 3;
  for (int64_t i = 0; i < l->plan->recipients_n; i++) {
    if (!is_pending(l, i))
      continue;
    if (!read_reply(l)) {
      l->result->basic_errno = ERROR_UNKNOWN;
      return;
    }
    if (l->code / 100 == 2)
      note(l, i, OUTCOME_OK, 0, l->reply);
    else
      note(l, i, l->code >= 500 ? OUTCOME_FAIL : OUTCOME_DEFER, l->code >= 500 ? 0 : l->code >= 400 ? ERROR_DATA_4XX : ERROR_UNKNOWN, refusal(l));
  }
}

static void converse(struct lmtp *l, int body_fd) {
  const struct plan *p = l->plan;
  int64_t accepted = 0;
  l->last = "initial connection";
  bool alive = expect(l, 2, ERROR_UNKNOWN) && command(l, str_printf(l->arena, "LHLO %.*s", STRF(p->hostname))) &&
               expect(l, 2, ERROR_UNKNOWN);
  bool ignore_quota = alive && p->ignore_quota && offers(l->reply, "IGNOREQUOTA");
  alive = alive && command(l, str_printf(l->arena, "MAIL FROM:<%.*s>", STRF(p->sender))) && expect(l, 2, ERROR_MAIL_4XX) &&
          send_recipients(l, ignore_quota, &accepted);
  if (alive && accepted && command(l, STR("DATA")) && expect(l, 3, ERROR_DATA_4XX))
    send_message(l, body_fd);
  settle(l);
  if (l->result->basic_errno == ERROR_SMTP_FORMAT)
    return; /* nobody who speaks LMTP */
  l->last = "QUIT";
  struct plan_result unused = {0};
  l->result = &unused;
  if (send_text(l, STR("QUIT\r\n")))
    (void)read_reply(l); /* what it says does not matter any more; but it may want to say it */
}

static int connect_to(struct lmtp *l) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (l->plan->path.len >= sizeof to.sun_path)
    return -ENAMETOOLONG;
  memcpy(to.sun_path, l->plan->path.p, l->plan->path.len);
  l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return l->fd < 0 || connect(l->fd, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

static pid_t start_command(struct lmtp *l) {
  int ends[2];
  char **argv = arena_array(l->arena, char *, (size_t)l->plan->argv_n + 1);
  for (int64_t i = 0; i < l->plan->argv_n; i++)
    argv[i] = str_dup_c(l->arena, l->plan->argv[i]);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
    return -1;
  pid_t pid = fork();
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    setpgid(0, 0);
    umask(022); /* the agent's processes have none */
    dup2(ends[1], 0);
    dup2(ends[1], 1);
    for (int fd = 3; fd < 256; fd++)
      close(fd);
    execve(argv[0], argv, environ);
    _exit(127);
  }
  if (pid > 0)
    setpgid(pid, pid);
  close(ends[1]);
  l->fd = ends[0];
  return pid;
}

void plan_execute_lmtp(struct arena *a, const struct plan *p, int body_fd, struct plan_result *r) {
  struct lmtp *l = arena_new_of(a, struct lmtp);
  *l = (struct lmtp){.arena = a, .plan = p, .result = r, .fd = -1};
  struct timeval limit = {.tv_sec = p->timeout > 0 && p->timeout < 86400 ? p->timeout : 86400};
  pid_t child = 0;
  int status;
  r->recipients = arena_array(a, struct str, (size_t)p->recipients_n * 3 + 1);
  r->recipients_n = p->recipients_n * 3;
  for (int64_t i = 0; i < p->recipients_n; i++)
    note(l, i, OUTCOME_DEFER, 0, STR("pending"));
  if (p->argv_n) {
    child = start_command(l);
    if (child < 0)
      plan_fail(a, r, OUTCOME_DEFER, errno, "could not start the command: %s", strerror(errno));
  } else {
    int e = connect_to(l);
    if (e)
      plan_fail(a, r, OUTCOME_DEFER, ERROR_UNKNOWN, "Failed to connect to socket %.*s for %.*s transport: %s", STRF(p->path), STRF(p->transport),
          strerror(-e));
  }
  if (r->outcome != OUTCOME_OK) {
    settle(l);
  } else {
    setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    converse(l, body_fd);
  }
  if (l->fd >= 0)
    close(l->fd);
  if (child <= 0)
    return;
  if (r->outcome != OUTCOME_OK)
    kill(-child, SIGKILL);
  for (int i = 0; i < 50 && waitpid(child, &status, WNOHANG) == 0; i++)
    usleep(100000); /* it has seen the end of its input */
  kill(-child, SIGKILL);
  (void)!waitpid(child, &status, 0);
}
