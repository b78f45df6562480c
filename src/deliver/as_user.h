/* Files that belong to users, read as their owners would (Exim manual,
section "Redirection data"): a forward file may be readable by its owner only,
and may be a link to something that its owner must not see. */
#pragma once

#include <sys/types.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

struct user_file {
  struct str text;     /* in the arena; tainted? no: as the router's other data, the caller decides */
  int error;           /* 0, or the errno of open/read */
  bool not_regular, too_big;
  uid_t uid;           /* of the file */
  gid_t gid;
  mode_t mode;
};

#define USER_FILE_MAX (1024 * 1024)

/* Has a filter's request (filter/filter.h) served by a process of the user; `router` is the redirect router that found it.
0, or -1 with *ret_error. Only where identity_can_switch. [suspends] */
int user_filter_evaluate(struct arena *a, int64_t uid, int64_t gid, struct str router, struct str request, int body_fd,
    struct str *ret_answer, struct str *ret_error);
/* In processes that become users: what serves such requests. */
struct config;
void user_filter_serve_with(struct config *c,
    void (*serve)(struct arena *a, struct config *c, struct str router, struct str request, int body_fd, struct buf *answer));
bool user_filter_other_user(int64_t uid); /* must a filter of this user run in a process of its own? */

/* Reads a regular file of at most `max` bytes: as uid/gid when we can become another user (root: a child that has
dropped everything; an agent), as ourselves otherwise. uid -1: as ourselves. Metadata are filled when the file could be
opened. [suspends] */
void user_file_read(struct arena *a, int64_t uid, int64_t gid, struct str path, size_t max, struct user_file *ret);
