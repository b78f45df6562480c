#include "route/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "loop/fiber.h"

#define NAME_MAX_LEN 128
#define BUFFER_SIZE (16 * 1024)
#define CACHE_SLOTS 128
#define CACHE_FOUND (20 * USEC_PER_SEC)
#define CACHE_ABSENT (5 * USEC_PER_SEC)

/* One question, answered in a thread of the pool. */
struct question {
  char name[NAME_MAX_LEN + 1];
  bool group;
  int result; /* 1, 0, -errno */
  uint32_t uid, gid;
  size_t len; /* of text: name, home, shell, gecos, each with its NUL */
  char text[1024];
};

struct cached {
  struct question q;
  usec_t expires;
};

static struct cached *cache[CACHE_SLOTS];

static size_t slot_of(struct str name, bool group) { return (str_hash(name) + group) % CACHE_SLOTS; }

static void add_text(struct question *q, const char *text) {
  size_t n = text ? strlen(text) : 0;
  if (q->len + n + 1 > sizeof q->text)
    n = 0;
  if (q->len + 1 > sizeof q->text)
    return;
  memcpy(q->text + q->len, text ? text : "", n);
  q->text[q->len + n] = 0;
  q->len += n + 1;
}

static int ask(void *arg) {
  struct question *q = arg;
  char *buffer = xmalloc(BUFFER_SIZE);
  int error;
  if (q->group) {
    struct group g, *found = NULL;
    error = getgrnam_r(q->name, &g, buffer, BUFFER_SIZE, &found);
    if (found)
      q->gid = found->gr_gid;
    q->result = found ? 1 : 0;
  } else {
    struct passwd p, *found = NULL;
    error = getpwnam_r(q->name, &p, buffer, BUFFER_SIZE, &found);
    q->result = found ? 1 : 0;
    if (found) {
      q->uid = found->pw_uid;
      q->gid = found->pw_gid;
      add_text(q, found->pw_name);
      add_text(q, found->pw_dir);
      add_text(q, found->pw_shell);
      add_text(q, found->pw_gecos);
    }
  }
  /* POSIX lets getpwnam report "no such name" by several numbers. */
  if (!q->result && error && error != ENOENT && error != ESRCH && error != EBADF && error != EPERM)
    q->result = -error;
  free(buffer);
  return 0;
}

static struct str next_text(struct arena *a, const char **p, const char *end) {
  if (*p >= end)
    return STR_EMPTY;
  struct str s = str_dup(a, str_c(*p));
  *p += s.len + 1;
  return s;
}

static const struct question *look_up(struct str name, bool group, struct question *mine) {
  struct cached **slot = &cache[slot_of(name, group)];
  if (*slot && (*slot)->q.group == group && str_eq_c(name, (*slot)->q.name) && (*slot)->expires > loop_now_fresh())
    return &(*slot)->q;
  memset(mine, 0, sizeof *mine);
  memcpy(mine->name, name.p, name.len);
  mine->group = group;
  fiber_offload(ask, mine);
  if (mine->result < 0)
    return mine;
  /* The slot may have changed while this fiber waited: it is only read and written between suspensions. */
  if (!*slot)
    *slot = xcalloc(1, sizeof **slot);
  (*slot)->q = *mine;
  (*slot)->expires = loop_now_fresh() + (mine->result ? CACHE_FOUND : CACHE_ABSENT);
  return mine;
}

/* A name that could not be an account's is not asked for. */
static bool plausible(struct str name) {
  return name.len && name.len <= NAME_MAX_LEN && !memchr(name.p, 0, name.len) && !memchr(name.p, '/', name.len) &&
         !memchr(name.p, ':', name.len) && !memchr(name.p, '\n', name.len);
}

int user_find(struct arena *a, struct str name, struct user_info *ret) {
  if (!plausible(name))
    return 0;
  struct question *mine = xmalloc(sizeof *mine);
  const struct question *q = look_up(name, false, mine);
  int result = q->result;
  if (result == 1) {
    const char *p = q->text, *end = q->text + q->len;
    ret->uid = q->uid;
    ret->gid = q->gid;
    ret->name = next_text(a, &p, end);
    ret->home = next_text(a, &p, end);
    ret->shell = next_text(a, &p, end);
    ret->gecos = next_text(a, &p, end);
  }
  free(mine);
  return result;
}

int user_find_group(struct str name, uint32_t *ret_gid) {
  if (!plausible(name))
    return 0;
  struct question *mine = xmalloc(sizeof *mine);
  const struct question *q = look_up(name, true, mine);
  int result = q->result;
  if (result == 1)
    *ret_gid = q->gid;
  free(mine);
  return result;
}
