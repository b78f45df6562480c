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
  uint64_t turn;        /* when it was last looked at */
  struct timespec tick;
};

void lookup_stamp_set(struct lookup_stamp *s, const struct stat *st);
/* A file is looked at once in a turn of the loop and a tick of the kernel's clock (some milliseconds): nobody who changed it
can have told us so in between. */
bool lookup_stamp_changed(struct lookup_stamp *s, struct str file);
/* For who reads from outside without the loop: files are to be looked at again. */
void lookup_stamps_expire(void);

/* "failed to open FILE for PURPOSE: reason (euid=… egid=…)"; returns OUTCOME_ERROR. */
int lookup_open_failed(struct ctx *c, struct str file, const char *purpose, int error);
/* Opens a regular file for reading; the descriptor, or an outcome. `type` is for "X is not a regular file (TYPE lookup)". */
int lookup_file_open(struct ctx *c, struct str file, const char *purpose, const char *type, struct stat *ret);
