/* System users and groups: who may, who delivers as whom. Look-ups go through
NSS in an offload thread and are cached for a minute. */
#pragma once

#include "base/str.h"
#include "core/ctx.h"

struct user_ids {
  int64_t uid, gid; /* -1: not known */
  struct str name;  /* login name, if given by name */
};

struct user_entry {
  uint32_t uid, gid;
  struct str name, home, gecos, shell;
};

/* [suspends] The user by login name: OUTCOME_OK, FAIL (no such user), DEFER (NSS failed). Strings in c->arena, untainted. */
int user_find(struct ctx *c, struct str name, struct user_entry *ret);
int user_find_uid(struct ctx *c, uint32_t uid, struct user_entry *ret);
int user_find_group(struct ctx *c, struct str name, uint32_t *ret_gid);

/* `user` and `group` options: expands where needed. 0, or OUTCOME_ERROR with the text. [suspends] */
int user_resolve(struct ctx *c, const struct option_user *user, const struct option_user *group, struct user_ids *ret,
    struct str *ret_error);
int user_resolve_group(struct ctx *c, const struct option_user *group, int64_t *ret_gid, struct str *ret_error);
/* The user Martlet runs as (exim_user, exim_group). */
void user_exim(struct ctx *c, struct user_ids *ret);
int64_t user_primary_group(struct ctx *c, uint32_t uid);
struct str user_name_of(struct ctx *c, uint32_t uid); /* unset: unknown */
bool user_is_never(struct ctx *c, uint32_t uid);      /* never_users, and root where the agent says so */

/* Does this process have an agent that delivers as other users? */
bool user_agent_present(void);
void user_set_agent_present(bool on);
