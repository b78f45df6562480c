#include "deliver/as_user.h"

#include <errno.h>
#include "base/outcome.h"
#include "transport/identity.h"
#include "transport/plan.h"

void user_file_read(struct arena *a, int64_t uid, int64_t gid, struct str path, size_t max, struct user_file *ret) {
  struct plan p = {.kind = PLAN_READ, .path = path, .max_read = (int64_t)max, .uid = uid, .gid = gid,
      .initgroups_user = STR_UNSET, .cwd = STR_UNSET, .home = STR_UNSET};
  struct plan_result r = {0};
  memset(ret, 0, sizeof *ret);
  if (uid < 0 || !identity_can_switch())
    p.uid = p.gid = -1;
  plan_run(a, &p, -1, &r);
  ret->uid = (uid_t)r.uid;
  ret->gid = (gid_t)r.gid;
  ret->mode = (mode_t)r.mode;
  ret->text = str_is_set(r.output) ? r.output : STR_EMPTY;
  if (r.outcome == OUTCOME_OK)
    return;
  ret->too_big = r.basic_errno == EFBIG;
  ret->not_regular = !r.basic_errno;
  ret->error = r.basic_errno > 0 ? (int)r.basic_errno : EIO;
}
