#include "transport/identity.h"

#include <pwd.h>
#include <unistd.h>

#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "route/user.h"
#include "transport/header.h"
#include "transport/options.h"

struct ids {
  int64_t uid, gid; /* -1: not known */
  struct str name;
};

static bool can_switch;
void identity_set_can_switch(bool on) { can_switch = on; }
bool identity_can_switch(void) { return can_switch; }


static bool resolve_group(struct ctx *c, const struct instance *t, struct address *chain, const struct option_user *group,
    int64_t *ret_gid) {
  struct str value;
  uint64_t n;
  uint32_t gid;
  if (!str_is_set(group->expr.text)) {
    *ret_gid = group->id;
    return true;
  }
  if (expand_option(c, &group->expr, &value))
    return transport_chain_panic(c, chain, ERROR_GID_FAIL, str_printf(c->arena,
        "Failed to expand group string \"%.*s\" for the %.*s transport: %.*s", STRF(group->expr.text), STRF(t->name), STRF(c->error)));
  if (str_to_u64(value, &n) && n <= UINT32_MAX) {
    *ret_gid = (int64_t)n;
    return true;
  }
  if (user_find_group(value, &gid) != 1)
    return transport_chain_panic(c, chain, ERROR_GID_FAIL, str_printf(c->arena,
        "Failed to find group \"%.*s\" from expanded string \"%.*s\" for the %.*s transport", STRF(value), STRF(group->expr.text), STRF(t->name)));
  *ret_gid = gid;
  return true;
}

static bool resolve_user(struct ctx *c, const struct instance *t, struct address *chain, const struct option_user *user,
    struct ids *ret) {
  struct str value;
  uint64_t n;
  struct user_info info;
  if (!str_is_set(user->expr.text)) {
    *ret = (struct ids){user->id, user->gid_set ? (int64_t)user->gid : -1, user->text};
    return true;
  }
  if (expand_option(c, &user->expr, &value))
    return transport_chain_panic(c, chain, ERROR_UID_FAIL, str_printf(c->arena,
        "Failed to expand user string \"%.*s\" for the %.*s transport: %.*s", STRF(user->expr.text), STRF(t->name), STRF(c->error)));
  if (str_to_u64(value, &n) && n <= UINT32_MAX) {
    *ret = (struct ids){(int64_t)n, -1, STR_UNSET};
    return true;
  }
  if (user_find(c->arena, value, &info) != 1)
    return transport_chain_panic(c, chain, ERROR_UID_FAIL, str_printf(c->arena,
        "Failed to find user \"%.*s\" from expanded string \"%.*s\" for the %.*s transport", STRF(value), STRF(user->expr.text), STRF(t->name)));
  *ret = (struct ids){info.uid, info.gid, info.name};
  return true;
}

/* The group of a uid that came without one. */
static int64_t primary_group(struct ctx *c, int64_t uid, struct str *ret_name) {
  char text[4096];
  struct passwd pw, *found = NULL;
  if (getpwuid_r((uid_t)uid, &pw, text, sizeof text, &found) || !found)
    return (int64_t)getegid();
  *ret_name = str_dup(c->arena, str_c(pw.pw_name));
  return pw.pw_gid;
}

bool identity_is_never(const struct config *c, int64_t uid) {
  const struct option_ids *never = &main_options(c)->never_users;
  for (size_t i = 0; i < never->n; i++)
    if (never->v[i] == (uint32_t)uid)
      return true;
  return false;
}

bool identity_choose(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct transport_options *o = transport_options(t);
  const struct main_options *mo = main_options(c->config);
  struct ids ids = {.uid = mo->exim_user.set ? (int64_t)mo->exim_user.id : (int64_t)geteuid(),
      .gid = mo->exim_group.set ? (int64_t)mo->exim_group.id : mo->exim_user.gid_set ? (int64_t)mo->exim_user.gid : -1};
  bool init = o->initgroups;
  if (o->user.set) {
    if (!resolve_user(c, t, chain, &o->user, &ids))
      return false;
  } else if (chain->uid_set) {
    ids = (struct ids){chain->uid, chain->gid_set ? (int64_t)chain->gid : -1, STR_UNSET};
    init |= chain->initgroups;
  }
  if (o->group.set && !resolve_group(c, t, chain, &o->group, &ids.gid))
    return false;
  if (ids.gid < 0 || (init && !str_is_set(ids.name))) {
    int64_t gid = primary_group(c, ids.uid, &ids.name);
    if (ids.gid < 0)
      ids.gid = gid;
  }
  if (identity_is_never(c->config, ids.uid))
    return transport_chain_panic(c, chain, ERROR_UID_FAIL, str_printf(c->arena, "User %lld set for %.*s transport is on the never_users list", (long long)ids.uid,
        STRF(t->name)));
  p->initgroups_user = init ? ids.name : STR_UNSET;
  p->uid = ids.uid;
  p->gid = ids.gid;
  if (!can_switch)
    p->uid = p->gid = -1; /* without root there is nobody else to be */
  return true;
}
