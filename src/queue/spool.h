/* The spool: -D, -H and -J files in Exim's format (Exim manual, chapter
"Format of spool files"), made durable by group commit (DESIGN §5).

Invariants (see docs/internals/spool.md):
 1. "250" only after spool_commit returned 0.
 2. A message exists iff its -H file exists under its final name; -D is synced before -H is renamed.
 3. A recipient is crossed off (-J or -H) only after its delivery is on stable storage or the next hop said 2xx.
 4. What cannot be read is moved aside with a log line, never deleted. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "message/message.h"

struct ctx;
struct config;
struct spool_writer;
struct spool_reader;

/* Reception: opens ID-D under a free id (sets m->id) in the message's queue and writes the first line. 0 or -errno. [suspends] */
int spool_data_open(struct ctx *c, struct message *m);
/* Appends body bytes (LF line ends, or CRLF with spool_wireformat). Buffered. 0 or -errno (ENOSPC …). [suspends] */
int spool_data_write(struct ctx *c, struct message *m, struct str data);
/* Makes the message durable and visible: flush -D, write -H, gathered fsync, rename. 0 or -errno; on error nothing is left. [suspends] */
int spool_commit(struct ctx *c, struct message *m);
/* Takes back an uncommitted message. */
void spool_abandon(struct ctx *c, struct message *m);

/* Rewrites -H (after a delivery attempt, -M…, freezing). With `durable` false it may be written without waiting. [suspends] */
int spool_write_header(struct ctx *c, struct message *m, bool durable);
/* Appends delivered addresses to the -J file. [suspends] */
int spool_journal(struct ctx *c, struct message *m, const struct str *addresses, size_t n);
/* Removes a finished message's files (-H last… see docs). */
int spool_remove(struct ctx *c, struct message *m);

enum spool_read { SPOOL_OK, SPOOL_NOT_FOUND, SPOOL_LOCKED, SPOOL_BAD /* format error, quarantined or reported */, SPOOL_IO };
/* Reads -H (and merges -J); opens and locks -D when `lock`. */
enum spool_read spool_read_message(struct ctx *c, struct str queue_name, struct str id, bool lock, struct message **ret);
/* Opens -D for reading at the start of the body. fd or -errno. */
int spool_open_body(struct ctx *c, const struct message *m);

/* Ids on disk, in order of id; for start-up, -q and -bp. */
struct spool_entry {
  char id[24];
  char subdir[2];
};
int spool_scan(struct ctx *c, struct str queue_name, struct arena *a, struct spool_entry **ret, size_t *ret_n);

/* For modules' own -H lines. */
void spool_write_item(struct spool_writer *w, const char *name, struct str value);
