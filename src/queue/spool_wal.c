/* Writing the log. Records gather in memory while a flush runs; whoever waits
first when none runs writes and syncs for all. */
#include "queue/spool_wal.h"

#include <sys/statvfs.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "log/log.h"
#include "loop/fiber.h"

#define BUCKETS 1024
#define LAZY_USEC 50000        /* what nobody waits for is on disk by then */
#define CHECKPOINT_USEC 500000
#define HOT_USEC 1000000         /* what is not delivered by then gets files, so that others see it */
#define BATCH_MAX (8u << 20)

struct waiter {
  struct fiber *fiber;
  struct waiter *next;
};

/* Attempts of a checkpoint to empty the file that is needed next. */
#define ROTATE_ATTEMPTS 3

static struct wal {
  bool active;
  int fd[2];
  int current;
  uint32_t generation;         /* of the current file */
  size_t used;                 /* bytes in it */
  struct wal_message *pending; /* with records not yet given to a file */
  struct wal_message *live[2]; /* with records in the files */
  struct wal_message *settled, **settled_tail;
  struct wal_message *hash[BUCKETS];
  /* records on their way */
  char *buffer, *flushing;
  size_t buffer_len, buffer_cap, flushing_cap;
  uint64_t appended, flushed;  /* bytes ever */
  int error;                   /* of the last flush */
  uint64_t failed_to;          /* records up to here were lost by an error … */
  uint64_t failed_from;        /* … from here */
  bool flush_runs, rotate_waits, checkpoint_runs, lazy_set, checkpoint_set;
  struct waiter *waiters;
} wal = {.fd = {-1, -1}, .settled_tail = &wal.settled};

bool wal_active(void) {
  return wal.active;
}

uint64_t wal_checksum(const void *p, size_t n, uint64_t seed) {
  const unsigned char *b = p;
  uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15ull), word;
  for (; n >= 8; n -= 8, b += 8) {
    memcpy(&word, b, 8);
    h = (h ^ word) * 0xff51afd7ed558ccdull;
    h ^= h >> 32;
  }
  for (word = 0; n; n--)
    word = word << 8 | b[n - 1];
  h = (h ^ word) * 0xc4ceb9fe1a85ec53ull;
  return h ^ h >> 29;
}

size_t wal_record_size(size_t queue_len, size_t text_len, size_t body_len) {
  return (sizeof(struct wal_record) + queue_len + text_len + body_len + 7) & ~(size_t)7;
}

/* --- live messages --- */

static struct wal_message **bucket(const char *id) {
  return &wal.hash[str_hash(str_c(id)) % BUCKETS];
}

struct wal_message *wal_find(const char *id) {
  struct wal_message *w = wal.active ? *bucket(id) : NULL;
  while (w && strcmp(w->id, id) != 0)
    w = w->hash_next;
  return w;
}

static void link_to(struct wal_message *w, struct wal_message **list) {
  w->next = *list;
  w->link = list;
  if (w->next)
    w->next->link = &w->next;
  *list = w;
}

static void unlink_from(struct wal_message *w) {
  *w->link = w->next;
  if (w->next)
    w->next->link = w->link;
}

static void sweep_soon(void);

static struct wal_message *live_new(struct message *m) {
  struct wal_message *w = xcalloc(1, sizeof *w + m->queue_name.len);
  memcpy(w->id, m->id, sizeof w->id);
  w->subdir[0] = m->spool_subdir[0];
  memcpy((char *)(w + 1), m->queue_name.p, m->queue_name.len);
  w->queue_name = str_n((char *)(w + 1), m->queue_name.len);
  w->message = m;
  w->since = loop_now();
  struct wal_message **head = bucket(w->id);
  w->hash_next = *head;
  *head = w;
  link_to(w, &wal.pending);
  sweep_soon();
  return w;
}

static void unlink_settled(struct wal_message *w) {
  if (!w->settled_link)
    return;
  *w->settled_link = w->settled_next;
  if (w->settled_next)
    w->settled_next->settled_link = w->settled_link;
  else if (wal.settled_tail == &w->settled_next)
    wal.settled_tail = w->settled_link;
  w->settled_link = NULL;
}

static void live_free(struct wal_message *w) {
  struct wal_message **p = bucket(w->id);
  while (*p != w)
    p = &(*p)->hash_next;
  *p = w->hash_next;
  unlink_from(w);
  unlink_settled(w);
  if (w->message && w->message->spool)
    w->message->spool->wal = NULL;
  free(w);
}

/* --- records --- */

static void append(enum wal_type type, const char *id, char subdir, struct str queue_name, struct str text,
    struct str body, bool body_in_file) {
  size_t size = wal_record_size(queue_name.len, text.len, body.len);
  if (wal.buffer_len + size > wal.buffer_cap) {
    wal.buffer_cap = (wal.buffer_len + size) * 2;
    wal.buffer = xrealloc(wal.buffer, wal.buffer_cap);
  }
  struct wal_record r = {.magic = WAL_RECORD_MAGIC, .type = type, .subdir = subdir, .body_in_file = body_in_file};
  char *p = wal.buffer + wal.buffer_len;
  r.queue_len = (uint8_t)queue_name.len;
  r.text_len = text.len;
  r.body_len = body.len;
  memcpy(r.id, id, strnlen(id, sizeof r.id));
  memset(p + size - 8, 0, 8);
  memcpy(p, &r, sizeof r);
  char *to = p + sizeof r;
  memcpy(to, queue_name.p, queue_name.len);
  to += queue_name.len;
  memcpy(to, text.p, text.len);
  to += text.len;
  if (body.len)
    memcpy(to, body.p, body.len);
  wal.buffer_len += size;
  wal.appended += size;
}

/* The file that a record goes to is known when it is written: its generation and checksum are set then. */
static void seal(char *p, size_t n, uint32_t generation) {
  while (n) {
    struct wal_record r;
    memcpy(&r, p, sizeof r);
    size_t size = wal_record_size(r.queue_len, r.text_len, r.body_len);
    r.generation = generation;
    memcpy(p, &r, sizeof r);
    r.checksum = wal_checksum(p, size, generation);
    memcpy(p, &r, sizeof r);
    p += size;
    n -= size;
  }
}

/* --- flushing --- */

struct flush {
  int fd;
  const char *p;
  size_t n;
  off_t offset;
  uint32_t generation;
  bool first; /* the file's header goes along */
};

static int write_batch(void *arg) {
  struct flush *f = arg;
  int rc = 0;
  if (f->first) {
    struct wal_header h = {WAL_FILE_MAGIC, f->generation};
    rc = spool_io_pwrite(f->fd, (const char *)&h, sizeof h, 0);
  }
  if (rc == 0)
    rc = spool_io_pwrite(f->fd, f->p, f->n, f->offset);
  return rc ? rc : spool_io_datasync(f->fd);
}

static void wake_all(void) {
  struct waiter *list = wal.waiters;
  wal.waiters = NULL;
  for (; list; list = list->next)
    fiber_wake(list->fiber);
}

static int park(void) {
  struct waiter self = {fiber_self(), wal.waiters};
  if (!self.fiber)
    return -EDEADLK;
  wal.waiters = &self;
  int rc = fiber_park(DEADLINE_NEVER);
  for (struct waiter **p = &wal.waiters; *p; p = &(*p)->next)
    if (*p == &self) {
      *p = self.next;
      break;
    }
  return rc;
}

static void checkpoint_start(void);

/* Makes room: the other file, once nothing in it is live. */
static int rotate(void) {
  int other = !wal.current;
  for (int n = 0; wal.live[other]; n++) {
    if (n == ROTATE_ATTEMPTS)
      return -ENOSPC;
    wal.rotate_waits = true;
    checkpoint_start();
    int rc = fiber_self() ? park() : 0;
    wal.rotate_waits = false;
    if (rc)
      return rc;
  }
  wal.current = other;
  wal.generation++;
  if (wal.generation == 0)
    wal.generation = 1;
  wal.used = sizeof(struct wal_header);
  return 0;
}

/* Writes what has gathered. The caller has set flush_runs. */
static void flush_once(void) {
  size_t n = wal.buffer_len;
  uint64_t from = wal.appended - n;
  if (wal.used + n > WAL_FILE_SIZE) {
    wal.error = rotate();
    if (wal.error)
      return;
    n = wal.buffer_len; /* it may have waited */
    from = wal.appended - n;
  }
  while (wal.pending) {
    struct wal_message *w = wal.pending;
    unlink_from(w);
    link_to(w, &wal.live[wal.current]);
  }
  char *p = wal.buffer;
  size_t cap = wal.buffer_cap;
  wal.buffer = wal.flushing;
  wal.buffer_cap = wal.flushing_cap;
  wal.buffer_len = 0;
  wal.flushing = p;
  wal.flushing_cap = cap;
  seal(p, n, wal.generation);
  struct flush f = {wal.fd[wal.current], p, n, (off_t)wal.used, wal.generation,
    wal.used == sizeof(struct wal_header)};
  int rc = fiber_offload(write_batch, &f);
  wal.error = rc;
  if (rc) {
    /* The next batch goes over this one. */
    wal.failed_from = from;
    wal.failed_to = from + n;
    log_write(LOG_MAIN | LOG_PANIC, NULL, "spool log: %s", strerror(-rc));
  } else {
    wal.used += n;
    /* Room is made early, so that the next rotation need not wait. */
    if (wal.used > WAL_FILE_SIZE / 2 && wal.live[!wal.current] && !wal.checkpoint_runs)
      checkpoint_start();
  }
  wal.flushed = from + n;
}

static void flush_all(void) {
  while (wal.flush_runs)
    if (park())
      return;
  wal.flush_runs = true;
  if (wal.buffer_len)
    flush_once();
  wal.flush_runs = false;
  wake_all();
}

/* Until all that was appended is on disk. */
static int wait_for(uint64_t position) {
  while (wal.flushed < position) {
    if (!wal.flush_runs) {
      uint64_t before = wal.flushed;
      flush_all();
      if (wal.flushed == before)
        return wal.error ? wal.error : -EIO;
      continue;
    }
    int rc = park();
    if (rc)
      return rc;
  }
  if (position > wal.failed_from && position <= wal.failed_to)
    return wal.error ? wal.error : -EIO;
  return 0;
}

static void lazy_fiber(void *arg) {
  wal.lazy_set = false;
  if (wal.active && wal.buffer_len)
    flush_all();
}

static void lazy_timer(void *arg) {
  (void)fiber_spawn("spool log", lazy_fiber, NULL);
}

static void flush_soon(void) {
  if (wal.lazy_set)
    return;
  wal.lazy_set = true;
  (void)loop_timer_start(LAZY_USEC, lazy_timer, NULL);
}

/* --- checkpoint: files of settled messages are made safe --- */

static int sync_spool(void *arg) {
  return spool_io_sync_fs(spool_root()->fd);
}

static void settle_list(struct wal_message *w, usec_t before) {
  for (struct wal_message *next; w; w = next) {
    next = w->next;
    if (!w->settled && w->message && w->since <= before)
      (void)spool_settle(w->message);
  }
}

static size_t show_list(struct wal_message *w, usec_t taken, bool (*passing)(const char *id)) {
  size_t n = 0;
  for (struct wal_message *next; w; w = next) {
    next = w->next;
    if (w->since > taken || !w->message || w->message->spool->wal != w)
      continue; /* taken later, at rest, or not yet anybody's business */
    if (!w->settled)
      (void)spool_settle(w->message);
    n += passing(w->id);
  }
  return n;
}

size_t wal_show_all(usec_t taken, bool (*passing)(const char *id)) {
  return show_list(wal.pending, taken, passing) + show_list(wal.live[0], taken, passing) + show_list(wal.live[1], taken, passing);
}

/* Files for messages that are still hot in the file that is to be written next. */
static void settle_old_file(void) {
  if (wal.rotate_waits || wal.used > WAL_FILE_SIZE / 2)
    settle_list(wal.live[!wal.current], DEADLINE_NEVER);
}

static void checkpoint_fiber(void *arg) {
  wal.checkpoint_set = false;
  if (!wal.active || wal.checkpoint_runs)
    return;
  wal.checkpoint_runs = true;
  settle_old_file();
  settle_list(wal.live[wal.current], loop_now() - HOT_USEC);
  settle_list(wal.live[!wal.current], loop_now() - HOT_USEC);
  /* Those that settle (or change) while the sync runs wait for the next. */
  struct wal_message *list = wal.settled;
  wal.settled = NULL;
  wal.settled_tail = &wal.settled;
  if (list) {
    list->settled_link = &list;
    int rc = fiber_offload(sync_spool, NULL);
    if (rc)
      log_write(LOG_MAIN | LOG_PANIC, NULL, "spool log: %s", strerror(-rc));
    while (list) {
      struct wal_message *w = list;
      if (rc) {
        unlink_settled(w);
        wal_settled(w);
      } else {
        wal_gone(w);
      }
    }
  }
  wal.checkpoint_runs = false;
  wake_all();
  sweep_soon();
}

static void checkpoint_timer(void *arg) {
  (void)fiber_spawn("spool checkpoint", checkpoint_fiber, NULL);
}

static void checkpoint_start(void) {
  if (wal.checkpoint_runs)
    return;
  if (fiber_self())
    (void)fiber_spawn("spool checkpoint", checkpoint_fiber, NULL);
  else
    checkpoint_fiber(NULL);
}

/* While there is anything live, it is looked after. */
static void sweep_soon(void) {
  if (wal.checkpoint_set || !(wal.pending || wal.live[0] || wal.live[1]))
    return;
  wal.checkpoint_set = true;
  (void)loop_timer_start(CHECKPOINT_USEC, checkpoint_timer, NULL);
}

void wal_touch(struct wal_message *w) {
  unlink_settled(w);
}

void wal_settled(struct wal_message *w) {
  unlink_settled(w);
  w->settled = true;
  w->settled_next = NULL;
  w->settled_link = wal.settled_tail;
  *wal.settled_tail = w;
  wal.settled_tail = &w->settled_next;
  sweep_soon();
}

/* --- what the spool calls --- */

int wal_commit(struct message *m, struct str header, struct str body, bool body_in_file) {
  if (wal_record_size(m->queue_name.len, header.len, body.len) > WAL_RECORD_MAX || wal.buffer_len > BATCH_MAX)
    return -EFBIG;
  append(WAL_MESSAGE, m->id, m->spool_subdir[0], m->queue_name, header, body, body_in_file);
  struct wal_message *w = live_new(m);
  w->settled = true; /* not yet anybody's business */
  int rc = wait_for(wal.appended);
  if (rc) {
    wal_gone(w); /* in case the record is on disk, or comes there */
    return rc;
  }
  w->settled = false;
  m->spool->wal = w;
  return 0;
}

int wal_header(struct wal_message *w, struct str header, bool wait) {
  if (wal_record_size(w->queue_name.len, header.len, 0) > WAL_RECORD_MAX)
    return -EFBIG;
  append(WAL_HEADER, w->id, w->subdir[0], w->queue_name, header, STR_EMPTY, false);
  if (wait)
    return wait_for(wal.appended);
  flush_soon();
  return 0;
}

void wal_done(const struct message *m, struct str addresses) {
  append(WAL_DONE, m->id, m->spool_subdir[0], m->queue_name, addresses, STR_EMPTY, false);
  flush_soon();
}

void wal_gone(struct wal_message *w) {
  if (!wal.active)
    return;
  append(WAL_GONE, w->id, w->subdir[0], w->queue_name, STR_EMPTY, STR_EMPTY, false);
  live_free(w);
  flush_soon();
}

/* --- start and end --- */

/* On a small or nearly full file system the room is for the messages. */
static bool has_room(int fd) {
  struct statvfs v;
  return fstatvfs(fd, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize >= 16ull * WAL_FILE_SIZE;
}

int wal_open_file(int slot, int which, bool create) {
  static const char zeros[64 << 10];
  char name[32];
  int dir = spool_other_dir("wal", create);
  if (dir < 0)
    return dir;
  snprintf(name, sizeof name, "%d%c", slot, which ? 'b' : 'a');
  int fd = spool_io_open(dir, name, O_RDWR | (create ? O_CREAT : 0), 0640);
  if (fd < 0 || !create)
    return fd;
  /* Written once, so that later syncs need not change where the file lies. */
  off_t size = lseek(fd, 0, SEEK_END);
  int rc = size < 0 ? -errno : size == 0 && !has_room(fd) ? -ENOSPC : spool_own(fd);
  for (; rc == 0 && size < WAL_FILE_SIZE; size += (off_t)sizeof zeros)
    rc = spool_io_pwrite(fd, zeros, sizeof zeros, size);
  if (rc == 0)
    rc = spool_io_sync_dir(fd);
  if (rc == 0)
    return fd;
  if (rc == -ENOSPC)
    (void)!ftruncate(fd, 0); /* a part of a file helps nobody, and the messages need the room */
  close(fd);
  return rc;
}

static int open_slot(int slot, int *fd) {
  fd[0] = wal_open_file(slot, 0, true);
  if (fd[0] < 0)
    return fd[0];
  int rc = spool_io_lock(fd[0]);
  if (rc == 0) {
    fd[1] = wal_open_file(slot, 1, true);
    if (fd[1] >= 0)
      return 0;
    rc = fd[1];
  }
  close(fd[0]);
  return rc;
}

int wal_start(void (*fn)(void *arg, const char *id, struct str queue_name), void *arg) {
  int fd[2], rc = -EAGAIN;
  for (int slot = 0; slot < WAL_SLOTS && rc == -EAGAIN; slot++)
    rc = open_slot(slot, fd);
  if (rc == 0)
    rc = wal_replay(fd, 2, fn, arg);
  if (rc)
    return rc;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  wal.fd[0] = fd[0];
  wal.fd[1] = fd[1];
  wal.current = 0;
  /* Not one that leftovers in the file may have. */
  wal.generation = (uint32_t)now.tv_sec | 1;
  wal.used = sizeof(struct wal_header);
  wal.active = true;
  return 0;
}

void wal_stop(void) {
  if (!wal.active)
    return;
  settle_list(wal.live[0], DEADLINE_NEVER);
  settle_list(wal.live[1], DEADLINE_NEVER);
  bool all = true;
  for (int i = 0; i < 2; i++)
    for (const struct wal_message *w = wal.live[i]; w; w = w->next)
      all &= w->settled;
  flush_all();
  if (all && fiber_offload(sync_spool, NULL) == 0)
    for (int i = 0; i < 2; i++)
      (void)wal_invalidate(wal.fd[i]);
  while (wal.pending)
    live_free(wal.pending);
  for (int i = 0; i < 2; i++) {
    while (wal.live[i])
      live_free(wal.live[i]);
    close(wal.fd[i]);
  }
  free(wal.buffer);
  free(wal.flushing);
  bool lazy = wal.lazy_set, checkpoint = wal.checkpoint_set;
  /* Timers may still fire: they find nothing to do. */
  wal = (struct wal){.fd = {-1, -1}, .settled_tail = &wal.settled, .lazy_set = lazy, .checkpoint_set = checkpoint};
}
