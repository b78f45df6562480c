/* Reading messages back, and finding them. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "acl/acl.h"
#include "core/ctx.h"
#include "loop/fiber.h"
#include "queue/spool_internal.h"
#include "queue/spool_wal.h"

#define SCAN_MAX 10000000

/* Runs fn on the directory the configuration prefers, then on the other, until it does not say -ENOENT. */
static int each_place_of(const char *purpose, struct str queue_name, const char *id,
    int (*fn)(int dir, char letter, void *arg), void *arg) {
  char letter[2] = {spool_letter(id), '\0'};
  for (int i = 0; i < 2; i++) {
    bool subdir = (i == 0) == spool_root()->split;
    int dir = spool_purpose_dir(queue_name, purpose, subdir ? letter : "", false);
    int rc = dir < 0 ? dir : fn(dir, subdir ? letter[0] : '\0', arg);
    if (rc != -ENOENT)
      return rc;
  }
  return -ENOENT;
}

static int each_place(struct str queue_name, const char *id, int (*fn)(int dir, char letter, void *arg), void *arg) {
  return each_place_of("input", queue_name, id, fn, arg);
}

struct read_job {
  const char *id;
  bool lock;
  int dir, data_fd;
  char letter;
  char *header, *journal;
  size_t header_len, journal_len;
  int64_t data_size;
  bool bad_data;
};

/* The lock comes first, then -H is read: nobody changes it meanwhile. */
static int open_data(struct read_job *job) {
  char name[SPOOL_NAME_MAX], first[SPOOL_NAME_MAX];
  struct stat st;
  spool_name(name, job->id, 'D');
  int fd = spool_io_open(job->dir, name, job->lock ? O_RDWR : O_RDONLY, 0);
  if (fd < 0)
    return fd;
  int rc = job->lock ? spool_io_lock(fd) : 0;
  if (rc == 0 && fstat(fd, &st))
    rc = -errno;
  if (rc == 0 && st.st_nlink == 0) /* removed while we opened it */
    rc = -ENOENT;
  if (rc) {
    close(fd);
    return rc;
  }
  size_t n = strlen(name);
  name[n++] = '\n';
  job->data_size = st.st_size - (int64_t)n;
  job->bad_data = job->data_size < 0 || pread(fd, first, n, 0) != (ssize_t)n || memcmp(first, name, n) != 0;
  job->data_fd = fd;
  return 0;
}

static int read_files(int dir, char letter, void *arg) {
  struct read_job *job = arg;
  char name[SPOOL_NAME_MAX];
  job->dir = dir;
  job->letter = letter;
  int rc = open_data(job);
  if (rc)
    return rc;
  spool_name(name, job->id, 'H');
  rc = spool_file_read(dir, name, SPOOL_HEADER_MAX + 1, &job->header, &job->header_len);
  if (rc == 0) {
    spool_name(name, job->id, 'J');
    int journal_rc = spool_file_read(dir, name, SPOOL_HEADER_MAX, &job->journal, &job->journal_len);
    if (journal_rc != -ENOENT)
      rc = journal_rc;
  }
  if (rc) {
    close(job->data_fd);
    job->data_fd = -1;
  }
  return rc;
}

struct place_job {
  struct read_job read;
  struct str queue_name;
  int rc;
};

static int read_anywhere(void *arg) {
  struct place_job *job = arg;
  return job->rc = each_place(job->queue_name, job->read.id, read_files, &job->read);
}

struct places_job {
  struct place_job v[SPOOL_MANY];
  size_t n;
};

static int read_each(void *arg) {
  struct places_job *job = arg;
  for (size_t i = 0; i < job->n; i++)
    (void)read_anywhere(&job->v[i]);
  return 0;
}

static void merge_journal(struct message *m, struct str text) {
  while (text.len) {
    struct str line = str_cut(&text, '\n');
    if (!str_is_set(text))
      break; /* no newline: it was being written */
    if (line.len)
      message_add_nonrecipient(m, str_tainted(line));
  }
}

static enum spool_read build(struct ctx *c, struct read_job *job, struct str queue_name, struct message **ret) {
  struct message *m = message_new("message");
  int line = 0;
  m->data_fd = job->data_fd;
  struct spool_state *s = spool_state(m);
  int rc = spool_decode(str_n(job->header, job->header_len), m, &line);
  if (rc == 0 && (job->bad_data || strcmp(m->id, job->id) != 0))
    rc = -EINVAL;
  if (rc) {
    c->error = str_printf(c->arena, "Format error in spool file %s-%c: size=%lld", job->id, job->bad_data ? 'D' : 'H',
      job->bad_data ? (long long)job->data_size : (long long)job->header_len);
    message_free(m);
    return SPOOL_BAD;
  }
  m->queue_name = str_dup(m->arena, queue_name);
  m->spool_subdir[0] = job->letter;
  m->body_size = m->size = (uint64_t)job->data_size;
  m->lines = m->body_lines;
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED) {
      m->size += h->text.len;
      for (uint32_t i = 0; i < h->text.len; i++)
        m->lines += h->text.p[i] == '\n';
    }
  if (job->journal) {
    merge_journal(m, str_n(job->journal, job->journal_len));
    s->has_journal = true;
  }
  s->has_files = s->has_data = true;
  /* Its record in our own log may still be live. */
  struct wal_message *live = job->lock ? wal_find(m->id) : NULL;
  if (live && live->settled && !live->message) {
    s->wal = live;
    live->message = m;
  }
  client_set_fullhost(m->arena, &m->client);
  *ret = m;
  return SPOOL_OK;
}

static enum spool_read built(struct ctx *c, struct place_job *job, struct message **ret) {
  enum spool_read result = SPOOL_IO;
  if (job->rc == 0)
    result = build(c, &job->read, job->queue_name, ret);
  else if (job->rc == -ENOENT)
    result = SPOOL_NOT_FOUND;
  else if (job->rc == -EAGAIN)
    result = SPOOL_LOCKED;
  else
    c->error = str_printf(c->arena, "Error reading spool file %s-H: %s", job->read.id, strerror(-job->rc));
  free(job->read.header);
  free(job->read.journal);
  return result;
}

enum spool_read spool_read_message(struct ctx *c, struct str queue_name, struct str id, bool lock,
    struct message **ret) {
  char text[24];
  if (!message_id_valid(id) || !spool_queue_name_valid(queue_name))
    return SPOOL_NOT_FOUND;
  memcpy(text, id.p, id.len);
  text[id.len] = '\0';
  struct place_job job = {{.id = text, .lock = lock, .data_fd = -1}, queue_name, spool_open(c->config)};
  if (job.rc == 0)
    (void)fiber_offload(read_anywhere, &job);
  return built(c, &job, ret);
}

void spool_read_many(struct ctx *c, struct str queue_name, struct spool_reading *v, size_t n) {
  struct places_job job = {.n = n};
  int rc = spool_open(c->config);
  for (size_t i = 0; i < n; i++)
    job.v[i] = (struct place_job){{.id = v[i].id, .data_fd = -1}, queue_name, rc};
  if (rc == 0)
    (void)fiber_offload(read_each, &job);
  for (size_t i = 0; i < n; i++) {
    v[i].got = built(c, &job.v[i], &v[i].m);
    v[i].error = v[i].got == SPOOL_BAD || v[i].got == SPOOL_IO ? c->error : STR_UNSET;
  }
}

static int find_header(int dir, char letter, void *arg) {
  char name[SPOOL_NAME_MAX];
  spool_name(name, arg, 'H');
  return faccessat(dir, name, F_OK, 0) ? -errno : 0;
}

bool spool_exists(struct str queue_name, const char *id) {
  char copy[24] = "";
  memcpy(copy, id, strnlen(id, sizeof copy - 1));
  return message_id_valid(str_c(copy)) && each_place(queue_name, copy, find_header, copy) == 0;
}

struct file_job {
  const char *id;
  char which, *text;
  size_t max, len;
};

static int read_one(int dir, char letter, void *arg) {
  struct file_job *job = arg;
  char name[SPOOL_NAME_MAX];
  if (job->which == 'L')
    snprintf(name, sizeof name, "%s", job->id);
  else
    spool_name(name, job->id, job->which);
  return spool_file_read(dir, name, job->max, &job->text, &job->len);
}

int spool_read_file(struct ctx *c, struct str queue_name, struct str id, char which, struct arena *a, size_t max,
    struct str *ret) {
  char text[24];
  if (!message_id_valid(id))
    return -ENOENT;
  memcpy(text, id.p, id.len);
  text[id.len] = '\0';
  struct file_job job = {text, which, NULL, max, 0};
  int rc = spool_open(c->config);
  if (rc == 0)
    rc = each_place_of(which == 'L' ? "msglog" : "input", queue_name, text, read_one, &job);
  if (rc == 0)
    *ret = str_tainted(str_dup(a, str_n(job.text, job.len)));
  free(job.text);
  return rc;
}

/* A body in memory as a file: others take descriptors. */
static int body_as_file(const struct message *m) {
  char name[SPOOL_NAME_MAX];
  spool_name(name, m->id, 'D');
  int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0)
    return -errno;
  size_t n = strlen(name);
  name[n++] = '\n';
  int rc = spool_io_write(fd, name, n);
  if (rc == 0)
    rc = spool_io_write(fd, m->spool->body, m->spool->body_len);
  if (rc == 0 && lseek(fd, (off_t)n, SEEK_SET) < 0)
    rc = -errno;
  if (rc) {
    close(fd);
    return rc;
  }
  return fd;
}

int spool_open_body(struct ctx *c, const struct message *m) {
  if (m->spool && m->spool->in_memory)
    return body_as_file(m);
  char name[SPOOL_NAME_MAX], subdir[2] = {m->spool_subdir[0], '\0'};
  spool_name(name, m->id, 'D');
  int dir = spool_dir(m->queue_name, subdir, false);
  int fd = dir < 0 ? dir : spool_io_open(dir, name, O_RDONLY, 0);
  if (fd >= 0 && lseek(fd, (off_t)strlen(name) + 1, SEEK_SET) < 0) {
    int rc = -errno;
    close(fd);
    return rc;
  }
  return fd;
}

/* --- scan --- */

struct scan_ids {
  struct spool_entry *v;
  size_t n, cap;
};
struct scan_job {
  struct str queue_name;
  struct scan_ids headers, journals;
};

static void scan_name(struct scan_job *job, const struct dirent *d, char letter) {
  struct str s = str_c(d->d_name);
  bool journal = str_ends(s, STR("-J"));
  struct scan_ids *to = journal ? &job->journals : &job->headers;
  if ((!journal && !str_ends(s, STR("-H"))) || !message_id_valid(str_slice(s, 0, s.len - 2)) || to->n >= SCAN_MAX)
    return;
  if (to->n == to->cap) {
    to->cap = to->cap ? to->cap * 2 : 256;
    to->v = xrealloc(to->v, to->cap * sizeof *to->v);
  }
  struct spool_entry *e = &to->v[to->n++];
  *e = (struct spool_entry){.subdir = {letter}, .inode = d->d_ino};
  memcpy(e->id, s.p, s.len - 2);
}

static int scan_dir(struct scan_job *job, const char *subdir, char *ret_subdirs) {
  int cached = spool_dir(job->queue_name, subdir, false);
  if (cached < 0)
    return cached == -ENOENT ? 0 : cached;
  int fd = openat(cached, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    int rc = -errno;
    if (fd >= 0)
      close(fd);
    return rc;
  }
  size_t subdirs = 0;
  struct dirent *e;
  while ((e = readdir(d)) != NULL) {
    if (ret_subdirs && e->d_name[0] != '.' && e->d_name[1] == '\0' && subdirs < 62)
      ret_subdirs[subdirs++] = e->d_name[0];
    else
      scan_name(job, e, subdir[0]);
  }
  closedir(d);
  return 0;
}

/* In the order of arrival: inside of a second the fraction tells, which in an id stands behind the process. */
static int compare_entries(const void *a, const void *b) {
  const char *x = ((const struct spool_entry *)a)->id, *y = ((const struct spool_entry *)b)->id;
  size_t len = strlen(x);
  int rc = strncmp(x, y, 6);
  if (!rc && len != strlen(y))
    rc = len < strlen(y) ? -1 : 1; /* the shorter form is the older one */
  if (!rc && len == MESSAGE_ID_LEN)
    rc = strcmp(x + 19, y + 19);
  if (!rc && len == MESSAGE_ID_LEN_OLD)
    rc = strcmp(x + 14, y + 14);
  return rc ? rc : strcmp(x, y);
}

static int scan(void *arg) {
  struct scan_job *job = arg;
  char subdirs[63] = "";
  int rc = scan_dir(job, "", subdirs);
  for (size_t i = 0; rc == 0 && subdirs[i]; i++) {
    char subdir[2] = {subdirs[i], '\0'};
    rc = scan_dir(job, subdir, NULL);
  }
  if (job->headers.n)
    qsort(job->headers.v, job->headers.n, sizeof *job->headers.v, compare_entries);
  for (size_t i = 0; i < job->journals.n && job->headers.n; i++) {
    struct spool_entry *e = bsearch(&job->journals.v[i], job->headers.v, job->headers.n, sizeof *e, compare_entries);
    if (e)
      e->journal = true;
  }
  free(job->journals.v);
  return rc == -ENOTDIR ? 0 : rc;
}

int spool_scan_names(struct str queue_name, struct spool_entry **ret, size_t *ret_n) {
  struct scan_job job = {.queue_name = queue_name};
  int rc = scan(&job);
  if (rc)
    free(job.headers.v);
  *ret = rc ? NULL : job.headers.v;
  *ret_n = rc ? 0 : job.headers.n;
  return rc;
}

int spool_scan(struct ctx *c, struct str queue_name, struct arena *a, struct spool_entry **ret, size_t *ret_n) {
  int rc = spool_open(c->config);
  struct scan_job job = {.queue_name = queue_name};
  if (rc == 0 && !wal_active())
    (void)wal_recover(NULL, NULL); /* it says in the log what it cannot do */
  if (rc == 0)
    rc = fiber_offload(scan, &job);
  struct scan_ids *found = &job.headers;
  if (rc == 0) {
    *ret = found->n ? arena_memdup(a, found->v, found->n * sizeof *found->v) : NULL;
    *ret_n = found->n;
  }
  free(found->v);
  return rc;
}
