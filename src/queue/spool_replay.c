/* Reading logs of processes that are no more: each message whose record is
live gets its files (again). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/map.h"
#include "base/vec.h"
#include "log/log.h"
#include "queue/spool_wal.h"

/* What the records say about one message. */
struct replayed {
  char id[24], subdir[2];
  struct str queue_name;
  bool message, body_in_file;
  struct str header, body, done;
};

struct replay {
  struct arena *arena;
  struct map *by_id;
  VEC(struct replayed *) v;
};

int wal_invalidate(int fd) {
  struct wal_header h = {WAL_FILE_MAGIC, 0};
  int rc = spool_io_pwrite(fd, (const char *)&h, sizeof h, 0);
  return rc ? rc : spool_io_datasync(fd);
}

static struct replayed *entry(struct replay *p, const struct wal_record *r, struct str queue_name) {
  char id[24] = "";
  memcpy(id, r->id, sizeof r->id);
  struct replayed *e = map_get(p->by_id, str_c(id));
  if (e)
    return e;
  e = arena_new_of(p->arena, struct replayed);
  memcpy(e->id, id, sizeof id);
  e->subdir[0] = r->subdir;
  e->queue_name = str_dup(p->arena, queue_name);
  e->done = STR_EMPTY;
  map_set(p->by_id, str_c(id), e);
  vec_push(p->arena, &p->v, e);
  return e;
}

static void take(struct replay *p, const struct wal_record *r, const char *payload) {
  struct str queue_name = str_n(payload, r->queue_len), text = str_n(payload + r->queue_len, r->text_len);
  struct replayed *e = entry(p, r, queue_name);
  switch (r->type) {
    case WAL_MESSAGE:
      e->message = true;
      e->body_in_file = r->body_in_file;
      e->header = text;
      e->body = str_n(payload + r->queue_len + r->text_len, r->body_len);
      break;
    case WAL_HEADER: e->header = text; break;
    case WAL_DONE: e->done = str_cat(p->arena, e->done, text); break;
    case WAL_GONE: /* what is said later is about its files */
      e->message = false;
      e->done = STR_EMPTY;
      break;
    default: break;
  }
}

/* `text` is a whole file; stays in memory while its records are used. */
static void read_records(struct replay *p, struct str text, uint32_t generation) {
  size_t pos = sizeof(struct wal_header);
  while (text.len - pos >= sizeof(struct wal_record)) {
    struct wal_record r, zeroed;
    memcpy(&r, text.p + pos, sizeof r);
    if (r.magic != WAL_RECORD_MAGIC || r.generation != generation || r.text_len > WAL_RECORD_MAX ||
        r.body_len > WAL_RECORD_MAX)
      return;
    size_t size = wal_record_size(r.queue_len, r.text_len, r.body_len);
    if (size > text.len - pos)
      return;
    char *copy = (char *)(uintptr_t)text.p + pos; /* our own memory */
    zeroed = r;
    zeroed.checksum = 0;
    memcpy(copy, &zeroed, sizeof zeroed);
    if (wal_checksum(copy, size, generation) != r.checksum || !message_id_valid(str_n(r.id, strnlen(r.id, 23))))
      return;
    take(p, &r, text.p + pos + sizeof r);
    pos += size;
  }
}

/* --- back to files --- */

/* Are the files there, whole? (The log may be older than what was done to them.) */
static bool files_whole(int dir, const struct replayed *e) {
  char name[SPOOL_NAME_MAX], *text;
  struct stat st;
  size_t len;
  int line;
  spool_name(name, e->id, 'D');
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
    return false;
  if (!e->body_in_file && (size_t)st.st_size != strlen(name) + 1 + e->body.len)
    return false;
  spool_name(name, e->id, 'H');
  if (spool_file_read(dir, name, SPOOL_HEADER_MAX, &text, &len))
    return false;
  struct message *m = message_new("replay");
  bool whole = spool_decode(str_n(text, len), m, &line) == 0;
  message_free(m);
  free(text);
  return whole;
}

static int append_done(int dir, const struct replayed *e) {
  char name[SPOOL_NAME_MAX];
  if (!e->done.len)
    return 0;
  spool_name(name, e->id, 'J');
  int fd = spool_io_open(dir, name, O_WRONLY | O_CREAT | O_APPEND, 0640);
  if (fd < 0)
    return fd;
  int rc = spool_own(fd);
  if (rc == 0)
    rc = spool_io_write(fd, e->done.p, e->done.len);
  close(fd);
  return rc;
}

static int restore(int dir, const struct replayed *e) {
  char name[SPOOL_NAME_MAX];
  struct spool_files f = {.dir = dir, .id = e->id, .header = e->header, .data_fd = -1, .body = e->body};
  if (files_whole(dir, e))
    return 0;
  spool_name(name, e->id, 'D');
  if (e->body_in_file)
    return spool_file_replace_header(dir, e->id, e->header, false);
  (void)unlinkat(dir, name, 0);
  int rc = spool_files_create(&f);
  if (rc == 0)
    close(f.data_fd);
  return rc;
}

static int bring_back(const struct replayed *e, bool *ret_back) {
  char name[SPOOL_NAME_MAX];
  if (!e->message && !e->done.len)
    return 0;
  int dir = spool_dir(e->queue_name, e->subdir, e->message);
  if (dir < 0)
    return dir == -ENOENT ? 0 : dir;
  if (!e->message) { /* it had files before this log began */
    spool_name(name, e->id, 'H');
    return faccessat(dir, name, F_OK, 0) ? 0 : append_done(dir, e);
  }
  int rc = restore(dir, e);
  if (rc == 0)
    rc = append_done(dir, e);
  *ret_back = rc == 0;
  return rc;
}

static int compare_generations(const void *a, const void *b) {
  const uint32_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

int wal_replay(const int *fds, int n, void (*fn)(void *arg, const char *id, struct str queue_name), void *arg) {
  struct file {
    uint32_t generation;
    char *text;
    size_t len;
  } files[2] = {0};
  struct replay p = {.arena = arena_new("replay")};
  p.by_id = map_new(p.arena);
  int rc = 0;
  for (int i = 0; i < n && i < 2; i++) {
    struct wal_header h;
    if (pread(fds[i], &h, sizeof h, 0) != sizeof h || h.magic != WAL_FILE_MAGIC || h.generation == 0)
      continue;
    files[i].generation = h.generation;
    files[i].text = xmalloc(WAL_FILE_SIZE);
    ssize_t got = pread(fds[i], files[i].text, WAL_FILE_SIZE, 0);
    files[i].len = got < 0 ? 0 : (size_t)got;
  }
  qsort(files, 2, sizeof *files, compare_generations);
  for (int i = 0; i < 2; i++)
    if (files[i].len > sizeof(struct wal_header))
      read_records(&p, str_n(files[i].text, files[i].len), files[i].generation);
  bool any = p.v.n > 0;
  for (size_t i = 0; i < p.v.n && rc == 0; i++) {
    bool back = false;
    rc = bring_back(p.v.v[i], &back);
    if (back && fn)
      fn(arg, p.v.v[i]->id, p.v.v[i]->queue_name);
  }
  if (rc == 0 && any)
    rc = spool_io_sync_fs(spool_root()->fd);
  for (int i = 0; i < n && rc == 0 && any; i++)
    rc = wal_invalidate(fds[i]);
  free(files[0].text);
  free(files[1].text);
  arena_free(p.arena);
  return rc;
}

int wal_recover(void (*fn)(void *arg, const char *id, struct str queue_name), void *arg) {
  int result = 0;
  for (int slot = 0; slot < WAL_SLOTS; slot++) {
    int fd[2] = {wal_open_file(slot, 0, false), -1};
    if (fd[0] == -ENOENT)
      break;
    if (fd[0] < 0) {
      result = fd[0];
      continue;
    }
    if (spool_io_lock(fd[0]) == 0) { /* else its process lives */
      fd[1] = wal_open_file(slot, 1, false);
      int rc = wal_replay(fd, fd[1] < 0 ? 1 : 2, fn, arg);
      if (rc) {
        log_write(LOG_MAIN | LOG_PANIC, NULL, "spool log %d cannot be replayed: %s", slot, strerror(-rc));
        result = rc;
      }
    }
    if (fd[1] >= 0)
      close(fd[1]);
    close(fd[0]);
  }
  return result;
}
