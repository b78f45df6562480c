#include "lookup/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "loop/fiber.h"

#define SETTLED_NSEC 50000000LL /* coarser than any file system's clock tick */

void lookup_stamp_set(struct lookup_stamp *s, const struct stat *st) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *s = (struct lookup_stamp){.dev = st->st_dev, .ino = st->st_ino, .size = st->st_size, .mtime = st->st_mtim,
      .ctime = st->st_ctim};
  int64_t age = (int64_t)(now.tv_sec - st->st_ctim.tv_sec) * 1000000000LL + (now.tv_nsec - st->st_ctim.tv_nsec);
  s->settled = age > SETTLED_NSEC;
}

static uint64_t expired;

void lookup_stamps_expire(void) { expired++; }

/* Notes that it is looked at now. */
static bool just_looked_at(struct lookup_stamp *s) {
  uint64_t turn = loop_turns() + expired;
  struct timespec tick;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
  if (s->turn == turn && s->tick.tv_nsec == tick.tv_nsec && s->tick.tv_sec == tick.tv_sec)
    return true;
  s->turn = turn;
  s->tick = tick;
  return false;
}

bool lookup_stamp_changed(struct lookup_stamp *s, struct str file) {
  struct stat st;
  if (!s->settled)
    return true;
  if (just_looked_at(s))
    return false;
  if (stat(file.p, &st) != 0)
    return true;
  return st.st_dev != s->dev || st.st_ino != s->ino || st.st_size != s->size ||
    st.st_mtim.tv_sec != s->mtime.tv_sec || st.st_mtim.tv_nsec != s->mtime.tv_nsec ||
    st.st_ctim.tv_sec != s->ctime.tv_sec || st.st_ctim.tv_nsec != s->ctime.tv_nsec;
}

int lookup_open_failed(struct ctx *c, struct str file, const char *purpose, int error) {
  char ids[64] = "";
  if (error == EACCES)
    snprintf(ids, sizeof ids, " (euid=%ld egid=%ld)", (long)geteuid(), (long)getegid());
  return ctx_fail(c, OUTCOME_ERROR, "failed to open %.*s for %s: %s%s", STRF(file), purpose, strerror(error), ids);
}

int lookup_file_open(struct ctx *c, struct str file, const char *purpose, const char *type, struct stat *ret) {
  /* Without O_NONBLOCK the open of a FIFO would wait for ever. */
  int fd = open(file.p, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0)
    return lookup_open_failed(c, file, purpose, errno);
  if (fstat(fd, ret) != 0) {
    int error = errno;
    close(fd);
    return lookup_open_failed(c, file, purpose, error);
  }
  if (!S_ISREG(ret->st_mode)) {
    close(fd);
    return ctx_fail(c, OUTCOME_ERROR, "%.*s is not a regular file (%s lookup)", STRF(file), type);
  }
  return fd;
}
