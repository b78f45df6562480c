/* The log files: names, opening, switching at midnight and after rotation. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include "base/arena.h"
#include "base/str.h"

enum log_kind { LOG_KIND_MAIN, LOG_KIND_REJECT, LOG_KIND_PANIC, LOG_KINDS, LOG_KIND_DEBUG = LOG_KINDS };

/* What log_file_path says. */
struct log_paths {
  char *file;      /* with %s and perhaps %D or %M; NULL: no files */
  bool syslog;
  bool too_many;   /* more than one path: the first is used */
};

/* Reads the colon list; `fallback` is for empty items. */
void log_paths_parse(struct arena *a, struct str list, struct str fallback, struct log_paths *ret);

/* The name of one log at a time; the panic log never has a datestamp. 0, or -1 when it gets too long. */
int log_file_name(const struct log_paths *p, enum log_kind kind, const struct tm *tm, char *name, size_t size);

struct log_file {
  int fd;           /* -1: closed */
  char name[1024];
  dev_t dev;
  ino_t ino;
};

/* Makes f an open file of that name: kept when it still is the same inode, else (re)opened with O_APPEND, made with
mode 0640 (and owned by uid:gid when we are root), with its directory when that is missing. 0 or -errno. */
int log_file_open(struct log_file *f, const char *name, uid_t uid, gid_t gid);
void log_file_close(struct log_file *f);
