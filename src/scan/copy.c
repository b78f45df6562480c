/* The message as scanners see it, and its directory in the spool. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/fd_io.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "loop/stream.h"
#include "message/message.h"
#include "scan/pool.h"
#include "scan/scan.h"

#define HEAD_MAX (64u << 20)

struct scan_state {
  struct str directory; /* unset: not made */
  struct str file;      /* unset: not written */
  bool keep;            /* control = no_mbox_unspool */
  struct str callout_address;
};

static struct scan_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &scan_module) : NULL;
}

/* ---- the text ---- */

static void add_envelope(struct ctx *c, struct buf *b) {
  const struct message *m = c->message;
  struct str date = STR_EMPTY;
  if (expand_text(c, STR("$tod_bsdinbox"), &date) != 0)
    date = STR_EMPTY;
  buf_printf(b, "From MAILER-DAEMON %.*s\n", STRF(date));
  if (m->reverse_path.len > 0)
    buf_printf(b, "X-Envelope-From: <%.*s>\n", STRF(m->reverse_path));
  for (size_t i = 0; i < m->recipients.n; i++)
    buf_printf(b, "%s%.*s", i ? ", " : "X-Envelope-To: ", STRF(m->recipients.v[i].address));
  if (m->recipients.n > 0)
    buf_add_byte(b, '\n');
}

int scan_copy_open(struct ctx *c, bool envelope, struct scan_copy *ret) {
  struct buf b;
  buf_init(&b, c->arena, HEAD_MAX);
  if (envelope)
    add_envelope(c, &b);
  for (const struct header *h = c->message->headers; h; h = h->next)
    if (h->type != HEADER_DELETED)
      buf_add(&b, h->text);
  buf_add_byte(&b, '\n');
  if (b.overflow)
    return -EFBIG;
  *ret = (struct scan_copy){.head = str_tainted(buf_str(&b))};
  int rc = scan_source_body(c, &ret->body);
  ret->size = ret->head.len + ret->body.size;
  return rc;
}

void scan_copy_close(struct scan_copy *k) { scan_source_close(&k->body); }

int scan_copy_each(struct ctx *c, const struct scan_copy *k, int (*piece)(void *arg, struct str data), void *arg) {
  struct arena *a = arena_new("scanning");
  struct scan_reader r;
  struct str data;
  int rc = 0;
  for (size_t at = 0; rc == 0 && at < k->head.len; at += SCAN_WINDOW)
    rc = piece(arg, str_slice(k->head, at, at + SCAN_WINDOW));
  scan_reader_init(&r, a, &k->body, 0, UINT64_MAX);
  while (rc == 0 && (rc = scan_reader_bytes(&r, &data)) > 0)
    rc = piece(arg, data);
  arena_free(a);
  return rc;
}

static int send_piece(void *arg, struct str data) {
  int rc = stream_write(arg, data);
  return rc < 0 ? rc : 0;
}

int scan_copy_send(struct ctx *c, const struct scan_copy *k, struct stream *to) {
  int rc = scan_copy_each(c, k, send_piece, to);
  return rc < 0 ? rc : stream_flush(to);
}

/* ---- files ---- */

struct create_call {
  const char *path;
  int fd;
};

static int create_offloaded(void *arg) {
  struct create_call *k = arg;
  k->fd = open(k->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
  return k->fd < 0 ? -errno : k->fd;
}

int scan_create(struct str path) {
  char name[4096];
  if (path.len >= sizeof name || memchr(path.p, 0, path.len))
    return -ENAMETOOLONG;
  memcpy(name, path.p, path.len);
  name[path.len] = '\0';
  struct create_call k = {.path = name};
  return fiber_offload(create_offloaded, &k);
}

static int temporary_offloaded(void *arg) {
  int fd = open(arg, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  return fd < 0 ? -errno : fd;
}

int scan_temporary(struct ctx *c) {
  struct str directory;
  int rc = scan_directory(c, &directory);
  return rc < 0 ? rc : fiber_offload(temporary_offloaded, (void *)(uintptr_t)directory.p);
}

struct write_call {
  int fd;
  struct str data;
};

static int write_offloaded(void *arg) {
  struct write_call *k = arg;
  return fd_write_all(k->fd, k->data.p, k->data.len);
}

int scan_write(int fd, struct str data) {
  struct write_call k = {fd, data};
  return data.len ? fiber_offload(write_offloaded, &k) : 0;
}

/* ext4 gives no inode again that was free for less than minutes, but looks at each of those in its block group, for each file
that is made: many files that live only for moments make the next ones ever dearer (100 times). So the directories of messages
are to lie in different groups, as directories of users do. Other file systems know no such wish, and have no such cost. */
static void spread_directories(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), flags;
  if (fd < 0)
    return;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_TOPDIR_FL)) {
    flags |= FS_TOPDIR_FL;
    (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
  }
  close(fd);
}

static int make_directory(void *arg) {
  char *path = arg, *slash = strrchr(path, '/');
  *slash = '\0';
  int rc = mkdir(path, 0750) < 0 && errno != EEXIST ? -errno : 0;
  if (rc == 0)
    spread_directories(path);
  *slash = '/';
  return rc == 0 && mkdir(path, 0750) < 0 && errno != EEXIST ? -errno : rc;
}

int scan_directory(struct ctx *c, struct str *ret) {
  struct scan_state *s = state_of(c);
  if (!s || !c->message->id[0])
    return -ENOENT;
  if (!str_is_set(s->directory)) {
    struct str path = str_printf(c->message->arena, "%.*s/scan/%s", STRF(main_options(c->config)->spool_directory), c->message->id);
    int rc = fiber_offload(make_directory, (void *)(uintptr_t)path.p);
    if (rc < 0)
      return rc;
    s->directory = path;
  }
  *ret = s->directory;
  return 0;
}

struct file_writer {
  int fd;
};

static int write_piece(void *arg, struct str data) { return scan_write(((struct file_writer *)arg)->fd, data); }

int scan_file(struct ctx *c, struct str *ret) {
  struct scan_state *s = state_of(c);
  struct str directory;
  struct scan_copy copy;
  int rc = scan_directory(c, &directory);
  if (rc < 0)
    return rc;
  if (!str_is_set(s->file)) {
    struct str path = str_printf(c->message->arena, "%.*s/%s.eml", STRF(directory), c->message->id);
    if ((rc = scan_copy_open(c, true, &copy)) < 0)
      return rc;
    struct file_writer w = {scan_create(path)};
    rc = w.fd < 0 ? w.fd : scan_copy_each(c, &copy, write_piece, &w);
    scan_copy_close(&copy);
    if (w.fd >= 0)
      close(w.fd);
    if (rc < 0)
      return rc;
    s->file = path;
  }
  *ret = s->file;
  return 0;
}

void scan_file_forget(struct ctx *c) {
  struct scan_state *s = state_of(c);
  if (s && str_is_set(s->file)) {
    (void)unlink(s->file.p);
    s->file = STR_UNSET;
  }
}

static int remove_directory(void *arg) {
  const char *path = arg;
  DIR *d = opendir(path);
  struct dirent *e;
  while (d && (e = readdir(d)) != NULL)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      (void)unlinkat(dirfd(d), e->d_name, 0);
  if (d)
    closedir(d);
  return rmdir(path) < 0 ? -errno : 0;
}

static void clean_up(struct scan_state *s) {
  if (str_is_set(s->directory) && !s->keep)
    (void)fiber_offload(remove_directory, (void *)(uintptr_t)s->directory.p);
  s->directory = s->file = STR_UNSET;
}

/* ---- the module ---- */

static void received(struct ctx *c) { clean_up(state_of(c)); }

static void release(struct message *m, void *state) { clean_up(state); }

static int control_keep(struct ctx *c, struct str option) {
  struct scan_state *s = state_of(c);
  if (s)
    s->keep = true;
  return OUTCOME_OK;
}

void scan_set_callout_address(struct ctx *c, struct str text) {
  struct scan_state *s = state_of(c);
  if (s)
    s->callout_address = str_dup(c->message->arena, text);
}

struct str scan_callout_address(const struct ctx *c) {
  const struct scan_state *s = state_of(c);
  return s && str_is_set(s->callout_address) ? s->callout_address : STR_EMPTY;
}

static int get_callout_address(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = scan_callout_address(c);
  return 0;
}

static const struct variable_def variables[] = {{"callout_address", get_callout_address}, {0}};

static const struct acl_control_def controls[] = {
  {"no_mbox_unspool", false,
    ACL_ONLY(ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_MIME) |
      ACL_BIT(ACL_NOT_SMTP_MIME)),
    0, control_keep},
  {0},
};

static const struct option_def options[] = {
  {"keep_scanner_connections", OPTION_BOOL, offsetof(struct scan_options, keep_scanner_connections), "true"}, OPTIONS_END,
};

const struct module scan_module = {
  .name = "scan",
  .summary = "content scanning",
  .main_options = options,
  .main_size = sizeof(struct scan_options),
  .support = "Content_Scanning",
  .variables = variables,
  .acl_controls = controls,
  .macros = (const char *const[]){"_HAVE_CONTENT_SCANNING", NULL},
  .message_state = {.size = sizeof(struct scan_state), .release = release},
  .hooks = {.message_received = received},
};
