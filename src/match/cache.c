/* Lists whose text is known only at run time, and files of items: compiled
once, kept by the process, the least recently used thrown away. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/fd_io.h"
#include "log/log.h"
#include "lookup/file.h"
#include "match/list.h"

#define CACHE_MAX 256
#define CACHE_TEXT_MAX 16384 /* longer texts are compiled for one use */
#define FILE_SIZE_MAX (64u << 20)

struct list_ref {
  struct list_ref *prev, *next; /* most recently used first */
  struct arena *arena;
  enum list_kind kind;
  unsigned flags;
  struct str key; /* text, or path of a file */
  uint64_t hash;
  bool is_file, linked;
  struct lookup_stamp stamp;
  const struct list *list;
  int users;
};

static struct list_ref *first, *last;
static int count;

static void ref_unlink(struct list_ref *r) {
  *(r->prev ? &r->prev->next : &first) = r->next;
  *(r->next ? &r->next->prev : &last) = r->prev;
  r->linked = false;
  count--;
}

static void ref_link(struct list_ref *r) {
  r->prev = NULL;
  r->next = first;
  *(first ? &first->prev : &last) = r;
  first = r;
  r->linked = true;
  count++;
}

static void ref_drop(struct list_ref *r) {
  ref_unlink(r);
  if (r->users == 0)
    arena_free(r->arena);
}

void list_cache_release(struct list_ref *r) {
  if (r && --r->users == 0 && !r->linked)
    arena_free(r->arena);
}

void match_done(void) {
  while (first)
    ref_drop(first);
}

static struct list_ref *ref_find(bool is_file, enum list_kind kind, unsigned flags, struct str key, uint64_t hash) {
  for (struct list_ref *r = first; r; r = r->next)
    if (r->hash == hash && r->is_file == is_file && r->kind == kind && r->flags == flags &&
        r->key.taint == key.taint && str_eq(r->key, key)) {
      if (r != first) {
        ref_unlink(r);
        ref_link(r);
      }
      return r;
    }
  return NULL;
}

static struct list_ref *ref_new(bool is_file, enum list_kind kind, unsigned flags, struct str key, uint64_t hash) {
  struct arena *a = arena_new("list");
  struct list_ref *r = arena_new_of(a, struct list_ref);
  r->arena = a;
  r->kind = kind;
  r->flags = flags;
  r->hash = hash;
  r->is_file = is_file;
  r->key = str_dup(a, key);
  if (key.len <= CACHE_TEXT_MAX || is_file) {
    if (count >= CACHE_MAX)
      ref_drop(last);
    ref_link(r);
  }
  return r;
}

const struct list *list_cache_text(enum list_kind kind, struct str text, unsigned flags, struct list_ref **ret) {
  uint64_t hash = str_hash(text);
  struct list_ref *r = ref_find(false, kind, flags, text, hash);
  if (r == NULL) {
    r = ref_new(false, kind, flags, text, hash);
    r->list = list_compile(r->arena, kind, r->key, flags);
  }
  r->users++;
  *ret = r;
  return r->list;
}

static int open_failed(struct ctx *c, struct str path, int error) {
  char ids[64] = "";
  if (error == EACCES)
    snprintf(ids, sizeof ids, " (euid=%ld egid=%ld)", (long)geteuid(), (long)getegid());
  struct str what = c->match_what ? str_c(c->match_what) : str_printf(c->arena, "\"%.*s\"", STRF(path));
  return ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s when checking %.*s: %s%s", STRF(path), STRF(what), strerror(error),
    ids);
}

static int read_file(struct list_ref *r, int fd, size_t size, struct str *ret) {
  char *p = arena_bytes(r->arena, size + 1);
  ssize_t n = fd_read_all(fd, p, size);
  *ret = n < 0 ? STR_UNSET : str_n(p, (size_t)n);
  return n < 0 ? (int)n : 0;
}

int list_cache_file(struct ctx *c, enum list_kind kind, struct str path, struct list_ref **ref, const struct list **ret) {
  if (str_is_tainted(path)) {
    /* Logged, and then treated as a file that may not be read. */
    log_write(LOG_MAIN | LOG_PANIC, c->message, "Tainted filename '%.*s'", STRF(path));
    return open_failed(c, path, EACCES);
  }
  path = str_dup(c->arena, path);
  uint64_t hash = str_hash(path);
  struct list_ref *r = ref_find(true, kind, 0, path, hash);
  if (r && lookup_stamp_changed(&r->stamp, path)) {
    ref_drop(r);
    r = NULL;
  }
  if (r == NULL) {
    int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
      return open_failed(c, path, errno);
    int e = fstat(fd, &st) != 0 ? errno : !S_ISREG(st.st_mode) ? EINVAL : st.st_size > FILE_SIZE_MAX ? EFBIG : 0;
    if (e == 0) {
      r = ref_new(true, kind, 0, path, hash);
      struct str text;
      e = -read_file(r, fd, (size_t)st.st_size, &text);
      if (e == 0) {
        lookup_stamp_set(&r->stamp, &st);
        r->list = list_compile_lines(r->arena, kind, text, path);
      } else {
        ref_drop(r);
      }
    }
    close(fd);
    if (e != 0)
      return open_failed(c, path, e);
  }
  r->users++;
  *ref = r;
  *ret = r->list;
  return OUTCOME_OK;
}
