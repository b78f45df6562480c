/* The write-ahead log of a process (docs/internals/spool.md): a message is
durable once its record is, and most are delivered before they need files.
For the spool's files only; all in the loop's thread. */
#pragma once

#include "loop/fiber.h"
#include "queue/spool_internal.h"

#define WAL_FILE_SIZE (16u << 20)
#define WAL_RECORD_MAX (4u << 20)
#define WAL_SLOTS 64

enum wal_type { WAL_MESSAGE = 1, WAL_HEADER = 2, WAL_DONE = 3, WAL_GONE = 4 };

struct wal_header {      /* first bytes of a file */
  uint32_t magic;
  uint32_t generation;   /* 0: nothing in it counts */
};

struct wal_record {      /* then queue name, text, body, and zeros up to a multiple of 8 */
  uint32_t magic;
  uint32_t generation;
  uint16_t type;
  uint8_t queue_len;
  uint8_t body_in_file;  /* of WAL_MESSAGE: -D has it, complete */
  uint32_t text_len;     /* -H text, or addresses each with a newline */
  uint32_t body_len;
  char subdir;           /* 0: none */
  char id[23];           /* padded with NULs */
  uint64_t checksum;     /* of all else, with this field 0 */
};

#define WAL_FILE_MAGIC 0x4c41574d
#define WAL_RECORD_MAGIC 0x52414c57

/* A message whose record is live. */
struct wal_message {
  char id[24];
  char subdir[2];
  struct str queue_name;       /* behind the struct */
  struct message *message;     /* while it is in memory */
  usec_t since;
  bool settled;                /* its files exist */
  struct wal_message *next, **link;             /* of the file */
  struct wal_message *settled_next, **settled_link;
  struct wal_message *hash_next;
};

bool wal_active(void);
uint64_t wal_checksum(const void *p, size_t n, uint64_t seed);
/* Bytes of a record with its padding. */
size_t wal_record_size(size_t queue_len, size_t text_len, size_t body_len);

/* The message becomes live and durable. 0 or -errno (then it is not live). [suspends] */
int wal_commit(struct message *m, struct str header, struct str body, bool body_in_file);
/* The message's newest header; waits when `wait`. [suspends] */
int wal_header(struct wal_message *w, struct str header, bool wait);
/* Crossed-off addresses (with newlines) of any message, live or not; on disk within moments. */
void wal_done(const struct message *m, struct str addresses);
/* Nothing is left of the message (or its files are safe): on disk within moments. Frees w. */
void wal_gone(struct wal_message *w);
/* Its files exist: the next checkpoint ends its record's life. After each change of the files again. */
void wal_settled(struct wal_message *w);
/* Its files are about to change: a checkpoint that runs now does not count. */
void wal_touch(struct wal_message *w);
struct wal_message *wal_find(const char *id);

/* See spool_show_all. */
size_t wal_show_all(usec_t taken, bool (*passing)(const char *id));

/* Makes this process keep a log in a free slot, replaying what was in it. 0 or -errno. */
int wal_start(void (*fn)(void *arg, const char *id, struct str queue_name), void *arg);
/* All messages must be settled. [suspends] */
void wal_stop(void);

/* Replays the logs of dead processes. `fn` (may be NULL) is called for each message that was brought back. 0 or -errno. */
int wal_recover(void (*fn)(void *arg, const char *id, struct str queue_name), void *arg);
/* One file, locked by the caller. */
int wal_replay(const int *fds, int n, void (*fn)(void *arg, const char *id, struct str queue_name), void *arg);
/* Opens file `which` (0, 1) of a slot; with `create` made whole. fd or -errno. */
int wal_open_file(int slot, int which, bool create);
/* Nothing in the file counts any more. */
int wal_invalidate(int fd);
