/* What the files of the spool share among themselves. */
#pragma once

#include <fcntl.h>
#include <unistd.h>
#include "base/buf.h"
#include "queue/spool.h"
#include "queue/spool_codec.h"
#include "queue/spool_io.h"

/* A body up to this size stays in memory until it has to become a file. */
#define SPOOL_BODY_MEMORY (64u << 10)
#define SPOOL_NAME_MAX 64

/* The spool's own part of a message; its body buffer and descriptors go with the message's arena. */
struct spool_state {
  char *body;             /* the body, or what of it is not yet written to -D */
  size_t body_len, body_cap;
  bool in_memory;         /* `body` is all of it */
  bool has_files;         /* -D and -H exist */
  bool has_data;          /* -D exists (alone, while a long message is received) */
  bool has_journal;
  int journal_fd;         /* -J, or -1 */
  struct wal_message *wal; /* live record, or NULL */
};

/* --- directories (spool_dir.c) --- */

struct spool_root {
  bool opened, split;
  char path[512];
  int fd;
  unsigned uid, gid;  /* owner for new files, when we are root */
  bool change_owner;
};
const struct spool_root *spool_root(void);
/* As spool_open, from plain values. */
int spool_open_root(struct str path, bool split, bool change_owner, unsigned uid, unsigned gid);
/* A cached descriptor of a queue's input directory (subdir: its letter or "") or -errno. Not to be closed. May be
called in any thread. */
int spool_dir(struct str queue_name, const char *subdir, bool create);
/* The same for "input", "msglog". */
int spool_purpose_dir(struct str queue_name, const char *purpose, const char *subdir, bool create);
/* Another directory of the spool, such as "wal". */
int spool_other_dir(const char *name, bool create);
/* Gives a new file to the spool's owner, if we are root. */
int spool_own(int fd);
/* The letter of an id's subdirectory. */
static inline char spool_letter(const char *id) { return id[5]; }

/* --- files (spool_file.c): no suspension --- */

/* "ID-D" and the like. */
void spool_name(char *to, const char *id, char which);
/* Creates and locks -D with its first line. fd or -errno. */
int spool_file_create_data(int dir, const char *id);
struct spool_files {
  int dir;
  const char *id;
  struct str header;      /* text of -H */
  int data_fd;            /* -D, created already, or -1 */
  struct str body;        /* to be written to -D */
  bool sync;
};
/* Makes -D (left open and locked in data_fd) and -H. On error both are gone, data_fd is closed and -1. */
int spool_files_create(struct spool_files *f);
/* Replaces -H. */
int spool_file_replace_header(int dir, const char *id, struct str header, bool sync);
/* The whole of a file, at most max bytes, in xmalloc'ed memory. 0 or -errno. */
int spool_file_read(int dir, const char *name, size_t max, char **ret, size_t *ret_len);
int spool_files_remove(int dir, const char *id, bool journal);

/* --- state (spool.c) --- */
struct spool_state *spool_state(struct message *m);
/* Makes the files of a message whose record in the log is live, without waiting for the disk. Does not suspend. */
int spool_settle(struct message *m);
/* The text of -H, in `a`. 0 or -errno. */
int spool_header_text(const struct message *m, struct arena *a, struct str *ret);

/* --- finding (spool_read.c) --- */

/* As spool_scan, without a context and without suspension; *ret is to be freed. */
int spool_scan_names(struct str queue_name, struct spool_entry **ret, size_t *ret_n);
