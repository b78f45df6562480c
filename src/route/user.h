/* Accounts of the machine, through NSS: off the loop's thread, and remembered
for a few seconds because routers ask for the same names again and again. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

struct user_info {
  uint32_t uid, gid;
  struct str name, home, shell, gecos;
};

/* The account of that name; texts in `a`, untainted: the system's own. 1 found, 0 there is none, -errno when the
system could not tell. [suspends] */
int user_find(struct arena *a, struct str name, struct user_info *ret);
/* The group's number, same results. [suspends] */
int user_find_group(struct str name, uint32_t *ret_gid);
