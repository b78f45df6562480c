#include "deliver/msglog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd_io.h"
#include "base/time.h"
#include "core/main_options.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "queue/spool_internal.h"

#define MSGLOG_MAX (8u << 20)

void msglog_init(struct msglog *l, struct arena *a) { buf_init(&l->lines, a, MSGLOG_MAX); }

void msglog_add(struct msglog *l, const char *fmt, ...) {
  va_list ap;
  buf_add(&l->lines, log_stamp(l->lines.arena));
  buf_add_byte(&l->lines, ' ');
  va_start(ap, fmt);
  buf_vprintf(&l->lines, fmt, ap);
  va_end(ap);
  buf_add_byte(&l->lines, '\n');
}

void msglog_add_plain(struct msglog *l, struct str line) {
  buf_add(&l->lines, line);
  buf_add_byte(&l->lines, '\n');
}

/* What reception logged about a message that was read from the spool, as far as it is known. */
static void add_arrival(struct buf *b, const struct message *m) {
  const struct client *cl = &m->client;
  buf_printf(b, "%s%.*s%s", m->reverse_path.len ? "" : "<", STRF(m->reverse_path), m->reverse_path.len ? "" : ">");
  if (str_is_set(m->parent_id) && m->parent_id.len)
    buf_printf(b, " R=%.*s", STRF(m->parent_id));
  if (str_is_set(cl->fullhost) && cl->fullhost.len)
    buf_printf(b, " H=%.*s", STRF(cl->fullhost));
  if (str_is_set(cl->ident) && cl->ident.len)
    buf_printf(b, " U=%.*s", STRF(cl->ident));
  if (str_is_set(cl->protocol) && cl->protocol.len)
    buf_printf(b, " P=%.*s", STRF(cl->protocol));
  buf_printf(b, " S=%llu", (unsigned long long)m->size);
}

static struct str received_line(struct arena *a, const struct message *m) {
  char stamp[64];
  struct buf b;
  buf_init(&b, a, MSGLOG_MAX);
  size_t n = time_log_stamp(stamp, m->received_time.tv_sec * 1000000LL + m->received_time.tv_usec, log_selected(LOGSEL_millisec), false,
      false);
  buf_add_n(&b, stamp, n);
  buf_add_c(&b, " Received from ");
  if (str_is_set(m->arrival_text))
    buf_add(&b, m->arrival_text);
  else
    add_arrival(&b, m);
  return str_cat(a, log_printable(a, buf_str(&b)), STR("\n"));
}

struct job {
  int dir, old_dir; /* our own descriptors: those of the spool may be closed while a thread works */
  char directory[128], old_directory[128], name[32];
  struct str first, lines;
  bool keep;
  int error;
};

static int own_directory(const char *name, bool create) {
  int fd = spool_other_dir(name, create);
  return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void close_job(struct job *j) {
  if (j->dir >= 0)
    close(j->dir);
  if (j->old_dir >= 0)
    close(j->old_dir);
}

static int make_job(struct job *j, const struct message *m, bool create) {
  bool queue = str_is_set(m->queue_name) && m->queue_name.len;
  const char *slash = m->spool_subdir[0] ? "/" : "";
  if (queue && m->queue_name.len > 64)
    return -ENAMETOOLONG;
  snprintf(j->directory, sizeof j->directory, "%.*s%smsglog%s%.1s", STRF(queue ? m->queue_name : STR_EMPTY), queue ? "/" : "", slash,
      m->spool_subdir);
  snprintf(j->old_directory, sizeof j->old_directory, "%.*s%smsglog.OLD", STRF(queue ? m->queue_name : STR_EMPTY), queue ? "/" : "");
  snprintf(j->name, sizeof j->name, "%.23s", m->id);
  j->dir = own_directory(j->directory, create);
  j->old_dir = j->keep ? own_directory(j->old_directory, true) : -1;
  return j->dir < 0 ? j->dir : 0;
}

static int write_job(void *arg) {
  struct job *j = arg;
  struct stat st;
  int fd = openat(j->dir, j->name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0)
    return j->error = -errno;
  if (fstat(fd, &st) == 0 && st.st_size == 0) {
    spool_own(fd);
    j->error = fd_write_all(fd, j->first.p, j->first.len);
  }
  if (!j->error)
    j->error = fd_write_all(fd, j->lines.p, j->lines.len);
  close(fd);
  return j->error;
}

static void write_lines(struct msglog *l, struct ctx *c, struct message *m) {
  struct job j = {.lines = buf_str(&l->lines), .dir = -1, .old_dir = -1};
  if (!main_options(c->config)->message_logs)
    return;
  j.first = received_line(l->lines.arena, m);
  j.error = make_job(&j, m, true);
  if (!j.error)
    fiber_offload(write_job, &j);
  close_job(&j);
  if (j.error)
    log_write(LOG_MAIN | LOG_PANIC, m, "failed to write message log %s/%s: %s", j.directory, j.name, strerror(-j.error));
  buf_truncate(&l->lines, 0);
}

void msglog_write(struct msglog *l, struct ctx *c, struct message *m) {
  if (l->lines.len)
    write_lines(l, c, m);
}

void msglog_begin(struct ctx *c, struct message *m) {
  struct msglog none;
  msglog_init(&none, c->arena);
  if (m->deliver_freeze)
    msglog_add(&none, "frozen by ACL");
  write_lines(&none, c, m);
}

static int remove_job(void *arg) {
  struct job *j = arg;
  if (j->old_dir >= 0 && (renameat(j->dir, j->name, j->old_dir, j->name) == 0 || errno == ENOENT))
    return 0;
  return unlinkat(j->dir, j->name, 0) && errno != ENOENT ? -errno : 0;
}

void msglog_remove(struct ctx *c, struct message *m) {
  struct job j = {.keep = main_options(c->config)->preserve_message_logs, .dir = -1, .old_dir = -1};
  if (!make_job(&j, m, false))
    fiber_offload(remove_job, &j);
  close_job(&j);
}
