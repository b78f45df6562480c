/* logwrite: lines of a user's own log, written at once, by whom the filter runs as. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd_io.h"
#include "filter/internal.h"
#include "loop/fiber.h"

struct log_job {
  const char *path;
  struct str text;
  mode_t mode;
  int error;
};

static int write_line(void *arg) {
  struct log_job *j = arg;
  struct stat st;
  int fd = open(j->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, j->mode);
  if (fd < 0) {
    j->error = errno;
    return 0;
  }
  if (fstat(fd, &st) < 0)
    j->error = errno;
  else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
    j->error = EINVAL; /* a FIFO without a reader would be waited for */
  else
    j->error = -fd_write_all(fd, j->text.p, j->text.len);
  close(fd);
  return 0;
}

int filter_log_write(struct filter_runner *r, struct str text) {
  if (!r->log_given)
    return filter_fail(r, "attempt to obey \"logwrite\" command without a previous \"logfile\"");
  if (!r->log_name.len || r->log_name.p[0] != '/')
    return filter_fail(r, "log file name \"%.*s\" is not an absolute path", STRF(r->log_name));
  if (str_is_tainted(r->log_name))
    return filter_fail(r, "Tainted name '%.*s' for log file not permitted", STRF(r->log_name));
  struct log_job j = {.path = str_dup_c(r->c->arena, r->log_name), .text = text, .mode = (mode_t)r->log_mode};
  fiber_offload(write_line, &j);
  if (j.error == EACCES)
    return filter_fail(r, "failed to open filter log file \"%s\": %s (euid=%ld egid=%ld)", j.path, strerror(j.error), (long)geteuid(), (long)getegid());
  if (j.error)
    return filter_fail(r, "failed to open filter log file \"%s\": %s", j.path, strerror(j.error));
  return 0;
}
