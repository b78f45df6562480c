#include "queue/summary.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/map.h"
#include "message/message.h"
#include "queue/spool_internal.h"

#define FILE_NAME "messages"
#define RECORD_MAX (64u << 10)
#define FILE_MAX (1u << 30)
#define BATCH (1u << 20)
/* The file is made anew when it has grown past this and past GROWTH times what was left last time. */
#define SMALL (4u << 20)
#define GROWTH 3

/* One at a time in a process: flock holds processes apart, not threads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- records --- */

static bool plain(struct str s) { return !s.len || (!memchr(s.p, '\n', s.len) && !memchr(s.p, '\t', s.len)); }

static uint64_t shown_size(const struct message *m) {
  uint64_t size = m->body_size;
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED)
      size += h->text.len;
  return size;
}

/* Leading and closing marks tell a record that was not written to its end. */
static bool encode(const struct message *m, ino_t inode, struct buf *b) {
  struct str login = m->reverse_path_set_untrusted ? m->originator_login : STR_EMPTY;
  size_t start = b->len;
  size_t done = 0;
  if (!plain(m->reverse_path) || !plain(login))
    return false;
  for (size_t i = 0; i < m->recipients.n; i++)
    done += message_is_nonrecipient(m, m->recipients.v[i].address);
  bool generated = m->nonrecipients && map_count(m->nonrecipients) > done;
  buf_printf(b, "\n%s\t%llu\t%lld\t%llu\t%u\t%c%c%c\t%.*s\t%.*s\t%zu", m->id, (unsigned long long)inode,
    (long long)m->received_time.tv_sec, (unsigned long long)shown_size(m), m->originator_uid, m->frozen ? 'f' : '-',
    generated ? 'g' : '-', m->reverse_path_set_untrusted ? 'u' : '-', STRF(login), STRF(m->reverse_path), m->recipients.n);
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    if (!plain(address) || b->len - start > RECORD_MAX) {
      b->len = start;
      return false;
    }
    buf_printf(b, "\t%c%.*s", message_is_nonrecipient(m, address) ? 'D' : ' ', STRF(address));
  }
  buf_add_c(b, "\t.\n");
  if (b->overflow)
    b->len = start;
  return !b->overflow;
}

static uint64_t number(struct str *line) {
  uint64_t n = 0;
  struct str field = str_cut(line, '\t');
  for (uint32_t i = 0; i < field.len && field.p[i] >= '0' && field.p[i] <= '9'; i++)
    n = n * 10 + (uint64_t)(field.p[i] - '0');
  return n;
}

/* Not the id, which was cut off. */
static bool decode(struct str line, struct summary *ret) {
  if (!str_ends(line, STR("\t.")))
    return false;
  ret->inode = (ino_t)number(&line);
  ret->received = (int64_t)number(&line);
  ret->size = number(&line);
  ret->uid = (uint32_t)number(&line);
  struct str flags = str_cut(&line, '\t');
  struct str login = str_cut(&line, '\t');
  ret->sender = str_tainted(str_cut(&line, '\t'));
  ret->recipients_n = (size_t)number(&line);
  ret->recipients = line;
  if (flags.len != 3 || !str_is_set(line))
    return false;
  ret->frozen = flags.p[0] == 'f';
  ret->generated = flags.p[1] == 'g';
  ret->login = flags.p[2] == 'u' ? str_tainted(login) : STR_UNSET;
  return true;
}

bool summary_next_recipient(struct summary *s, struct summary_recipient *ret) {
  if (!s->recipients_n)
    return false;
  struct str field = str_cut(&s->recipients, '\t');
  if (!str_is_set(s->recipients) || field.len == 0)
    return false;
  s->recipients_n--;
  ret->done = field.p[0] == 'D';
  ret->address = str_tainted(str_slice(field, 1, field.len));
  return true;
}

/* --- the file --- */

/* Whether the directory outlives a crash does not matter, unlike that of others. */
static int directory(struct str queue_name, bool create) {
  char path[100];
  int dir = spool_purpose_dir(queue_name, "summary", "", false);
  if (dir != -ENOENT || !create)
    return dir;
  snprintf(path, sizeof path, "%.*s%ssummary", STRF(queue_name), queue_name.len ? "/" : "");
  if (mkdirat(spool_root()->fd, path, 0750) && errno != EEXIST)
    return -errno;
  dir = spool_purpose_dir(queue_name, "summary", "", false);
  if (dir >= 0)
    (void)spool_own(dir);
  return dir;
}

/* Opens and locks the file that bears the name (another may just have been put in its place). */
static int open_locked(int dir, struct stat *st) {
  for (int i = 0; i < 10; i++) {
    int fd = openat(dir, FILE_NAME, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
      return -errno;
    if (flock(fd, LOCK_EX) == 0 && fstat(fd, st) == 0 && st->st_nlink > 0) {
      if (st->st_size == 0)
        (void)spool_own(fd);
      return fd;
    }
    close(fd);
  }
  return -EAGAIN;
}

/* A record that was not written whole does no harm. */
static void append(int dir, struct str text, off_t *ret_size) {
  struct stat st;
  *ret_size = 0;
  int fd = open_locked(dir, &st);
  if (fd < 0)
    return;
  if (st.st_size < (off_t)FILE_MAX) {
    (void)!write(fd, text.p, text.len);
    *ret_size = st.st_size + (off_t)text.len;
  }
  close(fd);
}

/* Size of what was kept when the file was made anew: its first line. */
static size_t kept_size(int dir) {
  char first[32] = "";
  int fd = openat(dir, FILE_NAME, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0;
  ssize_t n = read(fd, first, sizeof first - 1);
  close(fd);
  return n > 1 && first[0] == '#' ? strtoul(first + 1, NULL, 10) : 0;
}

/* --- all of a queue --- */

struct summaries {
  struct str queue_name;
  char *text;
  size_t len, count;
  struct place {
    const char *id;
    uint32_t id_len, line_len;
  } *places;
  size_t slots;
  struct buf added;
};

static size_t slot_of(const struct summaries *s, struct str id) {
  size_t i = str_hash(id) & (s->slots - 1);
  while (s->places[i].id && !str_eq(str_n(s->places[i].id, s->places[i].id_len), id))
    i = (i + 1) & (s->slots - 1);
  return i;
}

static void grow(struct summaries *s) {
  struct place *old = s->places;
  size_t n = s->slots;
  s->slots = n ? n * 2 : 1024;
  s->places = xcalloc(s->slots, sizeof *s->places);
  for (size_t i = 0; i < n; i++)
    if (old[i].id)
      s->places[slot_of(s, str_n(old[i].id, old[i].id_len))] = old[i];
  free(old);
}

static void index_line(struct summaries *s, struct str line) {
  const char *end = line.len ? memchr(line.p, '\t', line.len) : NULL;
  if (!end || line.p[0] == '#' || end - line.p > 23)
    return;
  if (s->count * 2 >= s->slots)
    grow(s);
  struct str id = str_n(line.p, (size_t)(end - line.p));
  struct place *p = &s->places[slot_of(s, id)];
  s->count += !p->id;
  *p = (struct place){id.p, id.len, line.len};
}

static void release(void *arg) {
  struct summaries *s = arg;
  free(s->text);
  free(s->places);
}

static void read_all(struct summaries *s, int dir) {
  if (spool_file_read(dir, FILE_NAME, FILE_MAX, &s->text, &s->len) != 0)
    return;
  for (size_t at = 0; at < s->len;) {
    const char *line = s->text + at, *end = memchr(line, '\n', s->len - at);
    if (!end)
      break;
    index_line(s, str_n(line, (size_t)(end - line)));
    at = (size_t)(end - s->text) + 1;
  }
}

struct summaries *summaries_load(struct arena *a, struct str queue_name) {
  struct summaries *s = arena_new_of(a, struct summaries);
  s->queue_name = queue_name;
  buf_init(&s->added, a, 2 * BATCH);
  arena_cleanup(a, release, s);
  int dir = directory(queue_name, false);
  if (dir >= 0)
    read_all(s, dir);
  return s;
}

bool summaries_find(const struct summaries *s, const char *id, ino_t inode, struct summary *ret) {
  if (!s->count)
    return false;
  const struct place *p = &s->places[slot_of(s, str_c(id))];
  *ret = (struct summary){.id = str_n(p->id ? p->id : "", p->id_len)};
  return p->id && decode(str_n(p->id + p->id_len + 1, p->line_len - p->id_len - 1), ret) && ret->inode == inode;
}

/* Keeps the last record of each message that is there. With the lock held. */
static void rewrite(struct str queue_name, int dir) {
  struct arena *a = arena_new("summaries");
  struct spool_entry *v;
  size_t n, out = 0;
  struct summaries *s = arena_new_of(a, struct summaries);
  struct stat st;
  arena_cleanup(a, release, s);
  int fd = open_locked(dir, &st), to = -1;
  if (fd >= 0 && spool_scan_names(queue_name, &v, &n) == 0) {
    read_all(s, dir);
    char *text = xmalloc(s->len + 64);
    out = (size_t)snprintf(text, 64, "%-20s\n", "#");
    for (size_t i = 0; s->count && i < n; i++) {
      const struct place *p = &s->places[slot_of(s, str_c(v[i].id))];
      if (!p->id)
        continue;
      memcpy(text + out, p->id, p->line_len);
      out += p->line_len;
      text[out++] = '\n';
    }
    char size[24];
    int k = snprintf(size, sizeof size, "#%zu", out);
    memcpy(text, size, (size_t)k);
    to = openat(dir, FILE_NAME ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (to >= 0 && spool_own(to) == 0 && spool_io_write(to, text, out) == 0)
      (void)spool_io_rename(dir, FILE_NAME ".new", dir, FILE_NAME);
    free(text);
    free(v);
  }
  if (to >= 0)
    close(to);
  if (fd >= 0)
    close(fd);
  arena_free(a);
}

static void write_text(struct str queue_name, struct str text) {
  int dir = directory(queue_name, true);
  off_t size;
  if (dir < 0)
    return;
  pthread_mutex_lock(&lock);
  append(dir, text, &size);
  if (size > (off_t)SMALL && (size_t)size > GROWTH * kept_size(dir))
    rewrite(queue_name, dir);
  pthread_mutex_unlock(&lock);
}

void summary_note(const struct message *m, int dir) {
  char name[SPOOL_NAME_MAX];
  struct stat st;
  struct arena *a = arena_new("summary");
  struct buf b;
  spool_name(name, m->id, 'H');
  buf_init(&b, a, 2 * RECORD_MAX);
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && encode(m, st.st_ino, &b))
    write_text(m->queue_name, buf_str(&b));
  arena_free(a);
}

void summaries_add(struct summaries *s, const struct message *m, ino_t inode) {
  (void)encode(m, inode, &s->added);
  if (s->added.len > BATCH)
    summaries_save(s);
}

void summaries_save(struct summaries *s) {
  if (s->added.len)
    write_text(s->queue_name, buf_str(&s->added));
  s->added.len = 0;
  s->added.overflow = false;
}
