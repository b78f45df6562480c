/* The queuefile transport: a copy of the message in spool format in a
directory, for a scanner that puts it into a spool again. The copy names just
the recipients that were routed here, so that nobody gets it twice when it
comes back (rewrite_recipients). */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "base/vec.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "queue/spool_codec.h"
#include "transport/header.h"
#include "transport/options.h"
#include "transport/transport.h"

#define BLOCK (64u << 10)
#define FILE_MODE 0640

struct queuefile {
  struct transport_batch batch;
  struct option_expr directory;
  bool rewrite_recipients;
};

#define OFF(f) offsetof(struct queuefile, f)
static const struct option_def queuefile_options[] = {
    {"directory", OPTION_EXPR, OFF(directory)},
    {"rewrite_recipients", OPTION_BOOL, OFF(rewrite_recipients), "true"},
    OPTIONS_END,
};

static int queuefile_init(struct config_reader *r, struct instance *i) {
  struct queuefile *o = i->options;
  o->batch.max = INT64_MAX;
  if (!str_is_set(o->directory.text))
    return config_error_at(r, i->where, "directory must be set for the %.*s transport", STRF(i->name));
  return 0;
}

static const struct transport_batch *queuefile_batch(const struct instance *t) { return &((const struct queuefile *)t->options)->batch; }

struct copy {
  const char *directory, *id;
  struct str header;
  int body_fd;
  int64_t body_offset;
  const char *what; /* the step that failed */
};

static int copy_body(struct copy *j, int fd) {
  char first[40], *block = xmalloc(BLOCK);
  int n = snprintf(first, sizeof first, "%s-D\n", j->id), e = fd_write_all(fd, first, (size_t)n);
  off_t at = j->body_offset;
  while (!e && j->body_fd >= 0) {
    ssize_t k = pread(j->body_fd, block, BLOCK, at);
    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0) {
      e = k < 0 ? -errno : 0;
      break;
    }
    at += k;
    e = fd_write_all(fd, block, (size_t)k);
  }
  free(block);
  return e;
}

/* Writes a file under a temporary name. */
static int make_file(struct copy *j, int dir, const char *name, bool header) {
  int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
  if (fd < 0)
    return -errno;
  int e = header ? fd_write_all(fd, j->header.p, j->header.len) : copy_body(j, fd);
  if (!e && fsync(fd) < 0)
    e = -errno;
  if (close(fd) < 0 && !e)
    e = -errno;
  return e;
}

/* Under its final name, unless that is taken. */
static int put_in_place(int dir, const char *from, const char *to) {
  struct stat st;
  if (!fstatat(dir, to, &st, AT_SYMLINK_NOFOLLOW))
    return -EEXIST;
  return renameat(dir, from, dir, to) < 0 ? -errno : 0;
}

/* Is the -H that stands there the one that we would write, with its -D? Then we were killed after it, before that was noted. */
static bool is_ours(const struct copy *j, int dir, const char *header, const char *data) {
  struct stat st;
  char block[4096];
  size_t at = 0;
  ssize_t k = 0;
  if (fstatat(dir, data, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
    return false;
  int fd = openat(dir, header, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    return false;
  while ((k = read(fd, block, sizeof block)) > 0 && (size_t)k <= j->header.len - at && !memcmp(block, j->header.p + at, (size_t)k))
    at += (size_t)k;
  close(fd);
  return k == 0 && at == j->header.len;
}

/* -D first, -H last: whoever looks for -H finds both. Of what was half done by a process that died, the temporary files are
written again, and a -D without -H is replaced. */
static int run_copy(void *arg) {
  struct copy *j = arg;
  char data[40], header[40], t_data[48], t_header[48];
  struct stat st;
  snprintf(data, sizeof data, "%s-D", j->id);
  snprintf(header, sizeof header, "%s-H", j->id);
  snprintf(t_data, sizeof t_data, "dat.%s", j->id);
  snprintf(t_header, sizeof t_header, "hdr.%s", j->id);
  j->what = "accessing";
  int dir = open(j->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0)
    return -errno;
  j->what = "writing to";
  int e = fstatat(dir, header, &st, AT_SYMLINK_NOFOLLOW) ? 0 : -EEXIST;
  if (e && is_ours(j, dir, header, data)) {
    e = fsync(dir) < 0 ? -errno : 0;
    close(dir);
    return e;
  }
  if (!e)
    e = make_file(j, dir, t_data, false);
  if (!e)
    e = make_file(j, dir, t_header, true);
  if (!e)
    unlinkat(dir, data, 0);
  if (!e)
    e = put_in_place(dir, t_data, data);
  if (!e && (e = put_in_place(dir, t_header, header)))
    unlinkat(dir, data, 0);
  if (!e && fsync(dir) < 0)
    e = -errno;
  if (e && e != -EEXIST) {
    unlinkat(dir, t_data, 0);
    unlinkat(dir, t_header, 0);
  }
  close(dir);
  return e;
}

/* The recipients that this delivery is for, as the spool would have them: with their DSN parameters. */
static void choose_recipients(struct ctx *c, struct message *m, const struct address *chain) {
  const struct message *from = c->message;
  memset(&m->recipients, 0, sizeof m->recipients);
  for (const struct address *a = chain; a; a = a->next) {
    struct recipient r = {.parent = -1, .errors_to = STR_UNSET, .orcpt = STR_UNSET};
    if (a->recipient >= 0 && (size_t)a->recipient < from->recipients.n)
      r = from->recipients.v[a->recipient];
    r.address = a->address;
    r.parent = -1;
    if (str_is_set(a->prop.errors_address))
      r.errors_to = a->prop.errors_address;
    vec_push(c->arena, &m->recipients, r);
  }
}

static void fail(struct ctx *c, struct address *chain, int error, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void fail(struct ctx *c, struct address *chain, int error, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  transport_chain_result(chain, OUTCOME_DEFER, error, str_vprintf(c->arena, fmt, ap));
  va_end(ap);
  for (struct address *a = chain; a; a = a->next)
    a->panic = true;
}

static void queuefile_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct queuefile *o = t->options;
  struct str directory;
  if (expand_option(c, &o->directory, &directory)) {
    fail(c, chain, ERROR_UNKNOWN, "Expansion of \"%.*s\" (directory for %.*s transport) failed: %.*s", STRF(o->directory.text), STRF(t->name),
        STRF(c->error));
    return;
  }
  bool dots = str_find(directory, STR("/../")) >= 0 || str_ends(directory, STR("/.."));
  if (!directory.len || directory.p[0] != '/' || dots || str_is_tainted(directory) || memchr(directory.p, 0, directory.len)) {
    fail(c, chain, ERROR_UNKNOWN, "%.*s transport directory: %.*s is not absolute%s", STRF(t->name), STRF(directory),
        directory.len && directory.p[0] == '/' ? " and safe" : "");
    return;
  }
  struct message copy = *c->message;
  struct buf text;
  if (o->rewrite_recipients)
    choose_recipients(c, &copy, chain);
  buf_init(&text, c->arena, SPOOL_HEADER_MAX);
  int e = spool_encode(&copy, &text);
  struct copy j = {.directory = str_dup_c(c->arena, directory), .id = c->message->id, .header = buf_str(&text), .what = "writing to",
      .body_offset = (int64_t)strlen(c->message->id) + 3};
  j.body_fd = e ? -1 : spool_open_body(c, c->message);
  if (!e && j.body_fd < 0)
    e = j.body_fd;
  if (!e)
    e = fiber_offload(run_copy, &j);
  if (j.body_fd >= 0 && j.body_fd != c->message->data_fd)
    close(j.body_fd);
  if (e)
    fail(c, chain, -e, "%.*s transport %s directory: %.*s failed with error: %s", STRF(t->name), j.what, STRF(directory), strerror(-e));
  else
    transport_chain_result(chain, OUTCOME_OK, 0, STR_UNSET);
}

const struct transport_def transport_queuefile = {
    .driver = {.name = "queuefile", .class = DRIVER_TRANSPORT, .options = queuefile_options, .options_size = sizeof(struct queuefile),
        .summary = "copies spool files to a directory", .init = queuefile_init},
    .local = true,
    .batch = queuefile_batch,
    .deliver = queuefile_deliver,
};
