/* The spool: -D, -H and -J files in Exim's format (Exim manual, chapter
"Format of spool files"), made durable by group commit (DESIGN §5).

Invariants (docs/internals/spool.md says more):
 1. "250" only after spool_commit returned 0.
 2. A message exists iff its -H file exists under its final name, or a live record of it is in a log of the spool.
 3. A recipient is crossed off only after its delivery is on stable storage or the next hop said 2xx.
 4. What cannot be read is reported and left where it is, never deleted.
 5. Who works on a message with files holds a write lock on its -D. */
#pragma once

#include <sys/types.h>
#include "base/arena.h"
#include "base/outcome.h"
#include "message/message.h"

struct ctx;
struct config;
struct spool_writer;
struct spool_reader;

/* Opens the spool directory of the configuration (makes what is missing); done by the first use of the other
functions too. 0 or -errno. */
int spool_open(const struct config *config);
/* Forgets cached descriptors (after a fork that changes ids, in tests). */
void spool_close(void);

/* For workers: from now on messages are made durable by records in a log of this process, and have files only when they
are not delivered at once (docs/internals/spool.md). Messages of dead processes' logs become files first; `recovered` is
called for each. 0 or -errno (then all goes on with files). [suspends] */
int spool_log_start(struct ctx *c, void (*recovered)(void *arg, const char *id, struct str queue_name), void *arg);
/* At the end, when no message is in memory any more: all is in files. [suspends] */
void spool_log_stop(void);
/* For others that look at the queue: what dead processes left in logs becomes files. 0 or -errno. */
int spool_recover(struct ctx *c);

/* Reception: gives the message its id if it has none, and room for its body in the message's queue. 0 or -errno. */
int spool_data_open(struct ctx *c, struct message *m);
/* Appends body bytes (LF line ends, or CRLF with spool_wireformat). Buffered. 0 or -errno (ENOSPC …). [suspends] */
int spool_data_write(struct ctx *c, struct message *m, struct str data);
/* The body is complete: spool_open_body() reads all of it from now on. 0 or -errno. [suspends] */
int spool_data_end(struct ctx *c, struct message *m);
/* Makes the message durable: header and body. 0 or -errno; on error nothing is left. [suspends]
Sets body_size. The connection's ACL variables are copied to the message if it has none. */
int spool_commit(struct ctx *c, struct message *m);
/* Takes back an uncommitted message. */
void spool_abandon(struct ctx *c, struct message *m);
/* A committed message that is not delivered at once: its files become visible (they may be already). 0 or -errno.
[suspends] */
int spool_rest(struct ctx *c, struct message *m);

/* In a process with a log: files for the messages that it has taken by now and holds in memory only, so that others see them. How many
of those taken before `taken` (loop_now) are such that passing(id) says so. Does not suspend. */
size_t spool_show_all(int64_t taken, bool (*passing)(const char *id));

/* Rewrites -H (after a delivery attempt, -M…, freezing) and drops -J, whose addresses must be among the
nonrecipients. With `durable` false it may be written without waiting. [suspends] */
int spool_write_header(struct ctx *c, struct message *m, bool durable);
/* Notes delivered addresses on disk, in case we do not get to spool_write_header. [suspends] */
int spool_journal(struct ctx *c, struct message *m, const struct str *addresses, size_t n);
/* Removes a finished message's files. */
int spool_remove(struct ctx *c, struct message *m);

/* With BAD (format error) and IO c->error says more. */
enum spool_read { SPOOL_OK, SPOOL_NOT_FOUND, SPOOL_LOCKED, SPOOL_BAD, SPOOL_IO };
/* Reads -H (and merges -J); opens and locks -D when `lock`. *ret is the caller's to message_free, which unlocks. */
enum spool_read spool_read_message(struct ctx *c, struct str queue_name, struct str id, bool lock,
  struct message **ret);
/* The same, without locks, for several of a queue at once (which costs a fraction of one after the other). */
#define SPOOL_MANY 64
struct spool_reading {
  const char *id;        /* given; the rest is filled in */
  enum spool_read got;
  struct message *m;     /* of SPOOL_OK: the caller's to message_free */
  struct str error;      /* of SPOOL_BAD and SPOOL_IO, in the context's arena */
};
/* At most SPOOL_MANY. [suspends] */
void spool_read_many(struct ctx *c, struct str queue_name, struct spool_reading *v, size_t n);
/* Opens -D for reading at the start of the body, with an offset of its own; the caller closes it. fd or -errno. */
int spool_open_body(struct ctx *c, const struct message *m);
/* The whole body when it is in memory; unset if it is only in a file. Valid while the message is. */
struct str spool_body_memory(const struct message *m);
/* The text of the -H or -D file ('H', 'D'), or of the message log ('L'), at most `max` bytes, without locking. 0 or
-errno. */
int spool_read_file(struct ctx *c, struct str queue_name, struct str id, char which, struct arena *a, size_t max,
  struct str *ret);

/* Moves the files of a message that is locked to another queue; m->queue_name is then that. 0 or -errno. */
int spool_move(struct ctx *c, struct message *m, struct str queue_name);
/* move_frozen_messages: takes the files of a message that is locked out of the queue, into Finput and Fmsglog beside its input
and msglog. They stay there until somebody moves them back. 0 or -errno. [suspends] */
int spool_set_aside(struct ctx *c, struct message *m);
/* Removes what there is of a message that cannot be read (-Mrm). True: there was something. */
bool spool_remove_unread(struct ctx *c, struct str queue_name, struct str id);
/* Removes a message's log. */
void spool_remove_log(struct ctx *c, const struct message *m);

/* Ids on disk, in order of id; for start-up, -q and -bp. 0 or -errno; no directory is no messages. [suspends] */
struct spool_entry {
  char id[24];
  char subdir[2];
  bool journal;  /* there is a -J: what -H says is not all */
  ino_t inode;   /* of -H */
};
int spool_scan(struct ctx *c, struct str queue_name, struct arena *a, struct spool_entry **ret, size_t *ret_n);
/* May this be the name of a queue? It becomes a directory's name. */
bool spool_queue_name_valid(struct str name);

/* So that the daemon can be told: called in one-shot commands after they have made, changed or removed a message's files, and
after an administrator's change to one. NULL: nobody is told. */
extern void (*spool_changed)(const struct message *m);
/* Is there a message of that id? Does not suspend. */
bool spool_exists(struct str queue_name, const char *id);

/* For modules' own -H lines: `-name value`, with a second hyphen if the value is tainted. A newline becomes a blank. */
void spool_write_item(struct spool_writer *w, const char *name, struct str value);
/* Taints (or not) and copies a value that a module's read_spool was given, as the line said. */
struct str spool_read_value(struct spool_reader *r, struct str value);
