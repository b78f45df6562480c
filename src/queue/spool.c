/* The contract of spool.h: on plain files, and in a process that keeps a log
(spool_wal.h) with as few files as can be. */
#include "queue/spool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/map.h"
#include "core/ctx.h"
#include "loop/fiber.h"
#include "log/log.h"
#include "queue/spool_internal.h"
#include "queue/spool_wal.h"
#include "queue/summary.h"

static void release(void *arg) {
  struct spool_state *s = arg;
  if (s->wal) {
    if (!s->wal->settled)
      (void)spool_settle(s->wal->message);
    s->wal->message = NULL;
  }
  free(s->body);
  if (s->journal_fd >= 0)
    close(s->journal_fd);
}

struct spool_state *spool_state(struct message *m) {
  if (!m->spool) {
    m->spool = arena_new_of(m->arena, struct spool_state);
    m->spool->journal_fd = -1;
    arena_cleanup(m->arena, release, m->spool);
  }
  return m->spool;
}

int spool_header_text(const struct message *m, struct arena *a, struct str *ret) {
  struct buf out;
  buf_init(&out, a, SPOOL_HEADER_MAX);
  int rc = spool_encode(m, &out);
  *ret = buf_str(&out);
  return rc;
}

static int message_dir(const struct message *m, bool create) {
  char subdir[2] = {m->spool_subdir[0], '\0'};
  return spool_dir(m->queue_name, subdir, create);
}

struct str spool_body_memory(const struct message *m) {
  const struct spool_state *s = m->spool;
  return s && s->in_memory ? str_tainted(str_n(s->body, s->body_len)) : STR_UNSET;
}

/* --- reception --- */

int spool_data_open(struct ctx *c, struct message *m) {
  int rc = spool_open(c->config);
  if (rc)
    return rc;
  if (!spool_queue_name_valid(m->queue_name))
    return -EINVAL;
  if (!m->id[0])
    message_make_id(m, -1);
  m->spool_subdir[0] = spool_root()->split ? spool_letter(m->id) : '\0';
  spool_state(m)->in_memory = true;
  m->body_size = 0;
  return 0;
}

struct append_job {
  struct message *m;
  struct str rest; /* behind what is in the buffer */
};

/* Writes the buffer and the rest to -D, which is made at the first call. */
static int append_to_file(void *arg) {
  struct append_job *job = arg;
  struct spool_state *s = job->m->spool;
  int rc = 0;
  if (job->m->data_fd < 0) {
    int dir = message_dir(job->m, true);
    job->m->data_fd = dir < 0 ? dir : spool_file_create_data(dir, job->m->id);
    if (job->m->data_fd < 0) {
      rc = job->m->data_fd;
      job->m->data_fd = -1;
      return rc;
    }
    s->has_data = true;
  }
  rc = spool_io_write(job->m->data_fd, s->body, s->body_len);
  s->body_len = 0;
  if (rc == 0 && job->rest.len)
    rc = spool_io_write(job->m->data_fd, job->rest.p, job->rest.len);
  return rc;
}

static void buffer_grow(struct spool_state *s, size_t need) {
  size_t cap = s->body_cap ? s->body_cap : 4096;
  while (cap < need)
    cap *= 2;
  if (cap > s->body_cap) {
    s->body = xrealloc(s->body, cap);
    s->body_cap = cap;
  }
}

int spool_data_write(struct ctx *c, struct message *m, struct str data) {
  struct spool_state *s = spool_state(m);
  if (s->body_len + data.len <= SPOOL_BODY_MEMORY) {
    buffer_grow(s, s->body_len + data.len);
    memcpy(s->body + s->body_len, data.p, data.len);
    s->body_len += data.len;
    m->body_size += data.len;
    return 0;
  }
  s->in_memory = false;
  struct append_job job = {m, data};
  if (data.len < SPOOL_BODY_MEMORY / 2)
    job.rest = STR_EMPTY;
  int rc = fiber_offload(append_to_file, &job);
  if (rc == 0 && !job.rest.len)
    return spool_data_write(c, m, data);
  if (rc == 0)
    m->body_size += data.len;
  return rc;
}

int spool_data_end(struct ctx *c, struct message *m) {
  struct spool_state *s = spool_state(m);
  if (s->in_memory || s->body_len == 0)
    return 0;
  struct append_job job = {m, STR_EMPTY};
  return fiber_offload(append_to_file, &job);
}

struct commit_job {
  struct spool_files files;
  struct message *m;
};

static int commit_files(void *arg) {
  struct commit_job *job = arg;
  job->files.dir = message_dir(job->m, true);
  int rc = job->files.dir < 0 ? job->files.dir : spool_files_create(&job->files);
  if (rc == 0)
    summary_note(job->m, job->files.dir);
  return rc;
}

/* The session outlives neither the message nor a restart. */
static void copy_connection_variables(struct ctx *c, struct message *m) {
  if (m->acl_c || !c->session || !c->session->acl_c)
    return;
  m->acl_c = map_new(m->arena);
  size_t i = 0;
  struct str key;
  void *value;
  while (map_next(c->session->acl_c, &i, &key, &value)) {
    struct str *copy = arena_new_of(m->arena, struct str);
    *copy = str_dup(m->arena, *(struct str *)value);
    copy->taint = ((struct str *)value)->taint;
    map_set(m->acl_c, key, copy);
  }
}

/* Makes -D and -H from what is in memory. */
static int create_files(struct message *m, bool sync) {
  struct spool_state *s = m->spool;
  struct commit_job job = {{.id = m->id, .data_fd = m->data_fd, .sync = sync}, m};
  job.files.body = str_n(s->body, s->body_len);
  struct arena *a = arena_new("spool header");
  int rc = spool_header_text(m, a, &job.files.header);
  if (rc == 0)
    rc = fiber_offload(commit_files, &job);
  arena_free(a);
  m->data_fd = job.files.data_fd;
  if (rc == 0) {
    s->has_files = s->has_data = true;
    if (!s->in_memory)
      s->body_len = 0;
  }
  return rc;
}

/* --- with a log --- */

struct data_job {
  struct message *m;
  int dir;
};

/* A long body and its name are safe before the record says that they are there. */
static int sync_data(void *arg) {
  struct data_job *job = arg;
  struct spool_state *s = job->m->spool;
  int rc = spool_io_write(job->m->data_fd, s->body, s->body_len);
  s->body_len = 0;
  if (rc == 0)
    rc = spool_io_datasync(job->m->data_fd);
  return rc ? rc : spool_io_sync_dir(job->dir);
}

static int commit_to_log(struct message *m) {
  struct spool_state *s = m->spool;
  struct str header, body = STR_EMPTY;
  int rc = 0;
  if (s->in_memory) {
    body = str_n(s->body, s->body_len);
  } else {
    struct data_job job = {m, message_dir(m, true)};
    rc = job.dir < 0 ? job.dir : fiber_offload(sync_data, &job);
  }
  if (rc)
    return rc;
  struct arena *a = arena_new("spool header");
  rc = spool_header_text(m, a, &header);
  if (rc == 0)
    rc = wal_commit(m, header, body, !s->in_memory);
  arena_free(a);
  return rc;
}

int spool_settle(struct message *m) {
  struct spool_state *s = m->spool;
  struct spool_files f = {.id = m->id, .data_fd = m->data_fd, .dir = message_dir(m, true)};
  struct arena *a = arena_new("spool header");
  int rc = f.dir < 0 ? f.dir : spool_header_text(m, a, &f.header);
  if (rc == 0 && s->has_data) {
    rc = spool_file_replace_header(f.dir, m->id, f.header, false);
  } else if (rc == 0) {
    f.body = str_n(s->body, s->body_len);
    rc = spool_files_create(&f);
    m->data_fd = f.data_fd;
  }
  arena_free(a);
  if (rc) {
    log_write(LOG_MAIN | LOG_PANIC, m, "spool files cannot be written: %s", strerror(-rc));
    return rc;
  }
  s->has_files = s->has_data = true;
  summary_note(m, f.dir);
  wal_settled(s->wal);
  return 0;
}

int spool_rest(struct ctx *c, struct message *m) {
  struct spool_state *s = spool_state(m);
  return s->wal && !s->wal->settled ? spool_settle(m) : 0;
}

size_t spool_show_all(int64_t taken, bool (*passing)(const char *id)) {
  return wal_show_all(taken, passing);
}

int spool_log_start(struct ctx *c, void (*recovered)(void *arg, const char *id, struct str queue_name), void *arg) {
  int rc = spool_open(c->config);
  if (rc == 0)
    rc = wal_recover(recovered, arg);
  return rc ? rc : wal_start(recovered, arg);
}

void spool_log_stop(void) {
  wal_stop();
}

int spool_recover(struct ctx *c) {
  int rc = spool_open(c->config);
  return rc ? rc : wal_recover(NULL, NULL);
}

void (*spool_changed)(const struct message *m);

static void changed(const struct message *m) {
  if (spool_changed && !wal_active())
    spool_changed(m);
}

/* --- commit --- */

int spool_commit(struct ctx *c, struct message *m) {
  copy_connection_variables(c, m);
  m->deliver_first_time = true;
  int rc = wal_active() ? commit_to_log(m) : -EFBIG;
  if (rc && rc != -ECANCELED && rc != -EINVAL)
    rc = create_files(m, true);
  if (rc)
    spool_abandon(c, m);
  else
    changed(m);
  return rc;
}

void spool_abandon(struct ctx *c, struct message *m) {
  struct spool_state *s = spool_state(m);
  int dir = s->has_data ? message_dir(m, false) : -1;
  char name[SPOOL_NAME_MAX];
  spool_name(name, m->id, 'D');
  if (dir >= 0)
    unlinkat(dir, name, 0);
  if (m->data_fd >= 0)
    close(m->data_fd);
  m->data_fd = -1;
  s->has_data = s->in_memory = false;
  s->body_len = 0;
}

/* --- changes --- */

struct header_job {
  struct message *m;
  struct str text;
  bool sync;
};

static int replace_header(void *arg) {
  struct header_job *job = arg;
  struct spool_state *s = job->m->spool;
  int dir = message_dir(job->m, false);
  if (dir < 0)
    return dir;
  int rc = spool_file_replace_header(dir, job->m->id, job->text, job->sync);
  if (rc == 0)
    summary_note(job->m, dir);
  if (rc || !s->has_journal)
    return rc;
  char name[SPOOL_NAME_MAX];
  spool_name(name, job->m->id, 'J');
  rc = spool_io_unlink(dir, name);
  return rc == -ENOENT ? 0 : rc;
}

/* Of a message with a live record: the record of the new header is what is waited for. */
static int write_live_header(struct message *m, struct header_job *job, bool durable) {
  struct spool_state *s = m->spool;
  int rc;
  if (!s->has_files) {
    rc = spool_settle(m);
    wal_touch(s->wal);
  } else {
    wal_touch(s->wal);
    rc = fiber_offload(replace_header, job);
  }
  if (rc == 0)
    rc = wal_header(s->wal, job->text, durable);
  if (s->has_files)
    wal_settled(s->wal);
  return rc;
}

int spool_write_header(struct ctx *c, struct message *m, bool durable) {
  struct spool_state *s = spool_state(m);
  struct header_job job = {m, STR_EMPTY, durable && !s->wal};
  struct arena *a = arena_new("spool header");
  int rc = spool_header_text(m, a, &job.text);
  if (rc == 0)
    rc = s->wal ? write_live_header(m, &job, durable) : fiber_offload(replace_header, &job);
  arena_free(a);
  if (rc == 0) {
    s->has_journal = false;
    if (s->journal_fd >= 0)
      close(s->journal_fd);
    s->journal_fd = -1;
    changed(m);
  }
  return rc;
}

struct journal_job {
  struct message *m;
  struct str text;
  bool sync;
};

static int append_journal(void *arg) {
  struct journal_job *job = arg;
  struct spool_state *s = job->m->spool;
  if (s->journal_fd < 0) {
    int dir = message_dir(job->m, false);
    char name[SPOOL_NAME_MAX];
    spool_name(name, job->m->id, 'J');
    int fd = dir < 0 ? dir : spool_io_open(dir, name, O_WRONLY | O_CREAT | O_APPEND, 0640);
    int rc = fd < 0 ? fd : spool_own(fd);
    if (fd < 0)
      return rc;
    s->journal_fd = fd;
    s->has_journal = true;
  }
  off_t before = lseek(s->journal_fd, 0, SEEK_END);
  int rc = spool_io_write(s->journal_fd, job->text.p, job->text.len);
  if (rc && before >= 0) /* half a line would spoil the next one */
    (void)!ftruncate(s->journal_fd, before);
  return rc || !job->sync ? rc : spool_io_datasync(s->journal_fd);
}

int spool_journal(struct ctx *c, struct message *m, const struct str *addresses, size_t n) {
  struct spool_state *s = spool_state(m);
  struct arena *a = arena_new("journal");
  struct buf text;
  buf_init(&text, a, SPOOL_HEADER_MAX);
  for (size_t i = 0; i < n; i++) {
    if (memchr(addresses[i].p, '\n', addresses[i].len))
      continue;
    buf_add(&text, addresses[i]);
    buf_add_byte(&text, '\n');
  }
  struct journal_job job = {m, buf_str(&text), !wal_active()};
  int rc = 0;
  if (text.len && wal_active())
    wal_done(m, job.text);
  if (text.len && s->has_files)
    rc = job.sync ? fiber_offload(append_journal, &job) : append_journal(&job);
  if (s->wal && s->has_files)
    wal_settled(s->wal);
  arena_free(a);
  return rc;
}

int spool_remove(struct ctx *c, struct message *m) {
  struct spool_state *s = spool_state(m);
  int rc = 0;
  if (!s->wal || s->has_data) {
    int dir = message_dir(m, false);
    rc = dir < 0 ? dir : spool_files_remove(dir, m->id, s->has_journal);
  }
  if (rc == 0 && s->wal)
    wal_gone(s->wal);
  if (m->data_fd >= 0)
    close(m->data_fd);
  m->data_fd = -1;
  s->has_files = s->has_data = s->has_journal = false;
  if (rc == 0)
    changed(m);
  return rc;
}
