/* Writing a message to a local file or pipe: head, body, tail, with check
strings escaped and line ends turned where the transport wants it. */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "deliver/errors.h"
#include "transport/plan.h"

#define CHUNK (64u << 10)

struct sink {
  const struct plan *plan;
  int fd;
  int64_t size;
  char buf[CHUNK];
  size_t used;
  size_t line_pos;  /* bytes of the current line seen so far, up to the check string's length */
  bool matching;    /* the line so far equals the start of check_string */
};

static int sink_flush(struct sink *s) {
  int e = s->fd < 0 ? 0 : fd_write_all(s->fd, s->buf, s->used);
  if (!e)
    s->size += (int64_t)s->used;
  s->used = 0;
  return e;
}

static int sink_put(struct sink *s, const char *p, size_t n) {
  while (n) {
    size_t room = sizeof s->buf - s->used, take = n < room ? n : room;
    memcpy(s->buf + s->used, p, take);
    s->used += take;
    p += take;
    n -= take;
    if (s->used == sizeof s->buf) {
      int e = sink_flush(s);
      if (e)
        return e;
    }
  }
  return 0;
}

/* One piece of a line (without its LF). At a line's start the check string is looked for, across pieces. */
static int put_line_part(struct sink *s, const char *p, size_t n) {
  struct str check = s->plan->check_string;
  int e = 0;
  while (n && s->matching) {
    if (*p != check.p[s->line_pos]) {
      s->matching = false;
      if ((e = sink_put(s, check.p, s->line_pos)))
        return e;
      break;
    }
    s->line_pos++;
    p++;
    n--;
    if (s->line_pos == check.len) {
      s->matching = false;
      if ((e = sink_put(s, s->plan->escape_string.p, s->plan->escape_string.len)))
        return e;
    }
  }
  return sink_put(s, p, n);
}

static int end_line(struct sink *s) {
  int e = 0;
  if (s->matching && s->line_pos)
    e = sink_put(s, s->plan->check_string.p, s->line_pos);
  s->line_pos = 0;
  s->matching = s->plan->check_string.len > 0;
  return e ? e : sink_put(s, s->plan->use_crlf ? "\r\n" : "\n", s->plan->use_crlf ? 2 : 1);
}

static int put_text(struct sink *s, const char *p, size_t n) {
  while (n) {
    const char *nl = memchr(p, '\n', n);
    size_t part = nl ? (size_t)(nl - p) : n;
    int e = put_line_part(s, p, part);
    if (!e && nl)
      e = end_line(s);
    if (e)
      return e;
    p += part + (nl != NULL);
    n -= part + (nl != NULL);
  }
  return 0;
}

static int finish_partial(struct sink *s) {
  if (!s->matching || !s->line_pos)
    return 0;
  s->matching = false;
  return sink_put(s, s->plan->check_string.p, s->line_pos);
}

/* Head and body as they are in the spool. */
static int put_message(struct sink *s, bool plain, int body_fd) {
  const struct plan *p = s->plan;
  struct str head = str_from(p->head, (size_t)p->prefix_length);
  int e = plain ? sink_put(s, head.p, head.len) : put_text(s, head.p, head.len);
  if (e || !p->body_length || body_fd < 0)
    return e;
  off_t at = p->body_offset;
  char *chunk = xmalloc(CHUNK);
  s->matching = p->check_string.len > 0;
  s->line_pos = 0;
  for (;;) {
    ssize_t n = pread(body_fd, chunk, CHUNK, at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      e = -errno;
    if (n <= 0)
      break;
    at += n;
    if ((e = plain ? sink_put(s, chunk, (size_t)n) : put_text(s, chunk, (size_t)n)))
      break;
  }
  free(chunk);
  return e;
}

static int put_filtered(void *arg, const char *text, size_t n) { return put_text(arg, text, n); }

int plan_write_message(const struct plan *p, int body_fd, int fd, int64_t *ret_size) {
  struct sink *s = xmalloc(sizeof *s);
  *s = (struct sink){.plan = p, .fd = fd};
  bool plain = !p->check_string.len && !p->use_crlf;
  struct str prefix = str_slice(p->head, 0, (size_t)p->prefix_length), tail = str_is_set(p->tail) ? p->tail : STR_EMPTY;
  /* Prefix and suffix may themselves be what is looked for: a "From " line, the end of a BSMTP message. */
  struct plan unchecked = *p;
  unchecked.check_string = STR_EMPTY;
  s->plan = &unchecked;
  int e = plain ? sink_put(s, prefix.p, prefix.len) : put_text(s, prefix.p, prefix.len);
  s->plan = p;
  s->matching = p->check_string.len > 0 && prefix.len;
  if (!e)
    e = p->filter_n ? plan_run_filter(p, body_fd, put_filtered, s) : put_message(s, plain, body_fd);
  if (!e)
    e = finish_partial(s);
  if (!e) {
    s->matching = false;
    s->plan = &unchecked;
    e = plain ? sink_put(s, tail.p, tail.len) : put_text(s, tail.p, tail.len);
  }
  if (!e)
    e = sink_flush(s);
  *ret_size = s->size;
  free(s);
  return e;
}

void plan_write_failed(struct arena *a, struct plan_result *r, int error, const char *where) {
  const char *space = *where ? " " : "";
  int code = PLAN_FILTER_FAILED(0) - error;
  if (error == PLAN_FILTER_TIMEOUT)
    plan_fail(a, r, OUTCOME_DEFER, ETIMEDOUT, "%s%s%s", *where ? "error" : "transport filter timeout", space, where);
  else if (code >= 0)
    plan_fail(a, r, OUTCOME_DEFER, ERROR_FILTER_FAIL, "%s filter process failed (%d)%s%s%s", *where ? "transport" : "Transport", code,
        space, where, code == 127 ? ": unable to execute command" : "");
  else
    plan_fail(a, r, OUTCOME_DEFER, -error, "%s%s%s", error == -EDQUOT ? "mailbox is full (system quota exceeded)" : strerror(-error),
        space, where);
  r->quota_exceeded = error == -EDQUOT;
}

int plan_make_directories(const struct plan *p, struct str directory, mode_t mode) {
  char path[PATH_MAX];
  if (directory.len >= sizeof path)
    return -ENAMETOOLONG;
  memcpy(path, directory.p, directory.len);
  path[directory.len] = 0;
  for (size_t i = 1; i <= directory.len; i++) {
    if (path[i] && path[i] != '/')
      continue;
    char keep = path[i];
    path[i] = 0;
    if (mkdir(path, mode) < 0 && errno != EEXIST) {
      struct stat st;
      int e = errno;
      if (stat(path, &st) < 0)
        return -e;
    } else if (errno != EEXIST) {
      (void)!chmod(path, mode); /* whatever the umask was */
    }
    errno = 0;
    path[i] = keep;
  }
  return 0;
}

bool plan_may_create(const struct plan *p, struct str path) {
  if (p->create == PLAN_CREATE_ANYWHERE)
    return true;
  char real[PATH_MAX], real_home[PATH_MAX], dir[PATH_MAX];
  struct str home = p->create == PLAN_CREATE_BELOW_PATH ? p->create_below : p->home;
  ptrdiff_t slash = str_rfind_byte(path, '/');
  if (slash < 0 || !home.len || path.len >= sizeof dir || home.len >= sizeof real_home)
    return false;
  memcpy(dir, path.p, (size_t)slash);
  dir[slash] = 0;
  struct str d = str_n(dir, (size_t)slash);
  if (str_find(d, STR("/../")) >= 0 || str_ends(d, STR("/..")))
    return false;
  if (p->create == PLAN_CREATE_IN_HOME)
    return str_eq(d, home);
  if (!str_starts(d, home) || (d.len > home.len && d.p[home.len] != '/'))
    return false;
  /* No symbolic link may lead out of the home directory: the deepest directory that exists is looked at. */
  char home_text[PATH_MAX];
  memcpy(home_text, home.p, home.len);
  home_text[home.len] = 0;
  if (!realpath(home_text, real_home))
    return false;
  while (!realpath(dir, real)) {
    char *up = strrchr(dir, '/');
    if (errno != ENOENT || !up || up == dir)
      return false;
    *up = 0;
    if (strlen(dir) < home.len)
      return false;
  }
  size_t n = strlen(real_home);
  return !strncmp(real, real_home, n) && (real[n] == 0 || real[n] == '/');
}
