#include "lookup/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "core/build.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "loop/fiber.h"

#define CACHE_SECONDS 60
#define CACHE_SLOTS 256
#define NAME_LONGEST 256

/* One look-up, in an offload thread. */
struct query {
  char name[NAME_LONGEST];
  uint32_t uid;
  bool by_uid, group;
  int error;   /* 0, ENOENT or another errno */
  uint32_t ret_uid, ret_gid;
  char ret_name[NAME_LONGEST], home[1024], gecos[512], shell[256];
};

/* Users that were found (or not) a moment ago; direct-mapped, so bounded. */
struct slot {
  struct query q;
  time_t when;
};
static struct slot *cache[CACHE_SLOTS];
static bool agent_present;

static void keep(char *to, size_t size, const char *from) {
  size_t n = from ? strlen(from) : 0;
  if (n >= size)
    n = size - 1;
  memcpy(to, from ? from : "", n);
  to[n] = 0;
}

static int run_query(void *arg) {
  struct query *q = arg;
  char text[16384];
  struct passwd pw, *found = NULL;
  struct group gr, *found_group = NULL;
  if (q->group) {
    q->error = getgrnam_r(q->name, &gr, text, sizeof text, &found_group);
    if (found_group)
      q->ret_gid = gr.gr_gid;
    else if (!q->error)
      q->error = ENOENT;
    return 0;
  }
  q->error = q->by_uid ? getpwuid_r(q->uid, &pw, text, sizeof text, &found) : getpwnam_r(q->name, &pw, text, sizeof text, &found);
  if (!found) {
    if (!q->error)
      q->error = ENOENT;
    return 0;
  }
  q->error = 0;
  q->ret_uid = pw.pw_uid;
  q->ret_gid = pw.pw_gid;
  keep(q->ret_name, sizeof q->ret_name, pw.pw_name);
  keep(q->home, sizeof q->home, pw.pw_dir);
  keep(q->gecos, sizeof q->gecos, pw.pw_gecos);
  keep(q->shell, sizeof q->shell, pw.pw_shell);
  return 0;
}

static bool same_question(const struct query *a, const struct query *b) {
  return a->by_uid == b->by_uid && a->group == b->group && (a->by_uid ? a->uid == b->uid : !strcmp(a->name, b->name));
}

static const struct query *ask(struct query *q) {
  uint64_t h = q->by_uid ? q->uid * 0x9E3779B97F4A7C15ull : str_hash(str_c(q->name));
  struct slot **s = &cache[(h ^ (uint64_t)q->group) % CACHE_SLOTS];
  time_t now = time(NULL);
  if (*s && same_question(&(*s)->q, q) && now - (*s)->when < CACHE_SECONDS)
    return &(*s)->q;
  (void)fiber_offload(run_query, q);
  if (q->error && q->error != ENOENT)
    return q;
  if (!*s)
    *s = xmalloc(sizeof **s);
  (*s)->q = *q;
  (*s)->when = now;
  return &(*s)->q;
}

static bool set_name(struct query *q, struct str name) {
  *q = (struct query){0};
  if (!name.len || name.len >= sizeof q->name || memchr(name.p, 0, name.len))
    return false;
  memcpy(q->name, name.p, name.len);
  return true;
}

static int found_user(struct ctx *c, const struct query *q, struct user_entry *ret) {
  if (q->error)
    return q->error == ENOENT ? OUTCOME_FAIL : OUTCOME_DEFER;
  *ret = (struct user_entry){.uid = q->ret_uid, .gid = q->ret_gid, .name = str_dup(c->arena, str_c(q->ret_name)),
      .home = str_dup(c->arena, str_c(q->home)), .gecos = str_dup(c->arena, str_c(q->gecos)),
      .shell = str_dup(c->arena, str_c(q->shell))};
  return OUTCOME_OK;
}

int user_find(struct ctx *c, struct str name, struct user_entry *ret) {
  struct query q;
  if (!set_name(&q, name))
    return OUTCOME_FAIL;
  return found_user(c, ask(&q), ret);
}

int user_find_uid(struct ctx *c, uint32_t uid, struct user_entry *ret) {
  struct query q = {.by_uid = true, .uid = uid};
  return found_user(c, ask(&q), ret);
}

int user_find_group(struct ctx *c, struct str name, uint32_t *ret_gid) {
  struct query q;
  if (!set_name(&q, name))
    return OUTCOME_FAIL;
  q.group = true;
  const struct query *r = ask(&q);
  if (r->error)
    return r->error == ENOENT ? OUTCOME_FAIL : OUTCOME_DEFER;
  *ret_gid = r->ret_gid;
  return OUTCOME_OK;
}

int user_resolve_group(struct ctx *c, const struct option_user *group, int64_t *ret_gid, struct str *ret_error) {
  if (!str_is_set(group->expr.text)) {
    *ret_gid = group->id;
    return 0;
  }
  struct str value;
  uint64_t n;
  uint32_t gid;
  if (expand_option(c, &group->expr, &value)) {
    *ret_error = str_printf(c->arena, "failed to expand group \"%.*s\": %.*s", STRF(group->expr.text), STRF(c->error));
    return OUTCOME_ERROR;
  }
  if (str_to_u64(value, &n) && n <= UINT32_MAX) {
    *ret_gid = (int64_t)n;
    return 0;
  }
  if (user_find_group(c, value, &gid) != OUTCOME_OK) {
    *ret_error = str_printf(c->arena, "Group \"%.*s\" not found", STRF(value));
    return OUTCOME_ERROR;
  }
  *ret_gid = gid;
  return 0;
}

int user_resolve(struct ctx *c, const struct option_user *user, const struct option_user *group, struct user_ids *ret,
    struct str *ret_error) {
  *ret = (struct user_ids){.uid = -1, .gid = -1, .name = STR_UNSET};
  struct user_entry e;
  if (!str_is_set(user->expr.text)) {
    ret->uid = user->id;
    ret->gid = user->gid_set ? (int64_t)user->gid : -1;
    ret->name = user->text;
  } else {
    struct str value;
    uint64_t n;
    if (expand_option(c, &user->expr, &value)) {
      *ret_error = str_printf(c->arena, "failed to expand user \"%.*s\": %.*s", STRF(user->expr.text), STRF(c->error));
      return OUTCOME_ERROR;
    }
    if (str_to_u64(value, &n) && n <= UINT32_MAX) {
      ret->uid = (int64_t)n;
    } else if (user_find(c, value, &e) == OUTCOME_OK) {
      ret->uid = e.uid;
      ret->gid = e.gid;
      ret->name = e.name;
    } else {
      *ret_error = str_printf(c->arena, "User \"%.*s\" not found", STRF(value));
      return OUTCOME_ERROR;
    }
  }
  return group && group->set ? user_resolve_group(c, group, &ret->gid, ret_error) : 0;
}

void user_exim(struct ctx *c, struct user_ids *ret) {
  const struct main_options *o = main_options(c->config);
  *ret = (struct user_ids){.uid = geteuid(), .gid = getegid(), .name = STR_UNSET};
  if (o->exim_user.set)
    *ret = (struct user_ids){.uid = o->exim_user.id, .gid = o->exim_user.gid_set ? (int64_t)o->exim_user.gid : -1,
        .name = o->exim_user.text};
  if (o->exim_group.set)
    ret->gid = o->exim_group.id;
}

int64_t user_primary_group(struct ctx *c, uint32_t uid) {
  struct user_entry e;
  return user_find_uid(c, uid, &e) == OUTCOME_OK ? (int64_t)e.gid : (int64_t)getegid();
}

struct str user_name_of(struct ctx *c, uint32_t uid) {
  struct user_entry e;
  return user_find_uid(c, uid, &e) == OUTCOME_OK ? e.name : STR_UNSET;
}

bool user_is_never(struct ctx *c, uint32_t uid) {
  const struct option_ids *never = &main_options(c->config)->never_users;
  for (size_t i = 0; i < never->n; i++)
    if (never->v[i] == uid)
      return true;
  return false;
}

bool user_agent_present(void) { return agent_present; }
void user_set_agent_present(bool on) { agent_present = on; }
