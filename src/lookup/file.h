/* Files of single-key lookups: opening with Exim's texts, and a stamp that
tells whether a file is still the one that was read. */
#pragma once

#include <sys/stat.h>
#include "core/ctx.h"

struct lookup_stamp {
  dev_t dev;
  ino_t ino;
  off_t size;
  struct timespec mtime, ctime;
  bool settled; /* last changed long enough before it was read that a later change shows in the time stamps */
};

void lookup_stamp_set(struct lookup_stamp *s, const struct stat *st);
bool lookup_stamp_changed(const struct lookup_stamp *s, struct str file);

/* "failed to open FILE for PURPOSE: reason (euid=… egid=…)"; returns OUTCOME_ERROR. */
int lookup_open_failed(struct ctx *c, struct str file, const char *purpose, int error);
/* Opens a regular file for reading; the descriptor, or an outcome. `type` is for "X is not a regular file (TYPE lookup)". */
int lookup_file_open(struct ctx *c, struct str file, const char *purpose, const char *type, struct stat *ret);
