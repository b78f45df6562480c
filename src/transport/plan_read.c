/* Reading a user's own file as that user (.forward). */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "transport/plan.h"

void plan_execute_read(struct arena *a, const struct plan *p, struct plan_result *r) {
  char path[PATH_MAX];
  if (p->path.len >= sizeof path) {
    plan_fail(a, r, OUTCOME_FAIL, ENAMETOOLONG, "file name is too long");
    return;
  }
  memcpy(path, p->path.p, p->path.len);
  path[p->path.len] = 0;
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 || fstat(fd, &st) < 0) {
    int e = errno;
    plan_fail(a, r, e == ENOENT || e == ENOTDIR ? OUTCOME_FAIL : OUTCOME_DEFER, e, "%s", strerror(e));
    if (fd >= 0)
      close(fd);
    return;
  }
  r->uid = st.st_uid;
  r->gid = st.st_gid;
  r->mode = st.st_mode;
  if (!S_ISREG(st.st_mode)) {
    plan_fail(a, r, OUTCOME_DEFER, 0, "not a regular file");
  } else if (st.st_size > p->max_read) {
    plan_fail(a, r, OUTCOME_DEFER, EFBIG, "file is larger than %lld bytes", (long long)p->max_read);
  } else {
    char *text = arena_bytes(a, (size_t)st.st_size + 1);
    ssize_t n = fd_read_all(fd, text, (size_t)st.st_size);
    if (n < 0)
      plan_fail(a, r, OUTCOME_DEFER, (int)-n, "%s", strerror((int)-n));
    else
      r->output = str_n(text, (size_t)n);
  }
  close(fd);
}
